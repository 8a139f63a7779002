"""Deliveries in, jobs out, settlements back: the worker's decisions, without a socket or a clock.

Whatever happens is told to the dispatcher by a method call that carries the time; whatever should
be done it asks of its `Hands`.  That makes every rule here testable by random histories::

            received ──> WAITING ──handed out──> SENT ──done, lost──> ENDING ──> settled
                            │                      │                     │
                            │ not yet due          │ child died          │ dead letter,
                            └──────> COPYING       └─ not begun: WAITING └─run again─> COPYING

A delivery is settled at most once, and only when everything that its job published, and the result
that the parent stored for it, is confirmed.
"""

import itertools
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from taskq.broker.base import Delivery
from taskq.errors import MessageMalformed
from taskq.wire.headers import read_headers
from taskq.worker import gate
from taskq.worker.ledger import Job, Ledger, Phase
from taskq.worker.outcome import Outcome, Policy, Settlement, settle
from taskq.worker.roster import DEPTH, Child, Roster
from taskq.worker.window import HOLD, Window

#: What still waits after so many seconds, while no child has finished anything, is for others.
PATIENCE = HOLD
#: A broker gives up on what is given back too often; so it is not, beyond this.
_RETURNS = 10

_DEFAULT = Policy()


class Hands(Protocol):
    """What the dispatcher can have done; each call returns at once."""

    def run(self, child: int, job: Job) -> None:
        """Send *job* to *child*."""

    def ack(self, delivery: Delivery) -> None:
        """Ack it."""

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        """Give it back to its queue, or leave it to the broker's own dead-lettering."""

    def dead_letter(self, job: Job) -> None:
        """Publish a copy with the job's reason to its dead-letter queue; then say `copied`."""

    def run_again(self, job: Job) -> None:
        """Publish a copy with the job's crashes to its queue; then say `copied`."""

    def delay(self, job: Job, until: float) -> None:
        """Publish a copy that is due at *until*; then say `copied`."""

    def store(self, job: Job, state: str, exception: str, text: str) -> None:
        """Store how *job* ended as an exception of that class name; then say `stored`."""

    def ended(self, job: Job) -> None:
        """Know that *job* ended, for its `reason`, and no child will say so."""

    def found_done(self, child: int, job: Job) -> None:
        """Know that *job* succeeded, as its child's slate shows before the child says so."""

    def retire(self, child: int) -> None:
        """Let *child* go: its hands are empty, and it gets nothing more."""

    def answer(self, child: int, ticket: int, refusal: str | None) -> None:
        """Tell *child* that its messages are confirmed, or why not."""

    def resize(self, window: int) -> None:
        """Hold at most *window* deliveries of each queue from now on."""

    def look(self) -> None:
        """Look in a moment at what children have begun and finished; see `recall`."""

    def take_more(self, more: bool) -> None:
        """Consume from the queues, or stop it for now; what is on its way may still arrive."""

    def put_back(self, job: Job) -> None:
        """Publish a copy to the end of its queue; then say `copied`."""

    def claim(self, job: Job) -> None:
        """Publish a copy of its message that comes back to this worker; say if it is refused."""

    def wake(self, at: float) -> None:
        """Call `tick` at the moment *at*, seconds since the epoch."""


class Dispatcher:
    """Owns the ledger and knows the children by number; all times are seconds since the epoch."""

    def __init__(
        self,
        hands: Hands,
        policies: Mapping[str, Policy],
        *,
        max_crashes: int = 3,
        max_deliveries: int = 50,
        max_tasks_per_child: int | None = None,
        depth: int = DEPTH,
        window: Window | None = None,
        max_held: float = math.inf,
    ) -> None:
        self.ledger = Ledger()
        #: How many jobs children have finished.
        self.ended = 0
        self.stopping = False
        #: The broker takes no messages: finish what runs, start nothing.
        self.blocked = False
        self._hands = hands
        self._policies = policies
        self._max_crashes = max_crashes
        self._max_deliveries = max_deliveries
        self._window = window or Window(1, 1)
        #: Bytes of bodies above which no more deliveries are wanted, until half of it is gone.
        self._max_held = max_held
        self._full = False
        self._roster = Roster(depth=depth, max_tasks=max_tasks_per_child)
        self._waiting: deque[Job] = deque()
        self._held: list[tuple[float, Job]] = []

    # -- what the broker says ----------------------------------------------------------------

    def receive(self, delivery: Delivery, now: float) -> Job:
        """Take in a delivery; it runs, waits, or goes its other way."""
        try:
            headers = read_headers(delivery.message)
        except MessageMalformed as error:
            job = self.ledger.open(delivery, None, _DEFAULT)
            self._end_here(job, Outcome.MALFORMED, error.reason, "InvalidTaskError")
            self._stop_if_full()
            return job
        job = self.ledger.open(delivery, headers, self._policies.get(headers.task, _DEFAULT))
        job.since = now
        self._admit(job, now)
        self._stop_if_full()
        return job

    def lose_deliveries(self) -> None:
        """The channel is gone: forget what waits, and let what runs end unsettled."""
        for job in self.ledger:
            if job.phase is Phase.WAITING and not job.settled:
                self._close(job)
            job.settled = True
            self.claim_refused(job.number)  # its copy went the same way
        # What was acked early and came back from a dead child exists nowhere else.
        self._waiting = deque(job for job in self._waiting if self.ledger.get(job.number))
        self._held.clear()
        self._roster.changed()

    def renew(self, before: float) -> None:
        """Replace every delivery in a child's hands that came at or before *before* by a fresh one.

        Those that wait for a child for so long go back to the end of their queue, for whoever is
        less busy: claiming them too would gather more and more of them here.
        """
        old = [job for job in self._waiting if job.since <= before and not job.settled]
        if old:
            self._waiting = deque(job for job in self._waiting if job not in old)
            self._roster.changed()
        for job in old:
            job.phase = Phase.COPYING
            self._hands.put_back(job)
        for job in self.ledger:
            is_running = job.phase is Phase.SENT and job.since <= before
            if is_running and not job.settled and not job.claiming:
                job.claiming = True
                job.pending += 1  # the job is not settled in the middle of it
                self._hands.claim(job)

    def claim_refused(self, number: int) -> None:
        """The copy for job *number* could not be published: its delivery stays."""
        job = self.ledger.get(number)
        if job is not None and job.claiming:
            job.claiming = False
            self.published(number, None)

    def adopt(self, number: int, delivery: Delivery, now: float) -> bool:
        """Let *delivery* take the place of job *number*'s own; False if there is no such job.

        Also after a cut: a job that still runs takes its message up again, wherever it lay.
        """
        job = self.ledger.get(number)
        if job is None or not (job.claiming or job.stale):
            return False
        self._ack(job)
        was_claiming, job.claiming = job.claiming, False
        job.delivery, job.since, job.settled = delivery, now, False
        if was_claiming:
            self.published(number, None)
        return True

    # -- what children say -------------------------------------------------------------------

    def child_started(self, child: int) -> None:
        """A child was asked for; it gets work once it is ready."""
        self._roster.add(child)

    def child_ready(self, child: int) -> None:
        """*child* waits for work."""
        known = self._roster.find(child)
        if known is not None:
            known.ready = True
            self._freed(known)

    def retire(self, child: int) -> None:
        """*child* is to get no more jobs, and goes when its hands are empty."""
        known = self._roster.find(child)
        if known is not None:
            self._roster.retire(known)
            self._freed(known)

    def learn(self, policies: Mapping[str, Policy]) -> None:
        """From now on these are the tasks and their policies."""
        self._policies = policies

    def child_died(self, child: int, begun: int, how: str) -> list[Job]:
        """*child* is gone, its slate says it had begun job *begun*; returns the jobs lost with it.

        Jobs that it had not begun go to other children, uncounted.
        """
        dead = self._roster.remove(child)
        if dead is None:
            return []
        jobs = list(dead.jobs.values())
        at = next((place for place, job in enumerate(jobs, 1) if job.number == begun), 0)
        lost = jobs[:at]
        for job in jobs:
            job.questions.clear()
            job.child = None
        self._wait_again(jobs[at:])
        for job in lost:
            if job.doom is not None:
                self._time_out(job)
            else:
                job.crashes += 1
                self._lose(job, how)
        self._hand_out()
        return [job for job in lost if job.doom is None]

    def doom(self, number: int, reason: str) -> None:
        """The child of job *number* is about to be ended because the job took too long."""
        job = self.ledger.get(number)
        if job is not None:
            job.doom = reason

    def done(
        self,
        child: int,
        number: int,
        outcome: Outcome,
        runtime: float,
        reason: str = "",
        evidence: tuple[str, str, str] | None = None,
    ) -> None:
        """*child* has finished job *number*, after *runtime* seconds in the task's function."""
        known = self._roster.find(child)
        job = known.jobs.get(number) if known is not None else None
        if known is None or job is None:
            return
        self._roster.take(known, (job,))
        self._learn(job, runtime)
        self.ended += 1
        job.phase = Phase.ENDING
        job.outcome = outcome
        job.reason = reason
        job.evidence = evidence
        self._end_if_confirmed(job)
        self._freed(known)

    def succeeded(self, child: int, told: Sequence[float]) -> None:
        """*child* has finished jobs with success; *told* are number, runtime, number, runtime..."""
        known = self._roster.find(child)
        if known is None:
            return
        for number, runtime in zip(told[::2], told[1::2], strict=True):
            job = known.jobs.get(int(number))
            if job is not None:
                self._roster.take(known, (job,))
                self._learn(job, runtime)
                self._succeed(job)
        self._freed(known)

    def finished(self, child: int, turn: int) -> None:
        """*child*'s slate says that it has finished all up to *turn*; those in hand succeeded."""
        known = self._roster.find(child)
        if known is None:
            return
        jobs = list(itertools.takewhile(lambda job: job.turn <= turn, known.jobs.values()))
        self._roster.take(known, jobs)
        for job in jobs:
            self._hands.found_done(child, job)
            self._succeed(job)
        if jobs:
            self._freed(known)

    # -- taking back -------------------------------------------------------------------------

    def crowded(self) -> list[int]:
        """The children that have a job behind another in their hands."""
        return [child.number for child in self._roster if len(child.jobs) > 1]

    def turns(self, child: int) -> int:
        """How many jobs *child* was sent."""
        known = self._roster.find(child)
        return known.turns if known is not None else 0

    def take_back(self, child: int, begun: int, before: int, elapsed: float) -> None:
        """Take back the jobs of turns before *before* that *child* has not begun.

        It cannot begin them any more.  Job *begun* is what it is at, for *elapsed* seconds.
        """
        known = self._roster.find(child)
        if known is None:
            return
        jobs = [job for job in known.jobs.values() if job.turn < before and job.number != begun]
        self._roster.take_back(known, jobs)
        self._roster.found_long(known, known.jobs.get(begun), elapsed)
        self._wait_again(jobs)
        self._freed(known)

    def give_back(self, now: float) -> None:
        """Close the window, and leave to other workers what waits beyond it.

        Called while no child has finished anything for `PATIENCE`, and again as long as that is so:
        what was on its way still comes.
        """
        if not self._waiting or self._waiting[0].since > now - PATIENCE or self.blocked:
            return
        if self._window.close(PATIENCE):
            self._hands.resize(self._window.width)
        held = Counter(job.delivery.queue for job in self.ledger if not job.settled)
        kept, given = deque[Job](), deque[Job]()
        for job in reversed(self._waiting):
            queue = job.delivery.queue
            if held[queue] <= self._window.width or job.settled or job.delivery.count >= _RETURNS:
                kept.appendleft(job)
            else:
                held[queue] -= 1
                given.appendleft(job)
        for job in given:  # in their order, in which a quorum queue delivers them again
            self._reject(job, requeue=True)
        self._waiting = kept
        self._roster.changed()

    def came_back(self, child: int, turn: int) -> None:
        """*child* did not begin the job of that *turn*, because it was barred."""
        known = self._roster.find(child)
        if known is None:
            return
        jobs = [job for job in known.jobs.values() if job.turn == turn]
        self._roster.take_back(known, jobs)  # nothing, if it was taken back already
        self._wait_again(jobs)
        self._freed(known)

    @property
    def is_watched(self) -> bool:
        """Whether something may have to be taken or given back soon."""
        return bool(self._waiting) or bool(self.crowded())

    def publishing(self, number: int) -> bool:
        """A message of job *number* goes out; False if no such job is known (any more)."""
        job = self.ledger.get(number)
        if job is None:
            return False
        job.pending += 1
        return True

    def published(self, number: int, refusal: str | None) -> None:
        """A message (or stored result) of job *number* is confirmed, or was refused."""
        job = self.ledger.get(number)
        if job is None:
            return
        job.pending -= 1
        if refusal is not None and job.refusal is None:
            job.refusal = refusal
        if job.pending == 0:
            questions, job.questions = job.questions, []
            for child, ticket in questions:
                self._answer(job, child, ticket)
            self._end_if_confirmed(job)

    def stored(self, number: int) -> None:
        """The clerk is through with the result of job *number*."""
        self.published(number, None)

    def asked(self, child: int, number: int, ticket: int) -> None:
        """*child* asks to hear when all that job *number* published is confirmed."""
        job = self.ledger.get(number)
        if job is None:
            self._hands.answer(child, ticket, "the job is not known any more")
        elif job.pending:
            job.questions.append((child, ticket))
        else:
            self._answer(job, child, ticket)

    def copied(self, number: int, error: str | None, *, refused: bool) -> None:
        """The copy of job *number* that `Hands` was asked for is confirmed, or not."""
        job = self.ledger.get(number)
        if job is None or job.phase is not Phase.COPYING:
            return
        if error is None:
            self._settle(job, Settlement.ACK)
        elif refused and job.outcome is not None and job.outcome is not Outcome.LOST:
            # No copy can be made: the broker's own dead-lettering moves the original as it is.
            self._reject(job, requeue=False)
        else:
            self._settle(job, Settlement.REQUEUE)

    # -- time, and the end -------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Hand out the deliveries whose time has come."""
        due = [job for at, job in self._held if at <= now]
        if due:
            self._held = [(at, job) for at, job in self._held if at > now]
            self._waiting.extend(due)
            self._hand_out()
        if self._held:
            self._hands.wake(min(at for at, _ in self._held))

    def unblock(self) -> None:
        """The broker takes messages again."""
        self.blocked = False
        self._hand_out()

    def stop(self) -> None:
        """Hand out nothing more; what waits is given back when the intake closes."""
        self.stopping = True

    def abandon(self, how: str) -> None:
        """The children are gone for good, and the intake gives back what is not settled.

        What was acked early exists nowhere but here: if it was not begun it goes back as a copy,
        else it is dead-lettered as lost.
        """
        for job in self.ledger:
            if not job.settled or job.stale:
                continue
            if job.phase is Phase.WAITING:
                job.phase = Phase.COPYING
                self._hands.put_back(job)
            elif job.phase is Phase.SENT and job.policy.dead_letter:
                job.phase = Phase.COPYING
                job.outcome = Outcome.LOST
                job.reason = f"WorkerLost: {how}"
                job.evidence = ("WorkerLostError", job.reason, "")
                self._hands.dead_letter(job)

    @property
    def idle(self) -> bool:
        """Whether no child holds a job and nothing is unconfirmed."""
        return all(job.phase is Phase.WAITING for job in self.ledger)

    @property
    def waiting(self) -> list[Job]:
        """The jobs that could run now, in their order."""
        return list(self._waiting)

    @property
    def any_ready(self) -> bool:
        """Whether some child has waited for work."""
        return any(child.ready for child in self._roster)

    @property
    def children(self) -> int:
        """How many children are known."""
        return len(self._roster)

    def numbers(self) -> list[int]:
        """The children that are known."""
        return [child.number for child in self._roster]

    def was_ready(self, child: int) -> bool | None:
        """Whether *child* has waited for work; None if it was let go."""
        known = self._roster.find(child)
        return None if known is None or known.is_spent else known.ready

    def in_hands(self, child: int) -> list[Job]:
        """The jobs in *child*'s hands, in its order."""
        known = self._roster.find(child)
        return list(known.jobs.values()) if known else []

    # -- deciding ----------------------------------------------------------------------------

    def _admit(self, job: Job, now: float) -> None:
        assert job.headers is not None
        verdict = gate.judge(
            job.headers,
            known=self._policies,
            deliveries=job.delivery.count,
            max_deliveries=self._max_deliveries,
            now=now,
        )
        match verdict:
            case gate.Run():
                self._waiting.append(job)
                self._hand_out()
            case gate.Hold(until):
                self._held.append((until, job))
                self._hands.wake(until)
            case gate.Delay(until):
                job.phase = Phase.COPYING
                self._hands.delay(job, until)
            case gate.Expired():
                self._end_here(job, Outcome.REVOKED, "expired", "TaskRevokedError")
            case gate.Unregistered():
                reason = f"task {job.name!r} is not registered in this worker"
                self._end_here(job, Outcome.MALFORMED, reason, "NotRegistered")
            case gate.Exhausted():
                reason = f"DeliveryLimit: delivered {job.delivery.count + 1} times"
                self._end_here(job, Outcome.MALFORMED, reason, "WorkerLostError")

    def _hand_out(self, first: Child | None = None) -> None:
        """Give what waits to children that have room, *first* before others."""
        waiting, crowded = self._waiting, False
        while waiting and not self.stopping and not self.blocked:
            child = self._roster.choose(waiting[0], first)
            if child is None:
                break
            job = waiting.popleft()
            crowded = self._roster.give(child, job) or crowded
            job.phase = Phase.SENT
            self._hands.run(child.number, job)
            if not job.policy.acks_late:
                self._ack(job)
        if waiting or crowded:
            self._hands.look()

    def _freed(self, child: Child) -> None:
        """*child* has fewer jobs in its hands than before: let it go, or give it others."""
        if child.is_spent and child.ready:
            child.ready = False
            self._hands.retire(child.number)
        self._roster.freed(child)
        self._hand_out(child)

    def _wait_again(self, jobs: Sequence[Job]) -> None:
        """*jobs*, in their order, have no child any more and were not begun."""
        for job in reversed(jobs):
            if job.stale:
                self._close(job)
            else:
                job.phase = Phase.WAITING
                self._waiting.appendleft(job)

    def _learn(self, job: Job, runtime: float) -> None:
        self._roster.learn(job.name, runtime)
        if self._window.ran(runtime):
            self._hands.resize(self._window.width)

    def _lose(self, job: Job, how: str) -> None:
        verdict = settle(
            Outcome.LOST, job.policy, crashes=job.crashes, max_crashes=self._max_crashes
        )
        if job.stale:
            self._close(job)
        elif verdict is Settlement.RUN_AGAIN:
            job.outcome = Outcome.LOST
            job.phase = Phase.ENDING
            job.reason = how
            self._end_if_confirmed(job)
        else:
            reason = f"WorkerLost: {how}, crash {job.crashes}"
            self._end_here(job, Outcome.LOST, reason, "WorkerLostError")

    def _time_out(self, job: Job) -> None:
        assert job.doom is not None
        if job.stale:
            self._close(job)
        else:
            self._end_here(job, Outcome.TIMEOUT, job.doom, "TimeLimitExceeded")

    def _end_here(self, job: Job, outcome: Outcome, reason: str, exception: str) -> None:
        """End a job that no child will end: store why, then settle."""
        job.phase = Phase.ENDING
        job.outcome = outcome
        job.reason = reason
        job.evidence = (exception, reason, "")
        self._hands.ended(job)
        if job.id != "?" and not self._silent(job):
            state = "REVOKED" if outcome is Outcome.REVOKED else "FAILURE"
            job.pending += 1
            self._hands.store(job, state, exception, reason)
        self._end_if_confirmed(job)

    def _silent(self, job: Job) -> bool:
        if job.policy.store_errors_even_if_ignored:
            return False
        chosen = job.headers.ignore_result if job.headers is not None else None
        return job.policy.ignore_result if chosen is None else chosen

    def _succeed(self, job: Job) -> None:
        self.ended += 1
        job.phase = Phase.ENDING
        job.outcome = Outcome.SUCCESS
        if job.pending or job.refusal is not None or job.settled:
            self._end_if_confirmed(job)
        else:
            job.settled = True
            self._hands.ack(job.delivery)
            self._close(job)

    def _end_if_confirmed(self, job: Job) -> None:
        if job.phase is not Phase.ENDING or job.pending or job.outcome is None:
            return
        outcome = job.outcome
        if job.refusal is not None and outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.RETRY):
            outcome = Outcome.UNSTORED
        self._settle(
            job,
            settle(outcome, job.policy, crashes=job.crashes, max_crashes=self._max_crashes),
        )

    def _settle(self, job: Job, settlement: Settlement) -> None:
        copying = job.phase is Phase.COPYING
        if job.stale:
            self._close(job)
            return
        match settlement:
            case Settlement.DEAD_LETTER if not copying:
                job.phase = Phase.COPYING
                self._hands.dead_letter(job)
            case Settlement.RUN_AGAIN if not copying:
                job.phase = Phase.COPYING
                self._hands.run_again(job)
            case Settlement.REQUEUE:
                self._reject(job, requeue=True)
            case _:
                self._ack(job)
                self._close(job)

    def _stop_if_full(self) -> None:
        if not self._full and self.ledger.size > self._max_held:
            self._full = True
            self._hands.take_more(False)

    def _close(self, job: Job) -> None:
        self.ledger.close(job)
        if self._full and not self.stopping and self.ledger.size <= self._max_held / 2:
            self._full = False
            self._hands.take_more(True)

    def _ack(self, job: Job) -> None:
        if not job.settled:
            job.settled = True
            self._hands.ack(job.delivery)

    def _reject(self, job: Job, *, requeue: bool) -> None:
        if not job.settled:
            job.settled = True
            self._hands.reject(job.delivery, requeue=requeue)
        self._close(job)

    def _answer(self, job: Job, child: int, ticket: int) -> None:
        # Once told, the job fails of it by itself; only a later refusal is the parent's to mend.
        refusal, job.refusal = job.refusal, None
        self._hands.answer(child, ticket, refusal)
