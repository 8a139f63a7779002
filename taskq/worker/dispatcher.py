"""Deliveries in, jobs out, settlements back: the worker's decisions, without a socket or a clock.

Whatever happens is told to the dispatcher by a method call that carries the time; whatever should
be done it asks of its `Hands`.  That makes every rule here testable by random histories::

            received ──> WAITING ──handed out──> SENT ──done, lost──> ENDING ──> settled
                            │                      │                     │
                            │ not yet due, paused  │ child died          │ dead letter,
                            └──────> COPYING       └─ not begun: WAITING └─run again─> COPYING

Whether a delivery may run is asked of the `Gate`, which child it gets, of the `Roster`; what is
left to do for a job that has ended, is done in the `Clearing`.
"""

import itertools
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence

from taskq.broker.base import Delivery
from taskq.control.memory import Change, LimitTime, Pause, Remembered, Resume
from taskq.errors import MessageMalformed
from taskq.wire.headers import read_headers
from taskq.worker import gate
from taskq.worker.clearing import Clearing
from taskq.worker.gate import Gate
from taskq.worker.ledger import Doom, Job, Ledger, Phase
from taskq.worker.lobby import Lobby
from taskq.worker.outcome import Outcome, Policy
from taskq.worker.renewal import Renewal
from taskq.worker.roster import DEPTH, Child, Roster
from taskq.worker.verbs import Hands
from taskq.worker.window import HOLD, Window

#: What still waits after so many seconds, while no child has finished anything, is for others.
PATIENCE = HOLD

_DEFAULT = Policy()


class Dispatcher:
    """Owns the ledger and knows the children by number; all times are seconds since the epoch.

    *remembered* is what operators decided; whoever changes it calls `apply`.
    """

    def __init__(
        self,
        hands: Hands,
        policies: Mapping[str, Policy],
        *,
        remembered: Remembered | None = None,
        limit_rates: bool = True,
        max_crashes: int = 3,
        max_deliveries: int = 50,
        max_tasks_per_child: int | None = None,
        depth: int = DEPTH,
        window: Window | None = None,
        max_held: float = math.inf,
    ) -> None:
        #: Above *max_held* bytes no more deliveries are wanted, until half of it is gone.
        self.ledger = Ledger(max_held, self._on_full)
        self.clearing = Clearing(hands, self.ledger, max_crashes=max_crashes)
        self.renewal = Renewal(hands, self.ledger, self.clearing)
        #: How many jobs children have finished, by task name.
        self.totals = Counter[str]()
        self.stopping = False
        #: The broker takes no messages: finish what runs, start nothing.
        self.blocked = False
        self._hands = hands
        self._gate = Gate(
            policies,
            remembered or Remembered(),
            max_deliveries=max_deliveries,
            limit_rates=limit_rates,
        )
        self._window = window or Window(1, 1)
        self._roster = Roster(depth=depth, max_tasks=max_tasks_per_child)
        self._lobby = Lobby()
        self._waiting: deque[Job] = self._lobby.waiting

    # -- what the broker says ----------------------------------------------------------------

    def receive(self, delivery: Delivery, now: float) -> Job:
        """Take in a delivery; it runs, waits, or goes its other way."""
        try:
            headers = read_headers(delivery.message)
        except MessageMalformed as error:
            job = self.ledger.open(delivery, None, _DEFAULT)
            self.clearing.end_here(job, Outcome.MALFORMED, error.reason, "InvalidTaskError")
            return job
        job = self.ledger.open(delivery, headers, self._gate.policies.get(headers.task, _DEFAULT))
        job.since = now
        self._admit(job, self._gate.judge(headers, delivery, now))
        return job

    def lose_deliveries(self) -> None:
        """The channel is gone: forget what waits, and let what runs end unsettled."""
        for job in self.ledger:
            if job.phase is Phase.WAITING and not job.settled:
                self.ledger.close(job)
            job.settled = True
            self.renewal.refused(job.number)  # its copy went the same way
        # What was acked early and came back from a dead child exists nowhere else.
        self._lobby.take_out(lambda job: self.ledger.get(job.number) is None)
        self._roster.changed()

    def renew(self, before: float) -> None:
        """Replace every delivery in a child's hands that came at or before *before* by a fresh one.

        Those that wait for a child for so long go back to the end of their queue, for whoever is
        less busy: claiming them too would gather more and more of them here.
        """
        for job in self._lobby.take_out(lambda job: job.since <= before and not job.settled):
            self.clearing.put_back(job)
        self._roster.changed()
        self.renewal.renew(before)

    def unblock(self) -> None:
        """The broker takes messages again."""
        self.blocked = False
        self._hand_out()

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

    def child_died(self, child: int, begun: int, how: str, *, inside: bool = False) -> list[Job]:
        """*child* is gone, its slate says it had begun job *begun*; returns the jobs lost with it.

        Jobs that it had not begun go to other children, uncounted.  So does one that it had begun
        while it was being ended because of another, and, if it died *inside* the function of the
        job, those before it, whose results were being stored.
        """
        dead = self._roster.remove(child)
        if dead is None:
            return []
        jobs = list(dead.jobs.values())
        at = next((place for place, job in enumerate(jobs, 1) if job.number == begun), 0)
        first = at - 1 if inside and at else 0
        crashed = []
        for job in jobs:
            job.questions.clear()
            job.child = None
        self._wait_again([*jobs[:first], *jobs[at:]])
        for job in jobs[first:at]:
            if job.doom is not None:
                self.clearing.meet(job, job.doom)
                continue
            if not dead.condemned:
                job.crashes += 1
                crashed.append(job)
            self.clearing.lose(job, how)
        self._hand_out()
        return crashed

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
        self.totals[job.name] += 1
        self.clearing.end(job, outcome, reason, evidence)
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
                self.totals[job.name] += 1
                self.clearing.succeed(job)
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
            self.totals[job.name] += 1
            self.clearing.succeed(job)
        if jobs:
            self._freed(known)

    # -- taking back -------------------------------------------------------------------------

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

    def came_back(self, child: int, turn: int) -> None:
        """*child* did not begin the job of that *turn*, because it was barred."""
        known = self._roster.find(child)
        if known is None:
            return
        jobs = [job for job in known.jobs.values() if job.turn == turn]
        self._roster.take_back(known, jobs)  # nothing, if it was taken back already
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
        # In their order, in which a quorum queue delivers them again.
        for job in self._lobby.shrink(held, self._window.width):
            self.clearing.reject(job, requeue=True)
        self._roster.changed()

    # -- what operators say ------------------------------------------------------------------

    def learn(self, policies: Mapping[str, Policy]) -> None:
        """From now on these are the tasks and their policies."""
        self._gate.learn(policies)

    def apply(self, change: Change) -> None:
        """*change* is remembered from now on: act on what is in hand."""
        self._gate.refresh()
        match change:
            case Pause(queue):
                self._hands.pause(queue, True)
                self._withdraw()
            case Resume(queue):
                self._hands.pause(queue, False)
            case LimitTime():
                for job in self._lobby:
                    job.policy = self._gate.policies.get(job.name, job.policy)
            case _:
                self._withdraw()

    def doom(self, number: int, doom: Doom) -> None:
        """The child of job *number* is about to be ended because of the job."""
        job = self.ledger.get(number)
        known = self._roster.find(job.child) if job is not None and job.child is not None else None
        if job is not None and known is not None:
            job.doom = doom
            known.condemned = True

    def terminate(self, number: int, signum: int) -> bool:
        """End job *number*, which runs, as REVOKED by the signal *signum*; False if it does not."""
        job = self.ledger.get(number)
        if job is None or job.child is None or job.phase is not Phase.SENT:
            return False
        if not self._hands.terminate(job.child, job, signum):
            return False
        self.doom(number, Doom(Outcome.REVOKED, "terminated", "TaskRevokedError", signum))
        return True

    def _withdraw(self) -> None:
        """Let go of what may not run any more, as far as it was not begun."""
        for job in self._lobby.take_out(self._gate.bars):
            self._wait_again([job])
        for child in self._roster:
            if any(self._gate.bars(job) for job in child.jobs.values()):
                self._hands.recall(child.number)
        self._roster.changed()
        self._hand_out()

    # -- time, and the end -------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Hand out the deliveries whose time has come."""
        if self._lobby.let_in(now):
            self._hand_out()
        if self._lobby.next_moment is not None:
            self._hands.wake(self._lobby.next_moment)

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
                self.clearing.put_back(job)
            elif job.phase is Phase.SENT and job.policy.dead_letter:
                self.clearing.abandon(job, how)

    # -- what is in hand ---------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no child holds a job and nothing is unconfirmed."""
        return all(job.phase is Phase.WAITING for job in self.ledger)

    @property
    def ended(self) -> int:
        """How many jobs children have finished."""
        return self.totals.total()

    @property
    def is_watched(self) -> bool:
        """Whether something may have to be taken or given back soon."""
        return bool(self._waiting) or bool(self.crowded())

    @property
    def waiting(self) -> list[Job]:
        """The jobs that could run now, in their order."""
        return list(self._waiting)

    @property
    def held(self) -> list[tuple[float, Job]]:
        """The jobs whose time has not come, and when it does."""
        return list(self._lobby.held)

    @property
    def active(self) -> list[Job]:
        """The jobs in children's hands, begun or not."""
        return [job for child in self._roster for job in child.jobs.values()]

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

    def crowded(self) -> list[int]:
        """The children that have a job behind another in their hands."""
        return [child.number for child in self._roster if len(child.jobs) > 1]

    def turns(self, child: int) -> int:
        """How many jobs *child* was sent."""
        known = self._roster.find(child)
        return known.turns if known is not None else 0

    def was_ready(self, child: int) -> bool | None:
        """Whether *child* has waited for work; None if it was let go."""
        known = self._roster.find(child)
        return None if known is None or known.is_spent else known.ready

    def in_hands(self, child: int) -> list[Job]:
        """The jobs in *child*'s hands, in its order."""
        known = self._roster.find(child)
        return list(known.jobs.values()) if known else []

    # -- deciding ----------------------------------------------------------------------------

    def _admit(self, job: Job, verdict: gate.Verdict) -> None:
        match verdict:
            case gate.Run():
                self._waiting.append(job)
                self._hand_out()
            case gate.Hold(until):
                self._lobby.held.append((until, job))
                self._hands.wake(until)
            case gate.Delay(until):
                job.phase = Phase.COPYING
                self._hands.delay(job, until)
            case gate.Revoked():
                self.clearing.end_here(job, Outcome.REVOKED, "revoked", "TaskRevokedError")
            case gate.Paused():
                self.clearing.put_back(job)
            case gate.Expired():
                self.clearing.end_here(job, Outcome.REVOKED, "expired", "TaskRevokedError")
            case gate.Unregistered():
                reason = f"task {job.name!r} is not registered in this worker"
                self.clearing.end_here(job, Outcome.MALFORMED, reason, "NotRegistered")
            case gate.Exhausted():
                reason = f"DeliveryLimit: delivered {job.delivery.count + 1} times"
                self.clearing.end_here(job, Outcome.MALFORMED, reason, "WorkerLostError")

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
                self.clearing.ack(job)
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
                self.ledger.close(job)
            elif (barred := self._gate.bars(job)) is not None:
                self._admit(job, barred)
            else:
                job.phase = Phase.WAITING
                job.doom = None
                self._waiting.appendleft(job)

    def _learn(self, job: Job, runtime: float) -> None:
        self._roster.learn(job.name, runtime)
        if self._window.ran(runtime):
            self._hands.resize(self._window.width)

    def _on_full(self, is_full: bool) -> None:
        if is_full or not self.stopping:
            self._hands.take_more(not is_full)
