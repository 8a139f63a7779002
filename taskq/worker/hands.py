"""What the dispatcher decided, done: frames to children, settlements, copies, the clerk's orders.

One part of the parent; the supervisor makes it once broker and pool are there.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from taskq import clock, log
from taskq.broker import topology
from taskq.broker.base import Delivery, Intake, Outlet, Queue, Route
from taskq.errors import PublishError, PublishRefused
from taskq.loop import Loop
from taskq.wire import dead, task
from taskq.wire.message import Message, Properties
from taskq.worker import claims, clerk, frames
from taskq.worker.dispatcher import Dispatcher
from taskq.worker.frames import Frame
from taskq.worker.herald import Herald
from taskq.worker.ledger import Job
from taskq.worker.outcome import Outcome
from taskq.worker.pool import Pool
from taskq.worker.recall import Recall
from taskq.worker.taps import Taps
from taskq.worker.timekeeper import Timekeeper

#: Of properties that cannot be decoded, so much is kept in the dead letter.
_KEPT = 16 * 1024


class WorkerHands:
    """Carries out what a dispatcher asks for; see `verbs.Hands`."""

    # Set by the supervisor right after it made the dispatcher with these hands.
    dispatcher: Dispatcher
    timekeeper: Timekeeper
    recaller: Recall

    def __init__(
        self,
        loop: Loop,
        pool: Pool,
        intake: Intake,
        outlet: Outlet,
        queues: Iterable[Queue],
        *,
        node: str,
        dead_letter_ttl: float,
        child_start_timeout: float,
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._intake = intake
        self._outlet = outlet
        #: What is taken from where.
        self.taps = Taps(intake, queues)
        self._node = node
        self.claims = claims.Claims()
        #: Tells monitors what becomes of tasks; None while that is not wanted.
        self.herald: Herald | None = None
        self._start_timeout = child_start_timeout
        self._lifetime_ms = str(int(dead_letter_ttl * 1000))
        #: The child that stores what the parent decided; None until it is needed.
        self._clerk: int | None = None
        #: Requests that it has not answered, by job.
        self._unstored: dict[int, Frame] = {}

    # -- children and deliveries -------------------------------------------------------------

    def run(self, child: int, job: Job) -> None:
        delivery = job.delivery
        self._pool.send(
            child,
            [
                frames.RUN,
                job.number,
                delivery.queue,
                delivery.exchange,
                delivery.routing_key,
                delivery.redelivered,
                delivery.message.raw,
                delivery.message.body,
            ],
        )
        if job.limited:
            self.timekeeper.watch(child, job)
        if self.herald is not None:
            self.herald.started(job)

    def ended(self, job: Job) -> None:
        if job.outcome is Outcome.REVOKED:
            log.event("task-revoked", name=job.name, id=job.id, reason=job.reason)
        if self.herald is not None:
            self.herald.ended(job)

    def found_done(self, child: int, job: Job) -> None:
        if self.herald is not None:
            self.herald.found_done(child, job)

    def answer(self, child: int, ticket: int, refusal: str | None) -> None:
        self._pool.send(child, [frames.ANSWER, ticket, refusal])

    def retire(self, child: int) -> None:
        self._pool.send(child, [frames.STOP])

    def ack(self, delivery: Delivery, *, at_once: bool = False) -> None:
        self._intake.ack(delivery, at_once=at_once)

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        self._intake.reject(delivery, requeue=requeue)

    def resize(self, window: int) -> None:
        log.event("window-resized", window=window)
        self._intake.resize(window)

    def look(self) -> None:
        self.recaller.look()

    def recall(self, child: int) -> None:
        self.recaller.recall(child)

    def terminate(self, child: int, job: Job, signum: int) -> bool:
        return self.timekeeper.terminate(child, job, signum)

    def take_more(self, more: bool) -> None:
        if more:
            log.event("intake-resumed")
            self.taps.open("full")
        else:
            log.event("intake-paused", held=self.dispatcher.ledger.size)
            self.taps.close("full")

    def pause(self, queue: str, paused: bool) -> None:
        self.taps.pause(queue, paused)

    def wake(self, at: float) -> None:
        self._loop.call_later(
            max(0.0, at - clock.wall()), lambda: self.dispatcher.tick(clock.wall())
        )

    # -- copies of messages ------------------------------------------------------------------

    def dead_letter(self, job: Job) -> None:
        queue = job.delivery.queue
        target = topology.dead(queue)
        exception, text, traceback = job.evidence or ("", job.reason, "")
        headers = dead.dead_headers(
            queue=queue,
            reason=job.reason,
            exception_type=exception,
            exception=text,
            traceback=traceback,
            attempts=job.headers.retries + 1 if job.headers is not None else 0,
            worker=self._node,
            died_at=clock.wall(),
        )
        if job.headers is None:
            log.event("message-malformed", queue=queue, dead=target, reason=job.reason)
        else:
            log.event(
                "task-dead-lettered", name=job.name, id=job.id, queue=target, reason=job.reason
            )
        route = Route("", target, (Queue(target, kind="dead"),))
        self._copy(job, headers, route, expiration=self._lifetime_ms)

    def run_again(self, job: Job) -> None:
        self._copy(job, {"taskq-crashes": job.crashes}, self._home(job))

    def delay(self, job: Job, until: float) -> None:
        self._copy(job, {}, self._home(job), due=until)

    def put_back(self, job: Job) -> None:
        self._copy(job, {}, self._home(job))

    def claim(self, job: Job) -> None:
        work_queue = job.delivery.queue
        queue, is_new = self.claims.queue(work_queue)
        if is_new:
            self._intake.add(queue)
        try:
            message = task.resend(job.delivery.message, {claims.HEADER: self.claims.name(job)})
        except ValueError:  # no room in its headers: the broker will take it back
            self.dispatcher.renewal.refused(job.number)
            return
        log.event("task-claimed", name=job.name, id=job.id)
        self._outlet.publish(
            message, self.claims.route(work_queue), partial(self._on_claimed, job.number)
        )

    def _on_claimed(self, number: int, error: PublishError | None) -> None:
        if error is not None:
            self.dispatcher.renewal.refused(number)

    def _home(self, job: Job) -> Route:
        """Back to the very queue it came from: an exchange might copy it to others, too."""
        return Route("", job.delivery.queue)

    def _copy(
        self,
        job: Job,
        headers: dict[str, Any],
        route: Route,
        *,
        expiration: str | None = None,
        due: float | None = None,
    ) -> None:
        original = job.delivery.message
        try:
            if original.properties.malformed is None:
                message = task.resend(original, headers, expiration=expiration, delivery_mode=2)
            else:
                kept = {**headers, "taskq-dead-properties": original.raw[:_KEPT]}
                message = Message.of(
                    Properties(headers=kept, expiration=expiration, delivery_mode=2), original.body
                )
        except ValueError as error:  # no room in its headers
            self.dispatcher.clearing.copied(job.number, str(error), refused=True)
            return
        self._outlet.publish(message, route, partial(self._on_copied, job.number), due=due)

    def _on_copied(self, number: int, error: PublishError | None) -> None:
        refused = isinstance(error, PublishRefused)
        self.dispatcher.clearing.copied(
            number, None if error is None else str(error), refused=refused
        )

    # -- the clerk ---------------------------------------------------------------------------

    def store(self, job: Job, state: str, exception: str, text: str) -> None:
        properties = job.delivery.message.properties
        request = clerk.request(job.number, job.id, state, exception, text, properties)
        self._unstored[job.number] = request
        if self._clerk is None:
            self._hire()
        else:
            self._pool.send(self._clerk, request)

    def is_clerk(self, child: int) -> bool:
        """Whether *child* is the clerk."""
        return child == self._clerk

    def on_stored(self, number: int, error: str | None) -> None:
        """The clerk has answered a request."""
        self._unstored.pop(number, None)
        job = self.dispatcher.ledger.get(number)
        if error is not None and job is not None:
            log.event("result-lost", name=job.name, id=job.id, reason=error)
        self.dispatcher.clearing.stored(number)

    def dismiss_clerk(self) -> None:
        """Let the clerk go when it has answered; the next request has another one."""
        if self._clerk is not None:
            self._pool.send(self._clerk, [frames.STOP])

    def on_clerk_death(self) -> None:
        """The clerk is gone: another takes its unanswered requests."""
        self._clerk = None
        if self._unstored:
            self._hire()

    def _hire(self) -> None:
        self._clerk = self._pool.spawn(self._start_timeout)
        for request in self._unstored.values():
            self._pool.send(self._clerk, request)
