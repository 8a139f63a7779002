"""The file that tells from outside whether a worker works: written by it, read by `healthcheck`.

It says when the worker's loop last turned and whether it consumes, so that a check needs neither
the broker nor the worker's attention: a stuck loop writes nothing, and the file grows old.
"""

import json
import os
from pathlib import Path

from taskq import clock
from taskq.loop import Loop

#: Seconds between two writes.
BEAT = 5.0
#: A file older than this (seconds) is of a worker that is stuck or dead.
STALE = 4 * BEAT


class ReadyFile:
    """Exists while the worker is up, from its first readiness to the end of its work."""

    def __init__(self, loop: Loop, path: str, node: str) -> None:
        self._loop = loop
        self._path = Path(path)
        self._node = node
        self._consuming = False
        self._open = False

    def update(self, *, consuming: bool) -> None:
        """Note whether the worker takes messages now; the first time it does, the file appears."""
        self._consuming = consuming
        if consuming and not self._open:
            self._open = True
            self._beat()
        elif self._open:
            self._write()

    def remove(self) -> None:
        """The worker takes no more work.  Idempotent."""
        self._open = False
        self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        if self._open:
            self._write()
            self._loop.call_later(BEAT, self._beat)

    def _write(self) -> None:
        told = {
            "pid": os.getpid(),
            "node": self._node,
            "consuming": self._consuming,
            "time": clock.wall(),
        }
        # In one step: a reader never sees half a file.
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        draft.write_text(json.dumps(told))
        draft.replace(self._path)


def ailment(path: str, now: float, *, consuming: bool = False) -> str | None:
    """What is wrong with the worker whose ready file is at *path*, None if it is well.

    *now* is in seconds since the epoch.  A worker that has lost its broker is well, and mends that
    by itself; with *consuming* it is not.
    """
    try:
        told = json.loads(Path(path).read_text())
        pid, age = int(told["pid"]), now - float(told["time"])
    except FileNotFoundError:
        return f"{path} is not there: the worker is not ready, or has ended"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{path} is no ready file: {error}"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return f"process {pid} is gone"
    except PermissionError:
        pass  # it is there, and somebody else's
    if age > STALE:
        return f"the worker (pid {pid}) has not turned for {age:.0f} s"
    if consuming and not told.get("consuming"):
        return f"the worker (pid {pid}) has no connection to its broker"
    return None
