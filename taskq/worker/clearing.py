"""From the outcome of a job to the settlement of its delivery.

A delivery is settled at most once, and only when everything that its job published, and the result
that the parent stored for it, is confirmed; where the settlement needs a copy of the message, when
that is.  Which outcome asks for which settlement is the table in `outcome`.
"""

from taskq.worker.ledger import Doom, Job, Ledger, Phase
from taskq.worker.outcome import Outcome, Settlement, settle
from taskq.worker.verbs import Hands


class Clearing:
    """Brings the jobs of a *ledger* to their ends; one is given up after *max_crashes*."""

    def __init__(self, hands: Hands, ledger: Ledger, *, max_crashes: int) -> None:
        self._hands = hands
        self._ledger = ledger
        self._max_crashes = max_crashes

    # -- how jobs end ------------------------------------------------------------------------

    def succeed(self, job: Job) -> None:
        """*job* has succeeded."""
        job.phase = Phase.ENDING
        job.outcome = Outcome.SUCCESS
        if job.pending or job.refusal is not None or job.settled:
            self._end_if_confirmed(job)
        else:
            job.settled = True
            self._hands.ack(job.delivery)
            self._ledger.close(job)

    def end(
        self, job: Job, outcome: Outcome, reason: str, evidence: tuple[str, str, str] | None
    ) -> None:
        """Its child has told how *job* ended."""
        job.phase = Phase.ENDING
        job.outcome = outcome
        job.reason = reason
        job.evidence = evidence
        self._end_if_confirmed(job)

    def end_here(self, job: Job, outcome: Outcome, reason: str, exception: str) -> None:
        """End a job that no child will end: store why, then settle."""
        job.phase = Phase.ENDING
        job.outcome = outcome
        job.reason = reason
        job.evidence = (exception, reason, "")
        self._hands.ended(job)
        if job.id != "?" and not _silent(job):
            state = "REVOKED" if outcome is Outcome.REVOKED else "FAILURE"
            job.pending += 1
            self._hands.store(job, state, exception, reason)
        self._end_if_confirmed(job)

    def meet(self, job: Job, doom: Doom) -> None:
        """The child of *job* was ended, as it was to be, because of it."""
        if job.stale:
            self._ledger.close(job)
        else:
            self.end_here(job, doom.outcome, doom.reason, doom.exception)

    def lose(self, job: Job, how: str) -> None:
        """The child of *job* died, *how* says of what."""
        verdict = settle(
            Outcome.LOST, job.policy, crashes=job.crashes, max_crashes=self._max_crashes
        )
        if job.stale:
            self._ledger.close(job)
        elif verdict is Settlement.RUN_AGAIN:
            self.end(job, Outcome.LOST, how, None)
        else:
            reason = f"WorkerLost: {how}, crash {job.crashes}"
            self.end_here(job, Outcome.LOST, reason, "WorkerLostError")

    def abandon(self, job: Job, how: str) -> None:
        """Leave a dead letter of *job*, which nobody ends any more and no broker knows of."""
        job.phase = Phase.COPYING
        job.outcome = Outcome.LOST
        job.reason = f"WorkerLost: {how}"
        job.evidence = ("WorkerLostError", job.reason, "")
        self._hands.dead_letter(job)

    def put_back(self, job: Job) -> None:
        """Leave *job*, which was not begun, to the end of its queue."""
        job.phase = Phase.COPYING
        self._hands.put_back(job)

    # -- what it waits for -------------------------------------------------------------------

    def publishing(self, number: int) -> bool:
        """A message of job *number* goes out; False if no such job is known (any more)."""
        job = self._ledger.get(number)
        if job is None:
            return False
        job.pending += 1
        return True

    def published(self, number: int, refusal: str | None) -> None:
        """A message (or stored result) of job *number* is confirmed, or was refused."""
        job = self._ledger.get(number)
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
        job = self._ledger.get(number)
        if job is None:
            self._hands.answer(child, ticket, "the job is not known any more")
        elif job.pending:
            job.questions.append((child, ticket))
        else:
            self._answer(job, child, ticket)

    def copied(self, number: int, error: str | None, *, refused: bool) -> None:
        """The copy of job *number* that `Hands` was asked for is confirmed, or not."""
        job = self._ledger.get(number)
        if job is None or job.phase is not Phase.COPYING:
            return
        if error is None:
            self._settle(job, Settlement.ACK)
        elif refused and job.outcome is not None and job.outcome is not Outcome.LOST:
            # No copy can be made: the broker's own dead-lettering moves the original as it is.
            self.reject(job, requeue=False)
        else:
            self._settle(job, Settlement.REQUEUE)

    def _answer(self, job: Job, child: int, ticket: int) -> None:
        # Once told, the job fails of it by itself; only a later refusal is the parent's to mend.
        refusal, job.refusal = job.refusal, None
        self._hands.answer(child, ticket, refusal)

    # -- settling ----------------------------------------------------------------------------

    def ack(self, job: Job) -> None:
        """Ack its delivery, if that is not settled."""
        if not job.settled:
            job.settled = True
            self._hands.ack(job.delivery, at_once=not job.policy.acks_late)

    def reject(self, job: Job, *, requeue: bool) -> None:
        """Give its delivery back, or leave it to the broker, and forget *job*."""
        if not job.settled:
            job.settled = True
            self._hands.reject(job.delivery, requeue=requeue)
        self._ledger.close(job)

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
            self._ledger.close(job)
            return
        match settlement:
            case Settlement.DEAD_LETTER if not copying:
                job.phase = Phase.COPYING
                self._hands.dead_letter(job)
            case Settlement.RUN_AGAIN if not copying:
                job.phase = Phase.COPYING
                self._hands.run_again(job)
            case Settlement.REQUEUE:
                self.reject(job, requeue=True)
            case _:
                self.ack(job)
                self._ledger.close(job)


def _silent(job: Job) -> bool:
    if job.policy.store_errors_even_if_ignored:
        return False
    chosen = job.headers.ignore_result if job.headers is not None else None
    return job.policy.ignore_result if chosen is None else chosen
