"""Dead letters as people handle them: looked at, sent again, thrown away.

What their headers mean is the business of `wire.dead`, how they are shown that of `cli.dead`.

Nobody can read a queue without taking from it.  So letters are taken and not acknowledged, and the
broker gives them back, in their order and uncounted, when the hold on them ends, however it ends.
From this follows how far one can look: what is taken and kept fills the window of the hold, and
behind a full window nothing is seen.
"""

import base64
import hashlib
import math
import reprlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from datetime import datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from taskq import clock
from taskq.app import TaskQ
from taskq.broker import topology
from taskq.broker.base import Delivery, Outlet, Queue, Route
from taskq.errors import BrokerUnavailable, PublishError
from taskq.loop import Loop
from taskq.wire import dead, task
from taskq.wire.dead import DeadLetter
from taskq.wire.headers import BROKER_HEADERS
from taskq.wire.message import Message, Properties

#: So many letters of a queue are kept in hand, and thus looked through, unless told otherwise.
DEPTH = 10_000
#: AMQP counts the window of a consumer in 16 bits.
DEEPEST = 65_535

#: So many letters are on their way back at once: those confirmed, but not acknowledged when this
#: process is killed, run twice.
_AT_ONCE = 200

#: So long (seconds) a letter that was counted is waited for, since no broker tells whether one is
#: on its way to us.
_PATIENCE = 10.0

#: An id may be given by its beginning, if that is no shorter.
SHORTEST_ID = 8

#: The year 10,000, which no date reaches.
_END_OF_TIME = 253_402_300_800.0

#: Instead of the body of a letter that is dealt with: the intake keeps deliveries until the end.
_NOTHING = Message(b"\0\0", b"")


@dataclass(frozen=True, slots=True)
class Place:
    """A dead-letter queue (*name*) and the work queue beside it.

    None is beside `taskq.undeliverable`, where delayed messages end whose queue was deleted.
    """

    name: str
    work: Queue | None


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter in hand, and *why* it was given up, as far as anybody tells."""

    place: Place
    delivery: Delivery
    message: Message
    why: DeadLetter

    @classmethod
    def of(cls, place: Place, delivery: Delivery) -> "Letter":
        """The letter in *delivery*, which need not be ours: anybody may put messages there."""
        message = delivery.message
        why = dead.read(message.headers)
        if why is None and place.work is None:
            why = DeadLetter(delivery.routing_key, "its queue was gone when its time came")
        why = why or dead.read_x_death(message.headers)
        why = why or DeadLetter("", message.properties.malformed or "nothing tells")
        return cls(place, delivery, message, why)

    @property
    def id(self) -> str:
        """The task's id; for a message without one, a name made of its content."""
        properties = self.message.properties
        for name in (properties.headers.get("id"), properties.correlation_id):
            if isinstance(name, str) and name:
                return name
        known = {
            name: value for name, value in properties.headers.items() if name not in BROKER_HEADERS
        }
        content = repr(sorted(known.items())).encode(errors="replace") + self.message.body
        return f"no-id-{hashlib.sha256(content).hexdigest()[:12]}"

    @property
    def task(self) -> str:
        """The name of the task, "" for what is none."""
        name = self.message.headers.get("task")
        return name if isinstance(name, str) else ""

    @property
    def queue(self) -> str:
        """The queue that it was in before, by its name on the broker."""
        return self.why.queue or (self.place.work.name if self.place.work else "")

    @property
    def died_at(self) -> float | None:
        """When it was given up, in seconds since the epoch, if that is told and makes sense."""
        return self.why.died_at if 0 < self.why.died_at < _END_OF_TIME else None

    def summary(self) -> dict[str, Any]:
        """What a list tells of it, fit for JSON."""
        why = self.why
        return {
            "id": self.id,
            "task": self.task or None,
            "queue": self.queue or None,
            "dead_queue": self.place.name,
            "reason": why.reason,
            "exception": why.exception_type or None,
            "message": why.exception or None,
            "attempts": why.attempts or None,
            "worker": why.worker or None,
            "died_at": self.died_at,
        }

    def record(self) -> dict[str, Any]:
        """All of it, fit for JSON; `raw` and `body` are the very bytes, in base64.

        `raw` holds the properties as an AMQP content header has them after the body size.
        """
        properties, message = self.message.properties, self.message
        given = {each.name: getattr(properties, each.name) for each in fields(Properties)}
        del given["headers"]
        return self.summary() | {
            "traceback": self.why.traceback or None,
            "exchange": self.delivery.exchange,
            "routing_key": self.delivery.routing_key,
            "headers": _portable(message.headers),
            "properties": {name: each for name, each in given.items() if each is not None},
            "raw": base64.b64encode(message.raw).decode(),
            "body": base64.b64encode(message.body).decode(),
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are meant: those that fit everything that is given.

    *ids* may be beginnings of SHORTEST_ID characters or more, *task* and *exception* are globs,
    *reason* is a part of it in any case of letters, *older* and *newer* are ages in seconds.
    """

    ids: tuple[str, ...] = ()
    task: str | None = None
    exception: str | None = None
    reason: str | None = None
    older: float | None = None
    newer: float | None = None

    def fits(self, letter: Letter, now: float) -> bool:
        """Whether *letter* is meant; *now* is in seconds since the epoch."""
        why = letter.why
        if self.ids and not any(_is_id(letter.id, given) for given in self.ids):
            return False
        if self.task is not None and not fnmatchcase(letter.task, self.task):
            return False
        if self.exception is not None and not fnmatchcase(why.exception_type, self.exception):
            return False
        if self.reason is not None and self.reason.casefold() not in why.reason.casefold():
            return False
        if self.older is None and self.newer is None:
            return True
        if letter.died_at is None:
            return False
        age = now - letter.died_at
        return (self.older is None or age >= self.older) and (
            self.newer is None or age <= self.newer
        )


#: No condition at all.
ALL = Wanted()


class DeadLetters:
    """The dead letters of some queues of an app, in hand from `with` to its end.

    One thing can be done, once: iterating and `count` look, `discard` and `replay` acknowledge.
    They deal with the *wanted* among the letters that stood there at the beginning, *limit* at
    most.  *queues* are names as the app uses them (none: all that it knows), or those of their
    dead-letter queues.  BrokerUnavailable when the broker is away or goes away.
    """

    def __init__(
        self,
        app: TaskQ,
        queues: Sequence[str] = (),
        wanted: Wanted = ALL,
        *,
        limit: int | None = None,
        depth: int = DEPTH,
    ) -> None:
        self.places = _places(app, queues)
        #: How many letters there are by place, from `with` on.
        self.waiting: dict[str, int] = {}
        #: How many of them were looked at.
        self.seen = 0
        #: How many stood behind a full window, where nobody can look.
        self.out_of_reach = 0
        #: How many were discarded, or sent again.
        self.done = 0
        #: Summaries of the letters that could not be sent again, and why.
        self.refused: list[tuple[dict[str, Any], str]] = []
        self._app = app
        self._wanted = wanted
        self._limit = limit
        # Not less for a small limit: what a quorum queue is given back it delivers before the rest,
        # in the order of giving back, so that who takes only some of it changes the order.
        self._window = min(depth, DEEPEST)
        self._arrived: deque[Delivery] = deque()
        self._current = ""
        self._in_hand = 0
        self._sending = 0
        self._lost: str | None = None
        self._outlet: Outlet | None = None

    def __enter__(self) -> "DeadLetters":
        broker = self._app.broker
        self.waiting = {place.name: broker.count(place.name) for place in self.places}
        self._loop = Loop()
        self._intake = broker.intake(
            self._loop,
            on_delivery=self._on_delivery,
            on_ready=lambda: None,
            on_lost=self._on_lost,
        )
        # What was sent is confirmed and acknowledged before the rest is given back.
        self._ends = ExitStack()
        self._ends.callback(self._loop.close)
        self._ends.callback(self._intake.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    @property
    def url(self) -> str:
        """The broker, with the password masked."""
        return self._app.broker.url

    @property
    def expected(self) -> int:
        """How many letters there are to look at, or, where all are wanted, to deal with."""
        total = sum(self.waiting.values())
        return min(total, self._limit) if self._limit and self._wanted == ALL else total

    @property
    def unseen(self) -> int:
        """How many letters there were that were not looked at, for whatever reason."""
        return sum(self.waiting.values()) - self.seen

    def __iter__(self) -> Iterator[Letter]:
        yielded = 0
        for place in self.places:
            for delivery in self._walk(place):
                letter = Letter.of(place, delivery)
                delivery.message = _NOTHING
                if self._wanted.fits(letter, clock.wall()):
                    yield letter
                    yielded += 1
                    if yielded == self._limit:
                        return

    def count(self) -> int:
        """How many are wanted; looks through them where it must."""
        return self.expected if self._wanted == ALL else sum(1 for _ in self)

    def discard(self, on_progress: Callable[[int], object]) -> None:
        """Throw the wanted letters away, for good; *on_progress* hears how many were `seen`."""
        for letter in self:
            self._ack(letter.delivery)
            on_progress(self.seen)

    def replay(self, to: str | None, on_progress: Callable[[int], object]) -> None:
        """Send the wanted letters to the queues they came from, or *to* another, as if new.

        A dead letter is acknowledged once the broker has confirmed what was sent.  What cannot be
        sent stays where it is, and stands in `refused`.
        """
        for letter in self:
            try:
                message, route = _revived(letter), self._route(letter, to)
            except ValueError as error:
                self._refuse(letter, error)
            else:
                self._send(letter, message, route)
            on_progress(self.seen)
        self._until(lambda: not self._sending)

    def arguments(self, letter: Letter) -> tuple[str, str]:
        """The arguments of *letter* for people, shortened; MessageMalformed if they are broken."""
        conf = self._app.conf
        body = task.open_body(letter.message, conf.accept_content, conf.task_max_payload)
        return _shown(body.args, conf.repr_max_length), _shown(body.kwargs, conf.repr_max_length)

    # -- taking ------------------------------------------------------------------------------

    def _walk(self, place: Place) -> Iterator[Delivery]:
        """Take the letters that stood in *place*, the oldest first, as far as the window goes."""
        if not self.waiting[place.name]:
            return  # it may not even exist, and looking makes no queues
        # The place before stays consumed from, unheard.  While many acks are on their way to a
        # quorum queue, RabbitMQ's channel holds others back, and a closed channel forgets them,
        # unless a consumer of the queue was cancelled after them; as closing does with all.
        self._current, self._in_hand = place.name, 0
        self._arrived.clear()
        self._intake.consume([Queue(place.name, kind="dead")], self._window)
        total = self.waiting[place.name]
        for taken in range(total):
            if not self._arrive():
                if self._is_full:
                    self.out_of_reach += total - taken
                else:  # the others are gone: expired, or in somebody else's hands
                    self.waiting[place.name] = taken
                return
            self.seen += 1
            yield self._arrived.popleft()

    def _arrive(self) -> bool:
        """Wait for a letter; whether there is one."""
        self._until(lambda: bool(self._arrived) or not self._sending)
        self._until(lambda: bool(self._arrived) or self._is_full, _PATIENCE)
        if self._arrived:
            return True
        if self._is_full or not self._app.broker.count(self._current):
            return False
        raise BrokerUnavailable(
            f"{self.url} has letters in {self._current} and delivers none; look whether it is "
            "overloaded, or whether another consumer has the queue for itself"
        )

    @property
    def _is_full(self) -> bool:
        return self._in_hand >= self._window and not self._sending

    def _until(self, condition: Callable[[], bool], timeout: float = math.inf) -> None:
        """Turn the loop until *condition* holds, at most *timeout* seconds."""
        deadline = clock.monotonic() + timeout
        while not condition() and (left := deadline - clock.monotonic()) > 0:
            self._loop.turn(min(left, 1.0))
            if self._lost is not None:
                raise BrokerUnavailable(
                    f"the connection to {self.url} was lost ({self._lost}); the letters in hand "
                    "are in their queues again, even those dealt with in the last moment"
                )

    def _on_delivery(self, delivery: Delivery) -> None:
        if delivery.queue == self._current:  # not what comes to a place that is done with
            self._in_hand += 1
            self._arrived.append(delivery)

    def _on_lost(self, reason: str) -> None:
        self._lost = reason

    def _ack(self, delivery: Delivery) -> None:
        self._intake.ack(delivery)
        self._in_hand -= delivery.queue == self._current
        self.done += 1

    # -- sending again -----------------------------------------------------------------------

    def _route(self, letter: Letter, to: str | None) -> Route:
        """Where *letter* goes: into one queue, since an exchange might copy it to others, too."""
        router, delivery = self._app.router, letter.delivery
        if to is not None:
            queue = router.queue(to)
            return Route("", queue.name, (queue,))
        if letter.place.work is None and delivery.exchange:
            return Route(delivery.exchange, delivery.routing_key)
        if not letter.queue:
            raise ValueError("nothing tells which queue it came from: say where with --to")
        known = {queue.name: queue for queue in router.queues.values()}
        return Route("", letter.queue, (known.get(letter.queue, Queue(letter.queue)),))

    def _send(self, letter: Letter, message: Message, route: Route) -> None:
        """Send *message*, and wait until few enough are on their way."""
        if self._outlet is None:
            self._outlet = self._app.broker.outlet(self._loop)
            self._ends.callback(self._outlet.close)
        self._sending += 1
        self._outlet.publish(message, route, partial(self._sent, letter))
        self._until(lambda: self._sending < _AT_ONCE)

    def _sent(self, letter: Letter, error: PublishError | None) -> None:
        self._sending -= 1
        if error is None:
            self._ack(letter.delivery)
        else:
            self._refuse(letter, error)

    def _refuse(self, letter: Letter, error: Exception) -> None:
        self.refused.append((letter.summary(), str(error)))


def _places(app: TaskQ, names: Sequence[str]) -> list[Place]:
    nowhere = Place(topology.UNDELIVERABLE, None)
    logical = [name.removesuffix(topology.dead("")) for name in names if name != nowhere.name]
    works = app.router.worker_queues(logical) if logical or not names else []
    places = [Place(topology.dead(queue.name), queue) for queue in works]
    return [*places, nowhere] if not names or nowhere.name in names else places


def _is_id(id: str, given: str) -> bool:
    return id == given or (len(given) >= SHORTEST_ID and id.startswith(given))


def _revived(letter: Letter) -> Message:
    """The message as it was sent first: no death, no retries, no crashes; ValueError if unknown."""
    message = letter.message
    if message.properties.malformed is not None or letter.why.properties is not None:
        raise ValueError(
            "its properties cannot be decoded, so that nobody knows what it was; "
            "`taskq dead export` has its bytes"
        )
    headers = dead.without(message.headers)
    headers.pop("taskq-crashes", None)
    if "retries" in headers:
        headers["retries"] = 0
    return task.resend(message.copy(headers=headers), delivery_mode=2)


def _shown(value: Any, limit: int) -> str:
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = limit
    short.maxdict = short.maxlist = short.maxtuple = short.maxset = 30
    text = short.repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _portable(value: Any) -> Any:
    """*value*, which came out of an AMQP table, for JSON: what that lacks becomes text."""
    if isinstance(value, Mapping):
        return {name: _portable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return value.isoformat()
    is_plain = value is None or isinstance(value, str | int)
    return value if is_plain or (isinstance(value, float) and math.isfinite(value)) else str(value)
