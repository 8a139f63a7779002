"""What this worker holds: one Job for each unsettled delivery, by number.

It only remembers; the dispatcher decides and is the only one that writes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from taskq.broker.base import Delivery
from taskq.wire.headers import TaskHeaders
from taskq.worker.limits import Limits
from taskq.worker.outcome import Outcome, Policy


class Doom(NamedTuple):
    """How a job ends whose child is ended because of it."""

    outcome: Outcome
    reason: str
    #: The class name of the exception that is stored.
    exception: str
    #: The signal by which an operator had its child ended.
    signum: int | None = None


class Phase(Enum):
    """How far a job has come."""

    #: Held by the parent: for a child, or for its time.
    WAITING = auto()
    #: In a child's hands.
    SENT = auto()
    #: The outcome is known; messages or a result of it are not confirmed yet.
    ENDING = auto()
    #: A copy of the message is on its way: to the dead-letter queue, the ladder, or its own queue.
    COPYING = auto()


@dataclass(slots=True, eq=False)
class Job:
    """One delivery on its way to its settlement."""

    number: int
    delivery: Delivery
    #: None for a message whose headers are no task's.
    headers: TaskHeaders | None
    policy: Policy
    phase: Phase = Phase.WAITING
    child: int | None = None
    #: Messages published for it, and results stored for it, that are not confirmed yet.
    pending: int = 0
    #: Why one of these was refused, if one was.
    refusal: str | None = None
    outcome: Outcome | None = None
    #: Why it ended as it did, for the dead letter.
    reason: str = ""
    #: Exception type, text and traceback tail, for the dead letter.
    evidence: tuple[str, str, str] | None = None
    #: The delivery is settled, or its channel is gone: nothing is left to tell the broker.
    settled: bool = False
    #: Children's questions that wait for `pending` to become 0: (child, ticket).
    questions: list[tuple[int, int]] = field(default_factory=list)
    crashes: int = 0
    #: Which of the jobs sent to its child it is, counted from 1.
    turn: int = 0
    #: Seconds that it was expected to take when it was handed out.
    expected: float = 0.0
    #: How it ends, once it is decided that its child is ended because of it.
    doom: Doom | None = None
    #: When its delivery came, in seconds since the epoch.
    since: float = 0.0
    #: A copy that shall take its delivery's place is on its way.
    claiming: bool = False
    #: Its task was told that the soft time limit has passed.
    warned: bool = False

    def comes_again(self, now: float) -> bool:
        """Whether its message only goes back for a while, as it was due at *now*: no news of it."""
        if self.phase is not Phase.COPYING or self.outcome is not None or self.headers is None:
            return False
        return self.headers.eta is None or self.headers.eta <= now

    @property
    def limited(self) -> bool:
        """Whether it has any time limit."""
        chosen, policy = self.headers, self.policy
        own = chosen is not None and (chosen.time_limit or chosen.soft_time_limit)
        return bool(own or policy.time_limit or policy.soft_time_limit)

    @property
    def limits(self) -> Limits:
        """Its time limits: those of its message, else those of its task."""
        chosen = self.headers
        own = Limits(chosen.time_limit, chosen.soft_time_limit) if chosen else Limits()
        return own.over(Limits(self.policy.time_limit, self.policy.soft_time_limit))

    @property
    def stale(self) -> bool:
        """Whether its channel is gone, so that the broker delivers the message again.

        A late-acked delivery is settled last of all; one that is settled earlier was lost.
        """
        return self.settled and self.policy.acks_late

    @property
    def id(self) -> str:
        """The task's id, or what stands in its place."""
        if self.headers is not None:
            return self.headers.id
        found = self.delivery.message.headers.get("id")
        return found if isinstance(found, str) else "?"

    @property
    def name(self) -> str:
        """The task's name, or what stands in its place."""
        if self.headers is not None:
            return self.headers.task
        found = self.delivery.message.headers.get("task")
        return found if isinstance(found, str) else "?"


class Ledger:
    """The jobs by number; numbers rise and are never used twice.

    *on_full* hears True when the bodies of all have more than *most* bytes together, and False when
    half of that is gone.
    """

    def __init__(
        self, most: float = math.inf, on_full: Callable[[bool], None] = lambda _full: None
    ) -> None:
        self._jobs: dict[int, Job] = {}
        self._last = 0
        #: The size of all bodies held, in bytes.
        self.size = 0
        self._most = most
        self._on_full = on_full
        self._is_full = False

    def open(self, delivery: Delivery, headers: TaskHeaders | None, policy: Policy) -> Job:
        """Enter a new job."""
        self._last += 1
        job = Job(self._last, delivery, headers, policy)
        job.crashes = headers.crashes if headers is not None else 0
        self._jobs[job.number] = job
        self.size += len(delivery.message.body)
        if self.size > self._most and not self._is_full:
            self._is_full = True
            self._on_full(True)
        return job

    def get(self, number: int) -> Job | None:
        """The job *number*, None if it is closed."""
        return self._jobs.get(number)

    def close(self, job: Job) -> None:
        """Forget *job*."""
        if self._jobs.pop(job.number, None) is not None:
            self.size -= len(job.delivery.message.body)
            if self._is_full and self.size <= self._most / 2:
                self._is_full = False
                self._on_full(False)

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def __len__(self) -> int:
        return len(self._jobs)
