"""The embedded broker: queues in one SQLite file, shared by the processes of one host.

- *One transaction a turn.*  What the outlets and intakes of one loop have to say in a turn is
  written at its end, together: settlements, new messages, and what is taken next.  An outlet
  without a loop commits each message before `publish` returns.
- *Owners, no leases.*  An intake holds messages as an owner that lives as long as its process; any
  other worker notices a dead one and gives its messages back.
- *Waking.*  Whoever commits messages rings a bell, and who waits knows the earliest due time.  A
  look each second is the net under both.

When they write is decided in `sqlite_turn`, the statements are in `sqlite_rows`, the sharing of the
file is in `taskq.sqlitefile`.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

from taskq import clock
from taskq.broker import exchange
from taskq.broker import sqlite_broadcast as broadcast
from taskq.broker import sqlite_history as history
from taskq.broker import sqlite_rows as rows
from taskq.broker.base import BrokerOptions, Delivery, Done, Queue, Replies, Route, unheard
from taskq.broker.sqlite_keeper import SqliteKeeper
from taskq.broker.sqlite_owner import Owners
from taskq.broker.sqlite_rows import Postmaster, Send
from taskq.broker.sqlite_turn import STORAGE_ERRORS, Turn, not_written
from taskq.broker.topology import dead
from taskq.errors import ConfigurationError, PublishRefused
from taskq.loop import Loop
from taskq.sqlitefile import SqliteFile, location
from taskq.wire.message import Message

#: Seconds between two looks of a worker that hears nothing.
_INTERVAL = 1.0


class SqliteBroker:
    """The queues in one file; a message is safe when it is committed."""

    needs_loop = False
    takes_back = False

    def __init__(self, options: BrokerOptions) -> None:
        if len(options.urls) != 1:
            raise ConfigurationError(f"broker_url names {len(options.urls)} SQLite files, not one")
        path, synchronous = location(options.urls[0], options.root)
        self._file = SqliteFile(path, rows.SCHEMA + broadcast.SCHEMA + history.SCHEMA, synchronous)
        self._broadcasts = broadcast.Broadcasts(self._file)
        self._postmaster = Postmaster(options.dead_letter_max_length)
        self._dead_letter_ttl = options.dead_letter_ttl
        self._timeout = options.publish_timeout
        self._turns: dict[Loop, Turn] = {}
        # Tests look less often, to show that a worker does not live by looking.
        self._interval = _INTERVAL

    @property
    def url(self) -> str:
        return f"sqlite:///{self._file.path}"

    def outlet(
        self, loop: Loop | None, *, on_blocked: Callable[[bool], None] = unheard
    ) -> "_DirectOutlet | _TurnOutlet":
        if loop is None:
            return _DirectOutlet(self._file, self._postmaster, self._timeout, self._broadcasts)
        return _TurnOutlet(self._turn(loop), self._broadcasts, self._timeout)

    def intake(
        self,
        loop: Loop,
        *,
        on_delivery: Callable[[Delivery], None],
        on_ready: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> "_Intake":
        return _Intake(self._turn(loop), on_delivery, on_ready)

    def replies(self, loop: Loop, queue: Queue, on_reply: Callable[[Message], None]) -> Replies:
        raise ConfigurationError(
            f"{self.url} has no reply queues: set result_backend to a store, such as sqlite:///"
        )

    def listen(
        self,
        loop: Loop,
        exchange: str,
        pattern: str,
        *,
        on_message: Callable[[Message], None],
        on_ready: Callable[[], None],
        queue: str | None = None,
    ) -> broadcast.Listening:
        return broadcast.Listening(loop, self._file, exchange, pattern, on_message, on_ready)

    def history(
        self,
        loop: Loop,
        name: str,
        exchange: str,
        *,
        on_message: Callable[[Message], None],
        on_ready: Callable[[], None],
    ) -> history.History:
        return history.History(loop, self._file, name, on_message, on_ready)

    def lease(self, *_: object, **__: object) -> None:
        """One host's processes find another place for it."""

    def count(self, queue: str) -> int:
        return self.keeper().count(queue)

    def keeper(self, management: str | None = None) -> SqliteKeeper:
        return SqliteKeeper(self._file, self._dead_letter_ttl)

    def close(self) -> None:
        self._file.close()

    def _turn(self, loop: Loop) -> Turn:
        if loop not in self._turns:
            forget = partial(self._turns.pop, loop)
            self._turns[loop] = Turn(
                loop, self._file, self._postmaster, self._dead_letter_ttl, self._interval, forget
            )
        return self._turns[loop]


class _DirectOutlet:
    """Publishes from any thread, each message in a transaction of its own."""

    def __init__(
        self,
        file: SqliteFile,
        postmaster: Postmaster,
        timeout: float,
        broadcasts: broadcast.Broadcasts,
    ) -> None:
        self._file = file
        self._postmaster = postmaster
        self._timeout = timeout
        self._broadcasts = broadcasts
        self.broadcast = broadcasts.send

    def publish(
        self,
        message: Message,
        route: Route,
        done: Done,
        *,
        due: float | None = None,
        mandatory: bool = True,
        timeout: float | None = None,
        confirm: bool = True,
    ) -> None:
        refused: PublishRefused | None = None
        patience = self._timeout if timeout is None else timeout
        if route.log is not None:
            done(self._broadcasts.keep(message, route, patience))
            return
        try:
            with self._file.writing(patience, ring=True) as db:
                send = Send(message, route, due, mandatory, done)
                self._postmaster.insert(db, self._postmaster.rows(db, send))
            self._postmaster.learn(route)
        except PublishRefused as error:
            refused = error
        except STORAGE_ERRORS as error:
            refused = not_written(self._file.path, error)
        done(refused)

    def close(self, timeout: float = 5.0) -> None:
        """Nothing is unconfirmed here, ever."""


class _TurnOutlet:
    """Publishes at the end of its loop's turn, with whatever else is written then."""

    def __init__(self, turn: Turn, broadcasts: broadcast.Broadcasts, timeout: float) -> None:
        self._turn = turn
        self._timeout = timeout
        self._broadcasts = broadcasts
        self.broadcast = broadcasts.send
        turn.join(self)

    def publish(
        self,
        message: Message,
        route: Route,
        done: Done,
        *,
        due: float | None = None,
        mandatory: bool = True,
        timeout: float | None = None,
        confirm: bool = True,
    ) -> None:
        if route.log is None:
            self._turn.publish(Send(message, route, due, mandatory, done))
        else:
            patience = self._timeout if timeout is None else timeout
            done(self._broadcasts.keep(message, route, patience))

    def close(self, timeout: float = 5.0) -> None:
        self._turn.leave(self, timeout)


class _Intake:
    """A worker's hold on some queues, as one owner of messages."""

    def __init__(
        self, turn: Turn, on_delivery: Callable[[Delivery], None], on_ready: Callable[[], None]
    ) -> None:
        #: How many more messages each queue that is consumed from may bring.
        self.room: dict[str, int] = {}
        self._turn = turn
        self._on_delivery = on_delivery
        self._on_ready = on_ready
        self._window = 0
        self._owners = Owners.of(turn.file.path)
        self._owner = 0
        self._tags = itertools.count(1)
        #: By tag.  A delivery's `hold` is the number of its row, which another message may bear
        #: when the row is gone; tags are never used twice, so a stale settlement cannot hit that.
        self._held: dict[int, Delivery] = {}
        turn.join(self)

    @property
    def owner(self) -> int:
        """The number of this hold, made when it is needed, for then its folder exists."""
        if not self._owner:
            self._owner = self._owners.new()
        return self._owner

    def consume(self, queues: Sequence[Queue], window: int) -> None:
        self._window = window
        for queue in queues:
            self.add(queue)
        self._turn.then(self._on_ready)
        self._turn.feed(self)

    def resize(self, window: int) -> None:
        for queue in self.room:
            self.room[queue] += window - self._window
        self._window = window
        self._turn.feed(self)

    def add(self, queue: Queue) -> None:
        for binding in exchange.bindings(queue):
            self._turn.say(rows.BIND, *binding)
        in_hand = sum(held.queue == queue.name for held in self._held.values())
        self.room[queue.name] = self._window - in_hand

    def cancel(self, queue: str) -> None:
        self.room.pop(queue, None)

    def pause(self) -> None:
        self.room.clear()

    def ack(self, delivery: Delivery, *, at_once: bool = False) -> None:
        self._settle(delivery, rows.ACK)

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        if requeue:
            self._settle(delivery, rows.REQUEUE)
        else:
            expires = clock.wall() + self._turn.dead_letter_ttl
            self._settle(delivery, rows.DEAD_LETTER, dead(delivery.queue), expires)

    def close(self, timeout: float = 5.0) -> None:
        self.room.clear()
        self._held.clear()
        if self._owner:
            self._turn.say(rows.GIVE_BACK, self._owner)
        self._turn.leave(self, timeout)
        if self._owner:
            self._owners.release(self._owner)
            self._owner = 0

    def _settle(self, delivery: Delivery, statement: str, *more: str | float) -> None:
        if self._held.pop(delivery.tag, None) is None:
            return
        if delivery.queue in self.room:
            self.room[delivery.queue] += 1
        self._turn.say(statement, delivery.hold, self._owner, *more)

    # -- what the turn calls -----------------------------------------------------------------

    def hold(self, queue: str, row: rows.Taken) -> Delivery:
        _, number, again, tries, sent_to, routing_key, properties, body = row
        delivery = Delivery(
            next(self._tags), number, queue, Message(properties, body),
            sent_to, routing_key, bool(again), tries,
        )  # fmt: skip
        self._held[delivery.tag] = delivery
        if queue in self.room:
            self.room[queue] -= 1
        return delivery

    def deliver(self, delivery: Delivery) -> None:
        if delivery.tag in self._held:
            self._on_delivery(delivery)
