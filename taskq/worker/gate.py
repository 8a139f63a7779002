"""May this delivery run now?  Decided from its headers alone, before any body is opened.

Pure: the time is passed in.  What is done about the answer is the dispatcher's business.
"""

from collections.abc import Container
from dataclasses import dataclass

from taskq.wire.headers import TaskHeaders

#: A delivery that is early by no more than this is held; an earlier one goes back to the broker's
#: ladder of delays, whose steps are this long (seconds).
LONGEST_HOLD = 1 / 16


@dataclass(frozen=True, slots=True)
class Run:
    """Hand it to a child."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep it until *until*, seconds since the epoch."""

    until: float


@dataclass(frozen=True, slots=True)
class Delay:
    """Give it back to the broker until *until*, seconds since the epoch."""

    until: float


@dataclass(frozen=True, slots=True)
class Expired:
    """Its `expires` has passed: it ends as REVOKED."""


@dataclass(frozen=True, slots=True)
class Unregistered:
    """No task of its name is registered in this worker."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The broker delivered it too often: something keeps taking whole workers down."""


Verdict = Run | Hold | Delay | Expired | Unregistered | Exhausted

_RUN = Run()


def judge(
    headers: TaskHeaders, *, known: Container[str], deliveries: int, max_deliveries: int, now: float
) -> Verdict:
    """What to do with a delivery at *now*, seconds since the epoch.

    *deliveries* is how often the broker says it was delivered before.
    """
    if headers.task not in known:
        return Unregistered()
    if deliveries >= max_deliveries:
        return Exhausted()
    if headers.expires is not None and headers.expires <= now:
        return Expired()
    if headers.eta is not None and headers.eta > now:
        early = headers.eta - now
        return Hold(headers.eta) if early <= LONGEST_HOLD else Delay(headers.eta)
    return _RUN
