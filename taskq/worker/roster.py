"""The children, what they have in their hands, and who gets the next job.

A child may hold several jobs where all of them are short; the rules for that are here.  Pure: what
is sent to a child, and what becomes of its jobs, is the dispatcher's business.
"""

import math
from collections.abc import Iterable, Iterator

from taskq.worker.ledger import Job
from taskq.worker.window import OVERHEAD

#: A job is put behind others in a child's hands only while all that the child then holds is
#: expected to take less than this (seconds), so that a short task never waits for a long one.
SHORT = 0.005
#: ... and never more jobs than this.
DEPTH = 32
#: A task's expected run time moves by this part of what the last run took more, or less.
_WEIGHT = 1 / 8


class Child:
    """One child's hands; jobs lie in them in the order in which they are run."""

    __slots__ = ("condemned", "in_hand", "jobs", "left", "number", "ready", "turns")

    def __init__(self, number: int, left: float) -> None:
        self.number = number
        self.jobs: dict[int, Job] = {}
        self.ready = False
        #: One of its jobs is the reason why it is being ended.
        self.condemned = False
        #: How many jobs it was sent.
        self.turns = 0
        #: How many more jobs it may be given; with none left and empty hands it retires.
        self.left = left
        #: How long the jobs in its hands are expected to take, in seconds; infinite where it was
        #: found to be at something long.
        self.in_hand = 0.0

    @property
    def is_spent(self) -> bool:
        """Whether it has had its share and its hands are empty."""
        return self.left <= 0 and not self.jobs


class Roster:
    """The children by number; nobody looks through them twice while nothing has changed."""

    def __init__(self, *, depth: int = DEPTH, max_tasks: int | None = None) -> None:
        self._depth = depth
        self._max_tasks = max_tasks or math.inf
        self._children: dict[int, Child] = {}
        #: Children with empty hands, the one that has waited longest first.
        self._idle: dict[int, Child] = {}
        #: Nobody has room for what waits first, until something changes.
        self._saturated = False
        #: Task name -> how long it took lately, in seconds.
        self._runtimes: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._children.values()))

    def add(self, number: int) -> None:
        """A child with this *number* was asked for."""
        self._children[number] = Child(number, self._max_tasks)

    def find(self, number: int) -> Child | None:
        """The child with this *number*, None if it is gone."""
        return self._children.get(number)

    def remove(self, number: int) -> Child | None:
        """The child with this *number* is gone; what it was, or None if that was known."""
        self._idle.pop(number, None)
        self._saturated = False
        return self._children.pop(number, None)

    def retire(self, child: Child) -> None:
        """*child* is to get nothing more."""
        child.left = 0
        self._idle.pop(child.number, None)

    # -- who gets a job ----------------------------------------------------------------------

    def choose(self, job: Job, first: Child | None) -> Child | None:
        """Who gets *job*: a child with empty hands, or one that it will not have to wait for long.

        *first* is asked before the others.  A job that is acked early never waits behind another.
        """
        if self._saturated:
            return None
        for child in self._idle.values():
            return child
        chosen = self._least_busy(self.expected(job.name), first) if job.policy.acks_late else None
        self._saturated = chosen is None
        return chosen

    def _least_busy(self, expected: float, first: Child | None) -> Child | None:
        if expected >= SHORT:
            return None
        if first is not None and self._has_room(first, expected):
            return first
        best, fewest = None, self._depth
        for child in self._children.values():
            if len(child.jobs) < fewest and self._has_room(child, expected):
                best, fewest = child, len(child.jobs)
        return best

    def _has_room(self, child: Child, expected: float) -> bool:
        short = child.in_hand + expected < SHORT
        return short and child.ready and child.left > 0 and len(child.jobs) < self._depth

    def give(self, child: Child, job: Job) -> bool:
        """Put *job* into the hands of *child*; whether there is another before it."""
        self._idle.pop(child.number, None)
        job.expected = self.expected(job.name)
        child.jobs[job.number] = job
        child.in_hand += job.expected
        child.left -= 1
        child.turns += 1
        job.child = child.number
        job.turn = child.turns
        return len(child.jobs) > 1

    def take(self, child: Child, jobs: Iterable[Job]) -> None:
        """*jobs* were finished, and are in the hands of *child* no more."""
        for job in jobs:
            del child.jobs[job.number]
            child.in_hand -= job.expected
            job.child = None

    def take_back(self, child: Child, jobs: Iterable[Job]) -> None:
        """As `take`, for jobs that *child* has not begun."""
        for job in jobs:
            self.take(child, (job,))
            child.left += 1

    def freed(self, child: Child) -> None:
        """*child* may have room now."""
        self._saturated = False
        if not child.jobs:
            child.in_hand = 0.0
            if child.ready and child.left > 0:
                self._idle[child.number] = child

    def changed(self) -> None:
        """Another job waits first now, for which there may be room."""
        self._saturated = False

    # -- how long tasks take -----------------------------------------------------------------

    def expected(self, name: str) -> float:
        """How many seconds a task of that *name* is likely to take; a long time if unknown."""
        return self._runtimes.get(name, SHORT)

    def learn(self, name: str, runtime: float) -> None:
        """A task of that *name* took *runtime* seconds in its function."""
        runtime += OVERHEAD
        known = self._runtimes.get(name, runtime)
        self._runtimes[name] = known + (runtime - known) * _WEIGHT

    def found_long(self, child: Child, job: Job | None, elapsed: float) -> None:
        """*child* is at *job* for *elapsed* seconds already: nothing goes behind it."""
        child.in_hand = math.inf
        if job is not None:
            self._runtimes[job.name] = max(elapsed, self.expected(job.name))
