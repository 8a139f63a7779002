"""Tasks that begin no more often than they may, while others of their queue run on."""

import time
from pathlib import Path

from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.site import Site

PATIENCE = 60.0

#: A task that may begin once an hour, and one that may begin at any time.
TASKS = """
import os

from taskq import TaskQ

app = TaskQ("limited")

def note(task_id):
    with open(os.environ["TASKQ_TEST_LEDGER"], "a") as ledger:
        ledger.write(f"{task_id} ran\\n")

@app.task(bind=True, name="seldom", rate_limit="1/h")
def seldom(self):
    note(self.request.id)

@app.task(bind=True, name="often")
def often(self):
    note(self.request.id)
"""


def start(site: Site, worker_process: StartWorker, name: str = "one@host") -> WorkerProcess:
    worker = worker_process(APP, "-Q", "q1", "-c", "1", "-n", name, env=site.env)
    worker.wait_for("worker-ready")
    return worker


def seldom_and_often(
    site: Site, worker_process: StartWorker, folder: Path, **env: str
) -> tuple[list[str], list[str]]:
    """Ids of five tasks of each kind, sent to a worker; of the former one has run."""
    (folder / "app.py").write_text(TASKS)
    worker = worker_process(folder, "-Q", "q1", "-c", "1", env={**site.env, **env})
    app = site.app()
    seldom = [app.send_task("seldom", queue="q1").id for _ in range(5)]
    worker.wait_for("task-succeeded")
    often = [app.send_task("often", queue="q1") for _ in range(5)]
    for each in often:
        each.get(timeout=PATIENCE)
    return seldom, [each.id for each in often]


def test_a_task_with_a_limit_does_not_hold_up_others_of_its_queue(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    seldom, often = seldom_and_often(site, worker_process, tmp_path)

    ran = ledger.ids()
    assert sorted(often) == sorted(set(ran) - set(seldom))
    assert 1 == len(set(ran) & set(seldom))
    assert 0 == site.count("q1")  # they are with the broker, which brings them later


def test_limits_may_be_disabled(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    seldom, often = seldom_and_often(
        site, worker_process, tmp_path, TASKQ_WORKER_DISABLE_RATE_LIMITS="true"
    )

    assert sorted(seldom + often) == sorted(ledger.wait_for(10))


def test_no_task_begins_more_often_than_its_limit_says_and_all_run_once(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = start(site, worker_process)
    app = site.app()
    app.control.rate_limit("tasks.record", "10/s", reply=True, limit=1, timeout=PATIENCE)

    begun = time.monotonic()
    results = [app.send_task("tasks.record", args=(n,), queue="q1") for n in range(31)]
    assert list(range(31)) == [each.get(timeout=PATIENCE) for each in results]
    took = time.monotonic() - begun

    assert_conserved([each.id for each in results], ledger, once=True)
    assert took >= 2.9  # how long it takes at least is what a limit promises
    assert 0 == worker.stop()


def test_two_workers_share_what_goes_back(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    app = site.app()
    app.control.rate_limit("tasks.record", "20/s")
    workers = [start(site, worker_process, name) for name in ("one@host", "two@host")]

    results = [app.send_task("tasks.record", args=(n,), queue="q1") for n in range(100)]
    for each in results:
        each.get(timeout=PATIENCE)

    assert_conserved([each.id for each in results], ledger, once=True)
    for worker in workers:
        worker.wait_for("task-succeeded")


def test_a_limit_that_is_lifted_holds_up_nothing_that_comes_later(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    start(site, worker_process)
    app = site.app()
    told = app.control.rate_limit("tasks.record", "1/h", reply=True, limit=1, timeout=PATIENCE)
    first = app.send_task("tasks.record", args=(1,), queue="q1")
    assert 1 == first.get(timeout=PATIENCE)

    lifted = app.control.rate_limit("tasks.record", 0, reply=True, limit=1, timeout=PATIENCE)
    later = [app.send_task("tasks.record", args=(n,), queue="q1") for n in range(3)]

    assert [0, 1, 2] == [each.get(timeout=PATIENCE) for each in later]
    assert [{"one@host": {"ok": "new rate limit set successfully"}}] == told
    assert [{"one@host": {"ok": "rate limit disabled successfully"}}] == lifted
