"""What the tasks do, the same for every library, and what they write down for the benchmark.

Runs under the interpreter of whichever library is measured: nothing but Python's own modules.
"""

import json
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any

#: The library's settings for this benchmark.
SETTINGS: dict[str, Any] = json.loads(os.environ.get("BENCH_SETTINGS", "{}"))

#: The queue that every library uses.
QUEUE = "bench"

#: How many tasks a `spread` sends.
SPREAD = 10


def noop() -> None:
    """Nothing."""


def add(x: int, y: int) -> int:
    return x + y


def swallow(payload: str) -> None:
    """Nothing, with an argument of some size."""


def count() -> None:
    """One byte more in the record: its size is how many have run, in all processes together."""
    os.write(_record(), b".")


def doze() -> None:
    """Five milliseconds of waiting for something, and a byte more in the record."""
    time.sleep(0.005)
    count()


def stay(kind: str, seconds: float) -> None:
    """Sleep, and write down where, from when and until when."""
    begun = time.time()
    time.sleep(seconds)
    os.write(_record(), f"{kind} {os.getpid()} {begun:.6f} {time.time():.6f}\n".encode())


def arrive(due: float) -> None:
    """Write down how many seconds after *due* this runs."""
    os.write(_record(), f"{time.time() - due:.6f}\n".encode())


#: Every task but `spread`, which sends others and therefore is each library's own.
TASKS: dict[str, Callable[..., Any]] = {
    task.__name__: task for task in (noop, add, swallow, count, doze, stay, arrive)
}


@cache
def _record() -> int:
    """The record, opened for adding: one short write is never torn by another process's."""
    return os.open(os.environ["BENCH_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
