"""What children say, passed on to whom it concerns: dispatcher, outlet, herald, crew.

It decides nothing, but for two things: what tasks send goes to the broker together, a moment later,
and a child that sends faster than the broker confirms is not listened to for a while.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

from taskq import log
from taskq.broker.base import Route
from taskq.errors import PublishError
from taskq.loop import Loop
from taskq.wire.message import Message
from taskq.worker import frames
from taskq.worker.crew import Crew
from taskq.worker.frames import Frame
from taskq.worker.outcome import Outcome
from taskq.worker.parts import Parts
from taskq.worker.pool import Death, Pool
from taskq.worker.relay import pack_error, unpack_route

#: A child with more messages unconfirmed than this is not listened to until half are confirmed.
_TALKATIVE = 2000
#: Seconds that a message of a task may wait for others, unless a child says something else first.
_GATHER = 0.001
#: Unpacked routes kept; more than this many different ones are unpacked again.
_ROUTES = 10_000


class Switchboard:
    """Hears the children of *pool*; *on_ready* is told that one waits for work."""

    def __init__(
        self,
        loop: Loop,
        pool: Pool,
        parts: Parts,
        crew: Crew,
        *,
        on_ready: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._crew = crew
        self._hands = parts.hands
        self._outlet = parts.outlet
        self._dispatcher = parts.dispatcher
        self._on_ready = on_ready
        self._routes: dict[bytes, Route] = {}
        #: Messages of each child that are not confirmed yet.
        self._unconfirmed: dict[int, int] = {}
        self._paused: set[int] = set()
        #: What children have sent and the outlet has not heard of, in its order.
        self._gathered: list[Callable[[], None]] = []

    def on_frame(self, child: int, frame: Frame) -> None:
        """*child* says *frame*."""
        if self._gathered and frame[0] != frames.PUBLISH:
            self._release()
        match frame[0]:
            case frames.DONE:
                if self._hands.herald is not None:
                    self._tell_done(frame[1], frame[2])
                self._dispatcher.succeeded(child, frame[1])
                self._crew.weigh(child)
            case frames.PUBLISH:
                self._on_publish(child, *frame[1:])
            case frames.ENDED:
                self._on_ended(child, *frame[1:])
            case frames.BACK:
                self._dispatcher.came_back(child, frame[1])
            case frames.FLUSH:
                self._dispatcher.clearing.asked(child, frame[1], frame[2])
            case frames.CAST:
                self._outlet.broadcast(Message(frame[1], frame[2]), frame[3], frame[4])
            case frames.STORED:
                self._hands.on_stored(frame[1], frame[2])
            case frames.READY:
                log.event("child-ready", pid=frame[1])
                self._crew.ready()
                if not self._hands.is_clerk(child):
                    if self._hands.herald is not None:
                        self._pool.send(child, [frames.EVENTS, True])
                    self._dispatcher.child_ready(child)
                    self._on_ready()

    def on_death(self, child: int, death: Death) -> None:
        """*child* is gone."""
        self._release()
        self._unconfirmed.pop(child, None)
        self._paused.discard(child)
        if self._hands.is_clerk(child):
            self._hands.on_clerk_death()
            return
        self._dispatcher.finished(child, death.finished)
        if self._hands.herald is not None:
            self._hands.herald.child_died(child)
        self._crew.lost(child, death)

    # -- jobs --------------------------------------------------------------------------------

    def _on_ended(
        self,
        child: int,
        number: int,
        outcome: str,
        runtime: float,
        reason: str,
        evidence: Sequence[str] | None,
        shown: str | None,
    ) -> None:
        job = self._dispatcher.ledger.get(number)
        if self._hands.herald is not None and job is not None:
            self._hands.herald.heard(job, Outcome(outcome), runtime, evidence, shown)
        told = (evidence[0], evidence[1], evidence[2]) if evidence else None
        self._dispatcher.done(child, number, Outcome(outcome), runtime, reason, told)
        self._crew.weigh(child)

    def _tell_done(self, told: Sequence[float], shown: Sequence[str]) -> None:
        """Tell monitors of jobs that succeeded; *told* and *shown* are those of a DONE."""
        assert self._hands.herald is not None
        texts = shown if 2 * len(shown) == len(told) else itertools.repeat(None)
        for number, runtime, text in zip(told[::2], told[1::2], texts, strict=False):
            job = self._dispatcher.ledger.get(int(number))
            self._hands.herald.done(int(number), job, text, runtime)

    # -- messages ----------------------------------------------------------------------------

    def _on_publish(
        self,
        child: int,
        number: int,
        packed: bytes,
        raw: bytes,
        body: bytes,
        due: float | None,
        mandatory: bool,
        ticket: int | None,
    ) -> None:
        route = self._routes.get(packed)
        if route is None:
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            route = self._routes[packed] = unpack_route(packed)
        known = self._dispatcher.clearing.publishing(number)
        waiting = self._unconfirmed[child] = self._unconfirmed.get(child, 0) + 1
        if waiting == _TALKATIVE:
            self._paused.add(child)
            self._pool.pause(child, True)
        done = partial(self._on_published, child, number if known else None, ticket)
        publish = partial(
            self._outlet.publish, Message(raw, body), route, done, due=due, mandatory=mandatory
        )
        if not self._gathered:
            self._loop.at_turn_end(self._release_later)
        self._gathered.append(publish)
        if ticket is not None:
            self._release()

    def _release_later(self) -> None:
        if self._gathered:  # the child has said nothing else in this turn
            self._loop.call_later(_GATHER, self._release)

    def _release(self) -> None:
        """Give the outlet what was gathered."""
        gathered, self._gathered = self._gathered, []
        for publish in gathered:
            publish()

    def _on_published(
        self, child: int, number: int | None, ticket: int | None, error: PublishError | None
    ) -> None:
        refusal = None if error is None else str(error)
        if child in self._unconfirmed:
            waiting = self._unconfirmed[child] = self._unconfirmed[child] - 1
            if child in self._paused and waiting <= _TALKATIVE // 2:
                self._paused.discard(child)
                self._pool.pause(child, False)
        if ticket is not None:  # the child waits for this very message: it hears, and decides
            told = None if error is None else pack_error(error)
            self._hands.answer(child, ticket, told)
            refusal = None
        if number is not None:
            self._dispatcher.clearing.published(number, refusal)
