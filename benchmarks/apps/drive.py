"""The caller's half of every benchmark: the same loops around each library's own calls.

`drive.py MODULE COMMAND JSON` imports one of the modules beside it and prints figures as JSON.  A
module has `send(task, *args)`, one call as it is usually made; `send_many(calls)`, the library's
best way to send a list of (task, *args); `send_later(seconds, task, *args)`; `ask(task, *args)`, a
call and its result; and `close()`.
"""

import importlib
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Figures = dict[str, float]

#: So many calls, and so many bytes of payload, are sent together by `fill`: a million at once would
#: measure memory.
_BATCH, _BATCH_BYTES = 50_000, 64 * 1024 * 1024


def fill(library: Any, count: int, task: str = "noop", size: int | None = None) -> Figures:
    """Send *count* times the same call, with a payload of *size* characters; how long that took."""
    args = () if size is None else ("x" * size,)
    batch = _BATCH if not size else max(1, min(_BATCH, _BATCH_BYTES // size))
    begun = time.perf_counter()
    for first in range(0, count, batch):
        library.send_many([(task, *args)] * min(batch, count - first))
    return {"seconds": time.perf_counter() - begun}


def send_list(library: Any, calls: list[list[Any]]) -> Figures:
    """Send each of *calls*; when the last was sent, in seconds since the epoch."""
    library.send_many([tuple(call) for call in calls])
    return {"sent": time.time()}


def calls(library: Any, count: int, threads: int = 1, warm: int = 100) -> Figures:
    """Calls of a no-op, one by one in each of *threads* threads; the first *warm* do not count."""
    for _ in range(warm):
        library.send("noop")
    share = max(1, count // threads)
    taken: list[list[float]] = [[] for _ in range(threads)]
    gate = threading.Barrier(threads + 1)

    def call(mine: list[float]) -> None:
        gate.wait()
        mine.extend(_timed(lambda: library.send("noop"), share))

    callers = [threading.Thread(target=call, args=[mine]) for mine in taken]
    for caller in callers:
        caller.start()
    gate.wait()
    begun = time.perf_counter()
    for caller in callers:
        caller.join()
    seconds = time.perf_counter() - begun
    return {"rate": share * threads / seconds, **_percentiles([t for mine in taken for t in mine])}


def asks(library: Any, count: int, warm: int = 100) -> Figures:
    """Calls and their results, one at a time; the first *warm* do not count."""
    _timed(lambda: library.ask("add", 2, 3), warm)
    return _percentiles(_timed(lambda: library.ask("add", 2, 3), count))


def later(library: Any, seconds: list[float], every: float = 0.0) -> Figures:
    """Send for each of *seconds* a task that is due then; it is told its due time."""
    for delay in seconds:
        library.send_later(delay, "arrive", time.time() + delay)
        time.sleep(every)
    return {}


def fill_later(library: Any, count: int, delay: float) -> Figures:
    """Send *count* calls of a no-op that are due after *delay* seconds."""
    library.send_many_later([delay] * count)
    return {}


def _timed(call: Callable[[], object], count: int) -> list[float]:
    """The seconds that each of *count* calls took."""
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return taken


def _percentiles(seconds: list[float]) -> Figures:
    ordered = sorted(seconds)
    return {
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)],
    }


COMMANDS = {each.__name__: each for each in (fill, send_list, calls, asks, later, fill_later)}


def main(module: str, command: str, options: str) -> None:
    library = importlib.import_module(module)
    figures = COMMANDS[command](library, **json.loads(options))
    library.close()
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
