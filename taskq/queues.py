"""What can be said and done about queues: their numbers, and moving messages between them.

Purging and deleting is the broker's `Keeper`'s; pausing is a remote command; how it is all shown is
the business of `cli.queues`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from taskq import clock
from taskq.app import TaskQ
from taskq.broker import topology
from taskq.broker.base import Delivery, Intake, Keeper, Outlet, Queue, Route, Stock
from taskq.errors import BrokerUnavailable, PublishError, QueueError
from taskq.loop import Loop
from taskq.wire import task
from taskq.wire.message import Message

#: So many messages are on their way at once: those confirmed, but not acknowledged when this
#: process is killed, are in both queues.
_AT_ONCE = 200

#: So long (seconds) a message that was counted is waited for, since no broker tells whether one is
#: on its way to us.
_PATIENCE = 10.0
#: After so many seconds without one, look whether somebody else has taken them.
_QUIET = 1.0


def find(app: TaskQ, name: str) -> Queue:
    """The queue that people call *name*, by the app's name for it or by the broker's."""
    known = app.router.queues
    if name in known:
        return known[name]
    for queue in known.values():
        if queue.name == name:
            return queue
    if name == topology.UNDELIVERABLE:
        return Queue(name, kind="dead")
    work = name.removesuffix(topology.DEAD)
    if work != name:
        return Queue(topology.dead(find(app, work).name), kind="dead")
    prefix = app.conf.queue_prefix
    return Queue(name if name.startswith(prefix) else topology.physical(name, prefix))


@dataclass(frozen=True, slots=True)
class Line:
    """One queue in a list: what the broker tells of it, and how many *dead* letters it has."""

    queue: str
    stock: Stock | None
    dead: int | None

    def record(self) -> dict[str, Any]:
        """All of it, fit for JSON; None for what nobody knows."""
        told = asdict(self.stock or Stock(self.queue, 0))
        if self.stock is None:
            told["ready"] = None
        age = None if told["oldest"] is None else max(0.0, clock.wall() - told["oldest"])
        return told | {"exists": self.stock is not None, "dead": self.dead, "age": age}


def lines(app: TaskQ, keeper: Keeper, names: Sequence[str] = ()) -> list[Line]:
    """What there is to be said of the queues *names*, or of all that the app knows."""
    found = [find(app, name) for name in names] or list(app.router.queues.values())
    queues = list(dict.fromkeys(queue.name for queue in found))
    dead = {queue: topology.dead(queue) for queue in queues if not queue.endswith(topology.DEAD)}
    more = () if names else (topology.UNDELIVERABLE,)
    stocks = keeper.look([*queues, *dead.values(), *more])

    def line(queue: str) -> Line:
        letters = stocks.get(dead.get(queue, ""))
        return Line(queue, stocks.get(queue), letters.ready if letters else None)

    listed = [line(queue) for queue in queues]
    lost = stocks.get(topology.UNDELIVERABLE)
    return [*listed, line(lost.queue)] if more and lost and lost.ready else listed


def stock(keeper: Keeper, queue: str) -> Stock:
    """What the broker tells of *queue*; QueueError if there is none of that name."""
    found = keeper.look([queue])
    if queue not in found:
        raise QueueError(f"there is no queue {queue!r}: see taskq queues list")
    return found[queue]


class Move:
    """Takes messages out of the queue *source* and puts them into *target*, at least once.

    Those that stood there at the beginning, the oldest first, *limit* at most.  Each is
    acknowledged in *source* once the broker has confirmed it in *target*, so that none is lost,
    whenever this ends.  A retry of a moved task goes to *target*.
    """

    def __init__(self, app: TaskQ, source: str, target: str, limit: int | None = None) -> None:
        self.source, self.target = find(app, source), find(app, target)
        #: How many were moved, and which could not be: the task's id, and why.
        self.moved = 0
        self.refused: list[tuple[str, str]] = []
        self._app = app
        self._taken = 0
        self._intake: Intake
        self._outlet: Outlet
        self._sending = 0
        self._lost: str | None = None
        if self.source.name == self.target.name:
            raise QueueError(f"queue {self.source.name!r} cannot be moved to itself")
        keeper = app.broker.keeper()
        try:
            ready = stock(keeper, self.source.name).ready
            if self.target not in app.router.queues.values():  # it may be a slip of the pen
                stock(keeper, self.target.name)
        finally:
            keeper.close()
        #: How many there are to move.
        self.expected = ready if limit is None else min(ready, limit)

    def run(self, on_progress: Callable[[int], object]) -> None:
        """Move them; *on_progress* hears how many are dealt with.

        BrokerUnavailable when the broker goes away meanwhile: what is moved stays so.
        """
        if not self.expected:
            return
        loop, broker = Loop(), self._app.broker
        self._outlet = broker.outlet(loop)
        self._intake = broker.intake(
            loop, on_delivery=self._take, on_ready=lambda: None, on_lost=self._on_lost
        )
        window = min(self.expected, _AT_ONCE)
        try:
            # As a queue of dead letters it is consumed as it is, and nothing is made beside it.
            self._intake.consume([Queue(self.source.name, kind="dead")], window)
            heard, dealt = clock.monotonic(), 0
            while dealt < self.expected and len(self.refused) < window:
                loop.turn(_QUIET)
                self._check()
                now = clock.monotonic()
                if self._sending or self._dealt > dealt:
                    heard, dealt = now, self._dealt
                    on_progress(dealt)
                elif now - heard >= _QUIET and self._is_over(now - heard):
                    return
        finally:
            self._intake.close()  # what was not sent goes back
            self._outlet.close()
            loop.close()

    @property
    def _dealt(self) -> int:
        return self.moved + len(self.refused)

    def _is_over(self, silence: float) -> bool:
        """Whether others took the rest; BrokerUnavailable if it is there and does not come."""
        if not self._app.broker.count(self.source.name):
            return True
        if silence < _PATIENCE:
            return False
        raise BrokerUnavailable(
            f"{self._app.broker.url} has messages in {self.source.name} and delivers none; look "
            "whether it is overloaded, or whether another consumer has the queue for itself"
        )

    def _check(self) -> None:
        if self._lost is not None:
            raise BrokerUnavailable(
                f"the connection to {self._app.broker.url} was lost ({self._lost}); what was not "
                f"moved is in {self.source.name} again, and of the last ones some are in both"
            )

    def _on_lost(self, reason: str) -> None:
        self._lost = reason

    def _take(self, delivery: Delivery) -> None:
        if self._taken == self.expected:  # one that came since
            return
        self._taken += 1
        try:
            message = self._moved(delivery.message)
        except ValueError as error:
            self._refuse(delivery, error)
            return
        self._sending += 1
        # Not through its exchange, which might copy it to other queues, too.
        declare = (self.target,) if self.target in self._app.router.queues.values() else ()
        route = Route("", self.target.name, declare)
        self._outlet.publish(message, route, partial(self._sent, delivery))

    def _sent(self, delivery: Delivery, error: PublishError | None) -> None:
        self._sending -= 1
        if error is None:
            self._intake.ack(delivery)
            self.moved += 1
        else:
            self._refuse(delivery, error)

    def _refuse(self, delivery: Delivery, error: Exception) -> None:
        properties = delivery.message.properties
        name = properties.headers.get("id") or properties.correlation_id or "?"
        self.refused.append((str(name), str(error)))

    def _moved(self, message: Message) -> Message:
        """*message* without what brokers wrote into it, its way through the delay ladder, too."""
        if message.properties.malformed is not None:
            return message  # its very bytes
        # How long a dead letter is kept is no time to live for a task.
        revived = self.source.name.endswith(topology.DEAD) and self.target.kind == "work"
        expiration = None if revived else message.properties.expiration
        return task.resend(message, delivery_mode=2, expiration=expiration)
