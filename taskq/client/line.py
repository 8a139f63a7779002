"""One loop and one connection for all threads of a process: who waits for an answer turns the loop.

A message that went to another thread and back would wait for two more wake-ups, which is a fifth of
the time that RabbitMQ takes to confirm it.  So a caller turns the loop itself while it waits, if
nobody does.  A thread, the keeper, turns it for everybody else: while nobody calls, so that the
connection keeps its heartbeats; while several threads call at once; and for those who do not wait.
When to try again, and what becomes of a fork, is `producer`'s business.

::

    keeper:  turns the loop ──somebody waited, and nobody does any more──▶ steps aside
                  ▲                                                            │
                  └──called back, or nobody has turned the loop for a moment───┘
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from taskq import clock
from taskq.broker.base import Broker, Done, Outlet, Route
from taskq.errors import PublishError, PublishUnconfirmed
from taskq.loop import Loop
from taskq.wire.message import Message

#: An outlet answers within the timeout it is given; only a loop that hangs needs this much more.
GRACE = 2.0
#: A call has about this many messages on their way at most: each has all of its time, and a broker
#: that takes them slowly is not flooded.
_AT_ONCE = 1000
#: It looks after so many of them whether that is so.
_STEP = 250
#: What is broadcast is dropped while so much waits for the loop.
_FULL = 10_000
#: The keeper looks so many seconds after it stepped aside whether callers still turn the loop.
_ASIDE = 0.02

#: The answer to a message as long as there is none.
SILENCE = PublishUnconfirmed("the publishing thread gave no answer")


class Parcel(NamedTuple):
    """A message with its destination; with *due* (seconds since the epoch) it is delayed."""

    message: Message
    route: Route
    due: float | None = None
    #: False where the outlet may say that it has the message before the broker has it.
    confirm: bool = True

    def send(self, outlet: Outlet, done: Done, timeout: float) -> None:
        """Give this parcel to *outlet*."""
        outlet.publish(
            self.message,
            self.route,
            done,
            due=self.due,
            timeout=timeout,
            confirm=self.confirm,
        )


class Answers:
    """What became of some messages that were sent together; put in by one thread at a time."""

    def __init__(self, count: int) -> None:
        self.all: list[PublishError | None] = [SILENCE] * count
        self.given = 0
        self._awaited = 0
        #: Made by who waits for another thread: most do not.
        self._there: threading.Event | None = None
        self._waiting: set[Answers] = set()
        self._is_over = False

    def put(self, at: int, answer: PublishError | None) -> None:
        """Message *at* is confirmed, or why it is not."""
        self.all[at] = answer
        self.given += 1
        if self.given == self._awaited:
            self.wake()

    def wake(self) -> None:
        """Let whoever waits go on."""
        self._waiting.discard(self)
        if self._there is not None:
            self._there.set()

    def wait(self, count: int, timeout: float, waiting: "set[Answers] | None" = None) -> None:
        """Wait *timeout* seconds until *count* answers were put; meanwhile this is in *waiting*."""
        deadline = clock.monotonic() + timeout
        if waiting is not None:
            self._waiting = waiting
        if self.given >= count:
            return
        there = self._there = self._there or threading.Event()
        self._awaited = count
        while self.given < count and not self._is_over:
            self._waiting.add(self)
            there.clear()  # what is put from now on is seen, either here or by the event
            if self.given < count and not there.wait(deadline - clock.monotonic()):
                break
        self._waiting.discard(self)

    def end(self) -> None:
        """Nothing more is put."""
        self._is_over = True
        self.wake()


def exchange(outlet: Outlet, parcels: Sequence[Parcel], timeout: float) -> Answers:
    """Send *parcels* through *outlet*, which others turn; the answers after *timeout* at most."""
    answers = Answers(len(parcels))
    for at, parcel in enumerate(parcels, 1):
        parcel.send(outlet, partial(answers.put, at - 1), timeout)
        if at % _STEP == 0:
            answers.wait(at - _AT_ONCE, timeout + GRACE)
    answers.wait(len(parcels), timeout + GRACE)
    return answers


class Line:
    """A loop with an outlet; an `Outlet` itself, which any thread may use."""

    def __init__(self, broker: Broker) -> None:
        self._loop = Loop()
        self._outlet = broker.outlet(self._loop)
        #: Who holds it turns the loop, and is the only one to touch loop and outlet.
        self._turning = threading.Lock()
        self._inbox: deque[Callable[[], object]] = deque()
        #: Whether the loop was asked to empty the inbox and has not begun to.
        self._called = False
        #: Threads that wait for answers without turning the loop.
        self._waiting: set[Answers] = set()
        #: Messages of those who do not wait.
        self._errands: set[object] = set()
        #: How often callers have turned the loop.
        self._turned = 0
        self._recall = threading.Event()
        self._ended = False
        self._broken = False
        self._keeper = threading.Thread(target=self._keep, name="taskq-producer", daemon=True)
        self._keeper.start()

    @property
    def alive(self) -> bool:
        """Whether it still carries messages."""
        return not self._broken and self._keeper.is_alive()

    # -- for those who wait ------------------------------------------------------------------

    def exchange(self, parcels: Sequence[Parcel], timeout: float) -> Answers:
        """Send *parcels*; the answers, as far as they are there after *timeout* seconds each."""
        if self._turning.acquire(blocking=False):
            try:
                return self._exchange_here(parcels, timeout)
            except BaseException:
                # A signal's handler, or a bug, has raised in the middle of something.
                self._broken = True
                raise
            finally:
                self._turning.release()
                if self._waiting or self._inbox or self._errands or self._broken:
                    self._recall.set()
        answers = Answers(len(parcels))
        for at, parcel in enumerate(parcels, 1):
            self._post(partial(parcel.send, self._outlet, partial(answers.put, at - 1), timeout))
            if at % _STEP == 0:
                self._wait(answers, at - _AT_ONCE, timeout)
        self._wait(answers, len(parcels), timeout)
        return answers

    def _exchange_here(self, parcels: Sequence[Parcel], timeout: float) -> Answers:
        self._turned += 1
        self._empty()
        answers = Answers(len(parcels))
        for at, parcel in enumerate(parcels, 1):
            parcel.send(self._outlet, partial(answers.put, at - 1), timeout)
            if at % _STEP == 0:
                self._turn(answers, at - _AT_ONCE, timeout)
        self._turn(answers, len(parcels), timeout)
        return answers

    def _turn(self, answers: Answers, count: int, timeout: float) -> None:
        deadline = clock.monotonic() + timeout + GRACE
        while answers.given < count and not self._ended:
            left = deadline - clock.monotonic()
            if left <= 0:
                return
            self._loop.turn(left)

    def _wait(self, answers: Answers, count: int, timeout: float) -> None:
        """Wait for the thread that turns the loop, or for the keeper if there is none any more."""
        if not self._turning.locked():
            self._recall.set()
        answers.wait(count, timeout + GRACE, self._waiting)

    # -- for those who do not ----------------------------------------------------------------

    def publish(self, message: Message, route: Route, done: Done, **options: Any) -> None:
        errand = object()

        def finished(error: PublishError | None) -> None:
            self._errands.discard(errand)
            done(error)

        self._errands.add(errand)
        self._post(partial(self._outlet.publish, message, route, finished, **options))
        self._recall.set()

    def broadcast(self, message: Message, exchange: str, routing_key: str) -> bool:
        if len(self._inbox) >= _FULL:
            return False
        self._post(partial(self._outlet.broadcast, message, exchange, routing_key))
        self._recall.set()
        return True

    def close(self, timeout: float = 5.0) -> None:
        self._post(partial(self._end, timeout))
        self._recall.set()
        self._keeper.join(timeout + GRACE)

    def _post(self, letter: Callable[[], object]) -> None:
        self._inbox.append(letter)
        if not self._called:
            self._called = True
            self._loop.add_callback(self._empty)

    # -- who holds the lock ------------------------------------------------------------------

    def _empty(self) -> None:
        self._called = False  # before taking: what is added from now on calls again
        while self._inbox:
            self._inbox.popleft()()

    def _end(self, timeout: float) -> None:
        self._outlet.close(timeout)
        self._ended = True

    def _keep(self) -> None:
        try:
            while not self._ended and not self._broken:
                with self._turning:
                    self._turn_for_others()
                self._stay_aside()
        finally:
            self._broken = True
            with self._turning:
                with contextlib.suppress(Exception):  # what was interrupted may be in any state
                    self._outlet.close(0.0)
                self._loop.close()
            for answers in tuple(self._waiting):
                answers.end()

    def _turn_for_others(self) -> None:
        somebody_waited = False
        while not self._ended and not self._broken:
            waits = bool(self._waiting)
            if somebody_waited and not (waits or self._errands or self._inbox):
                return
            somebody_waited = waits
            self._loop.turn()

    def _stay_aside(self) -> None:
        """Return when called back, or when no caller has turned the loop for a moment."""
        turned = -1
        while turned != self._turned and not self._ended:
            turned = self._turned
            if self._recall.wait(_ASIDE):
                self._recall.clear()
                return
