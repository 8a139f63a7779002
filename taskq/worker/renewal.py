"""Jobs that outlast the broker's patience: a fresh delivery takes the place of the old one.

Why that has to be, and how copies that come back are known again, is told in `claims`.
"""

from taskq.broker.base import Delivery
from taskq.worker.clearing import Clearing
from taskq.worker.ledger import Ledger, Phase
from taskq.worker.verbs import Hands


class Renewal:
    """Replaces deliveries of jobs in children's hands; moments are seconds since the epoch."""

    def __init__(self, hands: Hands, ledger: Ledger, clearing: Clearing) -> None:
        self._hands = hands
        self._ledger = ledger
        self._clearing = clearing

    def renew(self, before: float) -> None:
        """Ask for a fresh delivery of every job that runs, and came at or before *before*."""
        for job in self._ledger:
            is_running = job.phase is Phase.SENT and job.since <= before
            if is_running and not job.settled and not job.claiming:
                job.claiming = True
                job.pending += 1  # the job is not settled in the middle of it
                self._hands.claim(job)

    def refused(self, number: int) -> None:
        """The copy for job *number* could not be published: its delivery stays."""
        job = self._ledger.get(number)
        if job is not None and job.claiming:
            job.claiming = False
            self._clearing.published(number, None)

    def adopt(self, number: int, delivery: Delivery, now: float) -> bool:
        """Let *delivery* take the place of job *number*'s own; False if there is no such job.

        Also after a cut: a job that still runs takes its message up again, wherever it lay.
        """
        job = self._ledger.get(number)
        if job is None or not (job.claiming or job.stale):
            return False
        self._clearing.ack(job)
        was_claiming, job.claiming = job.claiming, False
        job.delivery, job.since, job.settled = delivery, now, False
        if was_claiming:
            self._clearing.published(number, None)
        return True
