"""When a failed task should run again, worked out as plain arithmetic.

Nothing here sleeps, publishes or reads a clock: a task asks for a number, and the broker does the
waiting.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Doubling stops here: 2**64 seconds is past every limit, and 2.0**1024 would overflow.
_MAX_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, how far apart, and after what, a failed task is tried again.

    Without *backoff* each retry waits *delay* seconds.  With it the first waits *backoff* seconds,
    and each further one twice as long, up to *longest*; *jitter* then picks any moment from now to
    that, so that a thousand tasks that failed together do not come back together.

    *autoretry_for*, *dont_autoretry_for* and *retry_when* are what `delay_after` goes by, and have
    the names of the options of a task that they come from.  TypeError for what is none.
    """

    #: None: without end.
    limit: int | None = 3
    delay: float = 180.0
    backoff: float | None = None
    longest: float = 600.0
    jitter: bool = True
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    retry_when: Callable[[Any, int], float | None] | None = None

    def __post_init__(self) -> None:
        for option in ("autoretry_for", "dont_autoretry_for"):
            given = getattr(self, option)
            if not isinstance(given, tuple | list) or not all(map(_is_exception_class, given)):
                raise TypeError(f"{option} is {given!r:.200}: give a tuple of exception classes")
        if self.retry_when is not None and not callable(self.retry_when):
            raise TypeError(
                f"retry_when is {self.retry_when!r:.200}: give a function that takes an exception "
                "and the number of the attempt that raised it"
            )

    def allows(self, retry: int) -> bool:
        """Whether there may be a *retry*-th retry (the first is 1)."""
        return self.limit is None or retry <= self.limit

    def delay_before(self, retry: int, *, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait before the *retry*-th retry (the first is 1)."""
        if self.backoff is None:
            return self.delay
        delay = min(self.longest, self.backoff * 2.0 ** min(retry - 1, _MAX_DOUBLINGS))
        return delay * draw() if self.jitter else delay

    def delay_after(self, error: BaseException, attempt: int) -> float | None:
        """Seconds until the next try when the *attempt*-th (the first is 1) raised *error*.

        None: there is to be none.  Without *retry_when* those that *autoretry_for* names are tried
        again; otherwise *retry_when* says, and is asked about these, or about any `Exception` where
        none are named.  TypeError, whose context is *error*, if it says neither seconds nor None.
        """
        named = tuple(self.autoretry_for) or ((Exception,) if self.retry_when else ())
        if not isinstance(error, named) or isinstance(error, tuple(self.dont_autoretry_for)):
            return None
        if not self.allows(attempt):
            return None
        if self.retry_when is None:
            return self.delay_before(attempt)
        answer = self.retry_when(error, attempt)
        if answer is None or _is_seconds(answer):
            return answer
        raise TypeError(
            f"retry_when said {answer!r:.200} of {error!r:.200}: it must say how many seconds to "
            "wait (0 or more), or None for no retry"
        )


def _is_exception_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _is_seconds(value: object) -> bool:
    # A boolean is the answer to another question, "whether" instead of "when".
    return isinstance(value, int | float) and type(value) is not bool and 0 <= value < math.inf
