"""When a failed task should run again, worked out as plain arithmetic.

Nothing here sleeps, publishes or reads a clock: a task asks for a number, and the broker does the
waiting.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

#: Doubling stops here: 2**64 seconds is past every limit, and 2.0**1024 would overflow.
_MAX_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how far apart, a failed task is tried again.

    Without *backoff* each retry waits *delay* seconds.  With it the first waits *backoff* seconds,
    and each further one twice as long, up to *longest*; *jitter* then picks any moment from now to
    that, so that a thousand tasks that failed together do not come back together.
    """

    #: None: without end.
    limit: int | None = 3
    delay: float = 180.0
    backoff: float | None = None
    longest: float = 600.0
    jitter: bool = True

    def allows(self, retry: int) -> bool:
        """Whether there may be a *retry*-th retry (the first is 1)."""
        return self.limit is None or retry <= self.limit

    def delay_before(self, retry: int, *, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait before the *retry*-th retry (the first is 1)."""
        if self.backoff is None:
            return self.delay
        delay = min(self.longest, self.backoff * 2.0 ** min(retry - 1, _MAX_DOUBLINGS))
        return delay * draw() if self.jitter else delay
