"""Who holds messages: numbers that live exactly as long as the process that took them.

An owner is one byte of a lock file, record-locked (fcntl) by its process.  The kernel drops the
lock when the process dies, however it dies, and never while it is merely slow: no lease can run
out under a running task.  What is done with a dead owner's messages is the embedded broker's
business.
"""

import errno
import fcntl
import os
import random
import threading
from pathlib import Path

#: The owner of a message that nobody holds.  Every number takes four bytes in SQLite's records, so
#: that taking a message overwrites its row in place.
NOBODY = 1 << 30


class Owners:
    """The owners on one lock file in this process; thread-safe.

    There is one object for each file (`of`) with one descriptor, because closing *any* descriptor
    of a file drops all record locks that the process has on it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._fd = -1
        self._ours: set[int] = set()

    @staticmethod
    def of(path: Path) -> "Owners":
        """The owners on the lock file *path*, always the same object in a process."""
        with _opening:
            return _files.setdefault(path, Owners(path))

    def new(self) -> int:
        """A number that no living process has; it lives until `release` or this process's end."""
        while True:
            number = NOBODY + random.randrange(1, NOBODY)
            if self.claim(number):
                return number

    def claim(self, number: int) -> bool:
        """Become owner *number* if that one is dead; False if it lives, here or elsewhere."""
        with self._lock:
            if number in self._ours:  # the kernel would grant the process its own lock again
                return False
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    return False
                raise
            self._ours.add(number)
            return True

    def release(self, number: int) -> None:
        """Let *number* die.  Idempotent."""
        with self._lock:
            if number in self._ours:
                self._ours.remove(number)
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, number)
            if not self._ours:
                self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_opening = threading.Lock()
_files: dict[Path, Owners] = {}


def _after_fork_in_child() -> None:
    # Record locks are not inherited: the parent's numbers are the parent's.
    global _opening
    _opening = threading.Lock()
    for owners in _files.values():
        owners._close()
    _files.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
