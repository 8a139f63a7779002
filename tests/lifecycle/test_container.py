"""A worker as process 1 of a container: it gets the processes that its tasks leave behind."""

import os
import sys
from pathlib import Path

from tests.support.ledger import Ledger
from tests.support.process import APP, REPOSITORY, WorkerProcess
from tests.support.site import Site
from tests.support.wait import wait_until

#: A process namespace of its own, in a user namespace where we are not root.
UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def zombies_of(pid: int) -> list[str]:
    """The ended and unreaped processes whose parent has *pid* in our view."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state == "Z" and int(parent) == pid:
            found.append(stat.parent.name)
    return found


def inner_pid(outer: int) -> int:
    """The only child of process *outer*."""
    return int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])


def test_as_process_1_the_worker_reaps_strangers_and_stops_cleanly(
    site: Site, ledger: Ledger, tmp_path: Path
) -> None:
    mapped = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = [*UNSHARE, *mapped, sys.executable, "-m", "taskq", "worker", "-Q", "q1", "-c", "1"]
    env = os.environ | site.env | ledger.env | {"PYTHONPATH": str(REPOSITORY)}
    worker = WorkerProcess(*command, folder=APP, env=env, log=tmp_path / "log")
    try:
        assert 1 == worker.wait_for("worker-ready")["pid"]
        first = inner_pid(worker.pid)
        app = site.app()

        for _ in range(3):
            app.send_task("tasks.orphan", queue="q1").get(timeout=30)

        wait_until(lambda: not zombies_of(first), "all strangers to be reaped")
        os.kill(first, 15)
        assert 0 == worker.wait()
    finally:
        worker.end()
