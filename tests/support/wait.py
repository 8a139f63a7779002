"""Waiting for a condition with a bound, for what no event or callback can tell."""

import time
from collections.abc import Callable
from typing import TypeVar

Truth = TypeVar("Truth")


def wait_until(condition: Callable[[], Truth], what: str, *, timeout: float = 30.0) -> Truth:
    """Ask *condition* until it is true, and return what it said.

    AssertionError with the words *what* ("three messages in q1") and the last answer if it is
    still false after *timeout* seconds.
    """
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for {what}; last seen: {answer!r}")
        time.sleep(0.02)
    return answer
