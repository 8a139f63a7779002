"""Who holds messages: numbers that live exactly as long as the process that took them.

An owner is one byte of a lock file, record-locked (fcntl) by its process.  The kernel drops the
lock when the process dies, however it dies, and never while it is merely slow: no lease can run
out under a running task.  What is done with a dead owner's messages is the embedded broker's
business.
"""

import fcntl
import os
import random
import threading
from pathlib import Path

#: The owner of a message that nobody holds.  Every number takes four bytes in SQLite's records, so
#: that taking a message overwrites its row in place.
NOBODY = 1 << 30


class Owners:
    """The owners beside one database file, as one process sees them; thread-safe.

    There is one object for each file (`of`) with one descriptor, because closing *any* descriptor
    of a file drops all record locks that the process has on it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._fd = -1
        self._ours: set[int] = set()

    @staticmethod
    def of(database: Path) -> "Owners":
        """The owners beside *database*, which must be given by the same path each time."""
        return _known.setdefault(database, Owners(Path(f"{database}-owners")))

    def new(self) -> int:
        """A number that is nobody else's; it lives until `release` or this process's end."""
        with self._lock:
            while True:
                number = random.randrange(NOBODY + 1, 2 * NOBODY)
                if number not in self._ours and self._lock_byte(number):
                    self._ours.add(number)
                    return number

    def alive(self, number: int) -> bool:
        """Whether the owner *number* lives, in this or another process."""
        with self._lock:
            # The kernel would grant a process its own lock again, so ours are looked up.
            if number in self._ours or not self._lock_byte(number):
                return True
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, number)
            return False

    def release(self, number: int) -> None:
        """Let *number* die.  Idempotent."""
        with self._lock:
            if number in self._ours:  # not so in a fork of this process
                self._ours.remove(number)
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, number)
                if not self._ours:
                    self._close()

    def _lock_byte(self, number: int) -> bool:
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # POSIX allows EAGAIN and EACCES
            return False
        return True

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def _after_fork(self) -> None:
        # Record locks are not inherited: all owners are the parent's, and live as long as it does.
        self._lock = threading.Lock()
        self._ours.clear()
        if self._fd >= 0:
            self._close()


_known: dict[Path, Owners] = {}


def _after_fork_in_child() -> None:
    for owners in _known.values():
        owners._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
