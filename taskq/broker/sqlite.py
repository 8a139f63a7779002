"""The embedded broker: queues in one SQLite file, shared by the processes of one host.

A message is a row, and `state` says where it stands::

                 due passes                take
    WAITING ------------------> READY -------------> HELD --- ack ---> (row deleted)
       ^                        ^   ^                  |
       '-- publish with due     |   '-- requeue, death of the owner, close
               publish ---------'   '-- dead letter: READY in `<queue>.dead`

- *One transaction a turn.*  What the outlets and intakes of one loop have to say in a turn is
  written at its end at once: settlements, then messages, then what is taken next.  Without a loop
  each publish is a transaction of its own.
- *Owners.*  A held row carries the number of its intake (`owner`).  Settling it names that number
  too, so a settlement by someone who lost the message changes nothing.
- *Waking.*  Whoever commits messages rings the bell; who waits also knows the earliest due time.
  A look each second is the net under both, and finds the owners that died.

Opening and sharing the file belongs to `sqlitefile`, routing to `exchange`.
"""

import itertools
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from taskq import clock
from taskq.broker import exchange
from taskq.broker.base import BrokerOptions, Delivery, Done, Outlet, Queue, Replies, Route
from taskq.broker.doorbell import Doorbell
from taskq.broker.exchange import Binding
from taskq.broker.owner import NOBODY, Owners
from taskq.errors import BrokerUnavailable, ConfigurationError, PublishRefused
from taskq.log import event
from taskq.loop import Loop, Timer
from taskq.sqlitefile import PATIENCE, SqliteFile, location
from taskq.wire.message import Message

#: Seconds between two looks of a worker that hears nothing, and after a failed transaction.
_INTERVAL = 1.0
#: Messages made ready in one transaction when their time has come, lest other writers wait long.
_SLICE = 1000

# `owner` keeps its width and the states 0 and 1 take no bytes, so that a take overwrites in place.
_READY, _HELD, _WAITING = 0, 1, 2

_SCHEMA = f"""
create table if not exists binding (
    exchange text, type text, routing_key text, queue text,
    primary key (exchange, routing_key, queue)
) without rowid;
create table if not exists message (
    id integer primary key,
    queue text not null,
    rank integer not null,
    state integer not null,
    owner integer not null default {NOBODY},
    tries integer not null default 0,
    again integer not null default 0,
    due real,
    expires real,
    exchange text not null,
    routing_key text not null,
    properties blob not null,
    body blob not null
);
create index if not exists message_ready on message (queue, rank) where state = {_READY};
create index if not exists message_held on message (owner) where state = {_HELD};
create index if not exists message_waiting on message (due) where state = {_WAITING};
create index if not exists message_expires on message (expires) where expires is not null;
"""

_BIND = "insert or ignore into binding values (?, ?, ?, ?)"
_BOUND = "select exchange, type, routing_key, queue from binding where exchange = ?"
_BOUND_TO = _BOUND + " and routing_key = ?"

_INSERT = """
insert into message (queue, rank, state, due, expires, exchange, routing_key, properties, body)
values (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_TAKE = f"""
update message set state = {_HELD}, owner = ? where id in (
    select id from message where queue = ? and state = {_READY} order by rank, id limit ?
) returning rank, id, tries, again, exchange, routing_key, properties, body
"""
_ACK = "delete from message where id = ? and owner = ?"
_BACK = f"update message set state = {_READY}, owner = {NOBODY}, again = 1"
_REQUEUE = f"{_BACK}, tries = tries + 1 where id = ? and owner = ?"
_CLOSE = f"{_BACK} where owner = ? and state = {_HELD}"
_BURY = f"{_BACK}, tries = tries + 1 where owner = ? and state = {_HELD}"
_DEAD_LETTER = f"""
update message set queue = ?1, exchange = '', routing_key = ?1, state = {_READY}, owner = {NOBODY},
    tries = 0, again = 0, expires = null
where id = ?2 and owner = ?3
"""

_PROMOTE = f"""
update message set state = {_READY} where id in (
    select id from message where state = {_WAITING} and due <= ? order by due limit {_SLICE}
)
"""
_EXPIRE = f"delete from message where expires <= ? and state <> {_HELD}"

_ANY_READY = f"select 1 from message where queue = ? and state = {_READY} limit 1"
_EARLIEST = f"select due from message where state = {_WAITING} order by due limit 1"
_OWNERS = f"select distinct owner from message where state = {_HELD}"
_COUNT = f"""
select (select count(*) from message where queue = ?1 and state = {_READY})
    - (select count(*) from message where expires <= ?2 and queue = ?1 and state = {_READY})
    + (select count(*) from message where state = {_WAITING} and due <= ?2 and queue = ?1
        and (expires is null or expires > ?2))
"""


class SqliteBroker:
    """The queues in one file; publishing is done when the message is committed."""

    needs_loop = False

    def __init__(self, options: BrokerOptions) -> None:
        if len(options.urls) != 1:
            raise ConfigurationError(f"broker_url: one sqlite URL, not {len(options.urls)}")
        path, synchronous = location(options.urls[0], options.root)
        self._file = SqliteFile(path, _SCHEMA, synchronous)
        self._post = _Post()
        self._timeout = options.publish_timeout
        self._turns: dict[Loop, _Turn] = {}
        # Tests look less often, to prove that nothing but the bell woke a worker.
        self._interval = _INTERVAL

    @property
    def url(self) -> str:
        return f"sqlite:///{self._file.path}"

    def outlet(self, loop: Loop | None) -> Outlet:
        if loop is None:
            return _DirectOutlet(self._file, self._post, self._timeout)
        return _TurnOutlet(self._turn(loop))

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
            f"{self.url} has no reply queues: keep results in a store "
            "(result_backend sqlite:///..., or none at all to use the broker's file)"
        )

    def count(self, queue: str) -> int:
        try:
            with self._file.reading() as db:
                ((number,),) = db.execute(_COUNT, (queue, clock.wall()))
        except (sqlite3.Error, OSError) as error:
            raise BrokerUnavailable(f"{self.url} cannot be read: {error}") from error
        return int(number)

    def close(self) -> None:
        self._file.close()

    def _turn(self, loop: Loop) -> "_Turn":
        if loop not in self._turns:
            self._turns[loop] = _Turn(
                loop, self._file, self._post, self._interval, partial(self._turns.pop, loop)
            )
        return self._turns[loop]


class _Post:
    """Turns publishes into rows; remembers which bindings are in the file, to ask less."""

    def __init__(self) -> None:
        #: (exchange, routing key, queue); thread-safe, for it only grows.
        self._known: set[tuple[str, str, str]] = set()

    def rows(self, db: sqlite3.Connection, send: "_Send") -> list[tuple[Any, ...]]:
        """What `_INSERT` needs for each queue that gets the message; raises PublishRefused.

        The caller says `learn` once this is committed.
        """
        message, route, due, mandatory = send
        for queue in route.declare:
            if (queue.exchange, queue.routing_key, queue.name) not in self._known:
                db.executemany(_BIND, exchange.bindings(queue))
        queues = self._targets(db, route, mandatory)
        rank, lifetime = exchange.rank_and_lifetime(message.raw)
        state = _READY if due is None else _WAITING
        expires = None if lifetime is None else (due or clock.wall()) + lifetime
        rest = (state, due, expires, route.exchange, route.routing_key, message.raw, message.body)
        return [(queue, rank, *rest) for queue in queues]

    def learn(self, route: Route) -> None:
        """Remember what *route* declared, and the queue that it found."""
        for queue in route.declare:
            self._known.add((queue.exchange, queue.routing_key, queue.name))
            self._known.add(("", queue.name, queue.name))

    def _targets(self, db: sqlite3.Connection, route: Route, mandatory: bool) -> Sequence[str]:
        name = route.routing_key
        if route.exchange:
            bound = db.execute(_BOUND, (route.exchange,))
        elif ("", name, name) in self._known:
            return (name,)
        else:
            bound = db.execute(_BOUND_TO, ("", name))
        return exchange.targets(map(Binding._make, bound), route, mandatory=mandatory)


#: What to publish: message, route, due, mandatory.
_Send = tuple[Message, Route, float | None, bool]


class _DirectOutlet:
    """Publishes from any thread, each message in a transaction of its own."""

    def __init__(self, file: SqliteFile, post: _Post, timeout: float) -> None:
        self._file = file
        self._post = post
        self._timeout = timeout

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
        try:
            with self._file.writing(self._timeout if timeout is None else timeout) as db:
                rows = self._post.rows(db, (message, route, due, mandatory))
                db.executemany(_INSERT, rows)
            self._post.learn(route)
            self._file.ring()
        except PublishRefused as error:
            refused = error
        except (sqlite3.Error, OSError) as error:
            refused = _not_written(self._file, error)
        done(refused)

    def close(self, timeout: float = 5.0) -> None:
        """Nothing is ever unconfirmed here."""


class _TurnOutlet:
    """Publishes with what else its loop has to write at the end of the turn."""

    def __init__(self, turn: "_Turn") -> None:
        self._turn: _Turn | None = turn
        turn.members.append(self)

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
        if self._turn is None:
            done(PublishRefused(f"not queued: the outlet for {route} is closed"))
        else:
            self._turn.publish((message, route, due, mandatory), done)

    def close(self, timeout: float = 5.0) -> None:
        if self._turn is not None:
            turn, self._turn = self._turn, None
            turn.leave(self, timeout)


class _Turn:
    """What the members (outlets and intakes) of one loop write together at the end of a turn.

    Everything here is written by the loop's thread.
    """

    def __init__(
        self,
        loop: Loop,
        file: SqliteFile,
        post: _Post,
        interval: float,
        forget: Callable[[], object],
    ) -> None:
        self.loop = loop
        self.file = file
        self.members: list[_TurnOutlet | _Intake] = []
        self._post = post
        self._interval = interval
        self._forget = forget
        self._sends: list[tuple[_Send, Done]] = []
        #: Statement -> its arguments, in the order of the saying; kept until they are committed.
        self._said: dict[str, list[Sequence[Any]]] = {}
        self._after: list[Callable[[], None]] = []
        self._scheduled = False
        self._writing = False
        self._bell: Doorbell | None = None
        self._timer: Timer | None = None

    # -- what members say --------------------------------------------------------------------

    def publish(self, send: _Send, done: Done) -> None:
        """Send with this turn; *done* hears how it ended."""
        self._sends.append((send, done))
        self.schedule()

    def say(self, statement: str, *arguments: Any) -> None:
        """Execute *statement* with this turn, or with the first later one that can be written."""
        self._said.setdefault(statement, []).append(arguments)
        self.schedule()

    def then(self, callback: Callable[[], None]) -> None:
        """Call *callback* once all that was said until now is committed."""
        self._after.append(callback)

    def schedule(self) -> None:
        """Write at the end of this turn; of the next one if this turn's writing is under way.

        A loop must turn between two transactions, or signals and timers would wait for the last.
        """
        if self._scheduled:
            return
        self._scheduled = True
        if self._writing:
            self.loop.add_callback(partial(self.loop.at_turn_end, self._write))
        else:
            self.loop.at_turn_end(self._write)

    def leave(self, member: "_TurnOutlet | _Intake", timeout: float) -> None:
        """Write what there is, within *timeout* seconds, and let *member* go."""
        self._write(timeout)
        self.members.remove(member)
        if not self.members:
            self._forget()
            if self._timer is not None:
                self._timer.cancel()
            if self._bell is not None:
                self._bell.close()

    # -- the transaction ---------------------------------------------------------------------

    def _write(self, patience: float = PATIENCE) -> None:
        self._scheduled = False
        sends, self._sends = self._sends, []
        try:
            if not (sends or self._said or self._is_worth_writing(patience)):
                return
            with self.file.writing(patience) as db:
                for statement, arguments in self._said.items():
                    db.executemany(statement, arguments)
                outcomes = self._insert(db, sends)
                taken = self._take(db)
        except _STORAGE_ERRORS as error:
            self._fail(sends, error)
            return
        finally:
            self._set_timer()
        if sends or not self._said.keys() <= _SILENT:
            self.file.ring()
        self._said.clear()
        self._writing = True
        try:
            self._report(outcomes, taken)
        finally:
            self._writing = False

    def _is_worth_writing(self, patience: float) -> bool:
        """Whether a take would find something; a look costs less than a transaction."""
        hungry = self._hungry()
        if not hungry:
            return False
        with self.file.reading(patience) as db:
            self._note_earliest(db)
            return self._earliest <= clock.wall() or any(
                db.execute(_ANY_READY, (queue,)).fetchone() for _, queue in hungry
            )

    def _insert(self, db: sqlite3.Connection, sends: list[_Send]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        rows: list[_Row] = []
        for send in sends:
            try:
                rows += self._post.rows(db, send)
                outcomes.append((send, None))
            except PublishRefused as refused:
                outcomes.append((send, refused))
        db.executemany(_INSERT, rows)
        return outcomes

    def _take(self, db: sqlite3.Connection) -> list[_Taken]:
        hungry = self._hungry()
        if not hungry:
            return []
        if self._bell is None:  # inside the transaction: until its end nobody rings unheard
            self._bell = Doorbell(self.loop, self.file.bell, self.schedule)
        now = clock.wall()
        db.execute(_PROMOTE, (now,))
        db.execute(_EXPIRE, (now,))
        taken = [
            (intake, queue, sorted(db.execute(_TAKE, (intake.owner, queue, intake.room[queue]))))
            for intake, queue in hungry
        ]
        self._note_earliest(db)
        return taken

    def _hungry(self) -> "list[tuple[_Intake, str]]":
        return [
            (intake, queue)
            for intake in self._intakes
            for queue, room in intake.room.items()
            if room > 0
        ]

    def _report(self, outcomes: list[_Outcome], taken: list[_Taken]) -> None:
        """Tell the members what was committed; any of them may close in a callback."""
        # All is in hand before any callback runs, so that each of them sees the windows as they are.
        batches = [[intake.hold(queue, row) for row in rows] for intake, queue, rows in taken]
        after, self._after = self._after, []
        for callback in after:
            callback()
        for delivery in itertools.chain.from_iterable(itertools.zip_longest(*batches)):
            if delivery is not None:
                delivery.hold.deliver(delivery)
        for (_, route, _, _, done), refused in outcomes:
            if refused is None:
                self._post.learn(route)
            done(refused)

    def _fail(self, sends: list[_Send], error: Exception) -> None:
        """Refuse what was sent in this turn; what was said besides is tried again in a while."""
        if self._intakes:
            event("connection-failed", broker=..., role="intake", reason=error, delay=_INTERVAL)
        for *_, done in sends:
            done(_not_written(self.file, error))

    # -- waking ------------------------------------------------------------------------------
