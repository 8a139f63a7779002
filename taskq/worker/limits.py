"""When a running job has had its time: worked out from its slate and its limits, without a clock.

A limit counts from the moment the task's function began, not from when its child was handed the
job: a job that waited behind another has all of its time.  Who looks, and when, is the timekeeper's
business.
"""

from dataclasses import dataclass

from taskq.worker.slate import IN_USER_CODE


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a run may take; None: any."""

    hard: float | None = None
    #: Told by SoftTimeLimitExceeded inside the task, which may tidy up and end.
    soft: float | None = None

    def __bool__(self) -> bool:
        return self.hard is not None or self.soft is not None

    def over(self, fallback: "Limits") -> "Limits":
        """These limits, and those of *fallback* where there are none."""
        return Limits(self.hard or fallback.hard, self.soft or fallback.soft)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is to be done for *seconds*."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Warn:
    """The soft limit has passed: tell the task."""


@dataclass(frozen=True, slots=True)
class Kill:
    """The hard limit has passed: end the child."""


def judge(limits: Limits, state: int, elapsed: float, *, warned: bool) -> Wait | Warn | Kill | None:
    """What to do about a job that is in *state* of its slate since *elapsed* seconds.

    None when no limit is left to watch.  Outside the task's function (storing its result, say) the
    soft limit cannot strike any more, and the hard one goes on.
    """
    if limits.hard is not None and elapsed >= limits.hard:
        return Kill()
    watch_soft = limits.soft is not None and not warned and state == IN_USER_CODE
    if watch_soft and limits.soft is not None and elapsed >= limits.soft:
        return Warn()
    ahead = [limits.hard] if limits.hard is not None else []
    if watch_soft and limits.soft is not None:
        ahead.append(limits.soft)
    return Wait(min(ahead) - elapsed) if ahead else None
