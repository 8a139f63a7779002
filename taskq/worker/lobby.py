"""The jobs that wait in this worker: for a child, in the order in which they came, or for a moment.

It keeps them and lets them out; who goes where is the dispatcher's decision.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator

from taskq.worker.ledger import Job

#: A broker gives up on what is given back too often; so it is not, beyond this.
_RETURNS = 10


class Lobby:
    """Where jobs wait that no child has; all moments are seconds since the epoch."""

    def __init__(self) -> None:
        #: Those that could run now, the next one first; always the same object.
        self.waiting: deque[Job] = deque()
        #: Those whose time has not come, and when it does.
        self.held: list[tuple[float, Job]] = []

    def let_in(self, now: float) -> bool:
        """Have those wait for a child whose time has come; whether there were any."""
        due = [job for at, job in self.held if at <= now]
        if due:
            self.held = [(at, job) for at, job in self.held if at > now]
            self.waiting.extend(due)
        return bool(due)

    @property
    def next_moment(self) -> float | None:
        """When the time of another comes; None if none is held."""
        return min((at for at, _ in self.held), default=None)

    def take_out(self, leaves: Callable[[Job], object]) -> list[Job]:
        """Have all go of which *leaves* says so; they, in their order."""
        gone = [job for job in self if leaves(job)]
        if gone:
            left = set(gone)
            kept = [job for job in self.waiting if job not in left]
            self.waiting.clear()
            self.waiting.extend(kept)
            self.held = [(at, job) for at, job in self.held if job not in left]
        return gone

    def shrink(self, held: Counter[str], width: int) -> list[Job]:
        """Have the last of those go that wait for a child, until *width* of each queue are held.

        *held* says how many are, here and in children's hands; it is used up.
        """
        gone = set[Job]()
        for job in reversed(self.waiting):
            queue = job.delivery.queue
            if held[queue] > width and not job.settled and job.delivery.count < _RETURNS:
                held[queue] -= 1
                gone.add(job)
        return self.take_out(gone.__contains__)

    def __iter__(self) -> Iterator[Job]:
        return iter([*self.waiting, *(job for _, job in self.held)])
