"""The disk of the embedded broker is full for a while."""

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.faults.arena import MakeArena
from tests.support.site import Site
from tests.support.wait import wait_until

#: The size of the disk: SQLite's write-ahead log alone takes 4 MiB before it starts anew.
BYTES = 16 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own; mounting takes root, as tests in CI are."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "taskq-test", str(folder)], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_refuses_calls_and_loses_nothing(arena_on: MakeArena, small_disk: Path) -> None:
    site = Site(f"sqlite:///{small_disk}/taskq.db")
    arena = arena_on(site)
    arena.worker()
    flood = arena.flood(pause=0.01, TASKQ_PUBLISH_TIMEOUT="0.5")
    arena.done(200)

    ballast = small_disk / "ballast"
    fill(ballast)
    with reader(small_disk / "taskq.db"):
        wait_until(lambda: len(flood.ids("refused")) > 8, "calls to be refused")
    ballast.unlink()

    # No message is taken twice: a worker that cannot write down that it took one does not run it,
    # and one that cannot write down that it is done goes on trying.
    arena.balance(repeats=0)
    assert set() == flood.ids("unknown")


@contextmanager
def reader(file: Path) -> Iterator[None]:
    """Read all along: so the write-ahead log can only grow, and never starts anew in its place."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        yield


def fill(file: Path) -> None:
    """Write until nothing more fits."""
    with file.open("wb", buffering=0) as ballast:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    ballast.write(b"x" * size)
            except OSError:
                continue
