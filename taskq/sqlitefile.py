"""One SQLite file that many processes write to: opening it, taking turns, surviving a fork.

What the tables in it mean belongs to those who keep them there: the embedded broker, and the
result store that shares its file.

- *Turns.*  Writers queue at a turnstile, an advisory lock on a file beside the database.  SQLite's
  own waiting sleeps in growing steps: of four busy writers the luckiest wrote ten times as much as
  the unluckiest, which waited for most of a second.  The turnstile is asked again and again with
  short sleeps, because a plain wait for it could not be bounded.
- *Fork.*  No connection is open while a process forks.  SQLite would share the parent's record of
  locks with the child, which then holds none of them; the parent's last close deletes the
  write-ahead log under the child, and what that commits afterwards is lost.
- *Doorbell.*  The same file is the bell: a byte written into it tells whoever watches it that
  something was committed.
"""

import fcntl
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from taskq import clock
from taskq.errors import ConfigurationError

#: How long a writer waits for the others, in seconds.
PATIENCE = 5.0

#: Sleeps between two looks at the turnstile, in seconds: about one short transaction, then longer.
_FIRST_SLEEP, _LONGEST_SLEEP = 50e-6, 1e-3

# Deleted rows need no overwriting with zeros (Debian's SQLite would); and NORMAL loses nothing when
# processes die, only what the system had not written yet when the power fails.
_PRAGMAS = "pragma journal_mode = wal; pragma synchronous = {}; pragma secure_delete = off;"


def location(url: str, root: str) -> tuple[Path, str]:
    """The file that a `sqlite:///path?synchronous=full` URL names, and its `synchronous` mode.

    Three slashes start a path relative to *root*, four an absolute one.  ConfigurationError for
    anything else.
    """
    address, _, query = url.partition("?")
    path = unquote(address.partition(":///")[2])
    options = dict(parse_qsl(query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "normal").lower()
    if not path or path == ":memory:":
        raise ConfigurationError(
            f"{url!r} names no file: write sqlite:///relative.db or sqlite:////absolute.db "
            "(memory:// keeps everything in the process)"
        )
    if options or synchronous not in ("off", "normal", "full", "extra"):
        raise ConfigurationError(
            f"{url!r}: the only option is ?synchronous= with off, normal, full or extra"
        )
    return Path(root, path).resolve(), synchronous


class SqliteFile:
    """One database file in this process, opened when first used; any thread may use it.

    *schema* is run each time it is opened and must bear repetition.
    """

    def __init__(self, path: Path, schema: str, synchronous: str = "normal") -> None:
        self.path = path
        self.bell = Path(f"{path}-bell")
        self._lock = threading.Lock()
        self._script = _PRAGMAS.format(synchronous) + schema
        # Both are written by whoever holds the lock.
        self._connection: sqlite3.Connection | None = None
        self._bell = -1
        _files.add(self)

    @contextmanager
    def writing(
        self, patience: float = PATIENCE, *, ring: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """A transaction: committed at the end of the block, rolled back if it raises.

        With *ring*, those who watch the bell, in any process, are told that it was committed.

        Raises sqlite3.Error or OSError when the file cannot be used; the builtin TimeoutError,
        which is one of the latter, when others kept it busy for *patience* seconds.
        """
        deadline = clock.monotonic() + patience
        with self._opened(deadline) as db:
            self._enter(deadline)
            try:
                db.execute("begin immediate")
                yield db
                db.execute("commit")
            except BaseException:
                if db.in_transaction:
                    db.execute("rollback")
                raise
            finally:
                fcntl.flock(self._bell, fcntl.LOCK_UN)
            if ring:
                with suppress(OSError):  # what was committed stays so, heard or not
                    os.pwrite(self._bell, b"\0", 0)

    @contextmanager
    def reading(self, patience: float = PATIENCE) -> Iterator[sqlite3.Connection]:
        """The connection, outside a transaction; errors as those of `writing`."""
        with self._opened(clock.monotonic() + patience) as db:
            yield db

    def close(self) -> None:
        """Close the file, which opens again when it is used again.  Idempotent."""
        with self._lock:
            self._close()

    def __del__(self) -> None:
        self._close()

    @contextmanager
    def _opened(self, deadline: float) -> Iterator[sqlite3.Connection]:
        if not self._lock.acquire(timeout=max(0.0, deadline - clock.monotonic())):
            raise TimeoutError("other threads of this process kept it busy")
        try:
            yield self._connection or self._open(deadline)
        finally:
            self._lock.release()

    def _open(self, deadline: float) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._bell = os.open(self.bell, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._enter(deadline)  # two processes must not create the tables at once
            self._connection = sqlite3.connect(
                self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._connection.executescript(self._script)
        except BaseException:
            self._close()
            raise
        fcntl.flock(self._bell, fcntl.LOCK_UN)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1

    def _enter(self, deadline: float) -> None:
        pause = _FIRST_SLEEP
        while True:
            try:
                return fcntl.flock(self._bell, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if clock.monotonic() >= deadline:
                    raise TimeoutError("other processes kept it busy") from None
            time.sleep(pause * random.random())
            pause = min(2 * pause, _LONGEST_SLEEP)


_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()
_forking = threading.Lock()
_closed_for_fork: list[SqliteFile] = []


def _before_fork() -> None:
    _forking.acquire()
    for file in list(_files):
        file._lock.acquire()
        file._close()
        _closed_for_fork.append(file)


def _after_fork() -> None:
    while _closed_for_fork:
        _closed_for_fork.pop()._lock.release()
    _forking.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
