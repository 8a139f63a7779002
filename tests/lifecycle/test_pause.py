"""Queues that operators pause, and workers that they drain: nothing is taken, nothing is lost."""

from pathlib import Path
from typing import Any

from taskq import AsyncResult
from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.site import Site
from tests.support.wait import wait_until

PATIENCE = 30.0


def start(site: Site, worker_process: StartWorker, queues: str = "q1") -> WorkerProcess:
    worker = worker_process(
        APP, "-Q", queues, "-c", "1", "--prefetch", "8", "-n", "one@host", env=site.env
    )
    worker.wait_for("worker-ready")
    return worker


def test_what_waits_of_a_paused_queue_goes_back_and_runs_once_when_it_is_resumed(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = start(site, worker_process, "q1,q2")
    app = site.app()
    holder = app.send_task("tasks.act", args=("hold", str(gate)), queue="q1")
    ledger.wait_for(1)
    paused = [app.send_task("tasks.record", args=(n,), queue="q1") for n in range(4)]
    for each in paused:
        worker.wait_for("task-received", id=each.id)

    app.control.pause("q1")
    wait_until(lambda: 4 == site.count("q1"), "the queue to have its messages back")
    gate.touch()
    assert holder.get(timeout=PATIENCE) is None
    other = app.send_task("tasks.record", args=(9,), queue="q2")
    assert 9 == other.get(timeout=PATIENCE)
    assert [holder.id, other.id] == ledger.ids()
    app.control.resume("q1")

    assert [0, 1, 2, 3] == [each.get(timeout=PATIENCE) for each in paused]
    assert_conserved([holder.id, other.id, *(each.id for each in paused)], ledger, once=True)


def test_a_worker_of_paused_queues_only_is_ready_and_waits(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    app = site.app()
    app.control.pause("q1")
    result = app.send_task("tasks.record", args=(1,), queue="q1")

    worker = start(site, worker_process)
    assert {"one@host": {"ok": "pong"}} == app.control.inspect("one@host", PATIENCE).ping()
    assert [] == ledger.ids()
    app.control.resume("q1")

    assert 1 == result.get(timeout=PATIENCE)
    assert 0 == worker.stop()


def test_a_drained_worker_finishes_what_it_holds_takes_no_more_and_stays(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = start(site, worker_process)
    app = site.app()
    holder = app.send_task("tasks.act", args=("hold", str(gate)), queue="q1")
    ledger.wait_for(1)
    held = app.send_task("tasks.record", args=(1,), queue="q1")
    worker.wait_for("task-received", id=held.id)

    app.control.drain(reply=True, limit=1, timeout=PATIENCE)
    late: list[AsyncResult[Any]] = []

    def one_stays() -> bool:  # the first may still come: the broker hears of it by another way
        late.append(app.send_task("tasks.record", args=(2,), queue="q1"))
        return site.count("q1") > 0

    wait_until(one_stays, "the worker to take nothing more")
    gate.touch()
    assert holder.get(timeout=PATIENCE) is None
    assert 1 == held.get(timeout=PATIENCE)
    assert site.count("q1") > 0
    app.control.undrain()

    assert {2} == {each.get(timeout=PATIENCE) for each in late}
    assert_conserved([holder.id, held.id, *(each.id for each in late)], ledger, once=True)
