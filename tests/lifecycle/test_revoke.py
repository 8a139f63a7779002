"""Revoked tasks never run, wherever they are; terminated ones end, and nothing else does."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from taskq import AsyncResult, TaskRevokedError
from taskq.errors import TimeLimitExceeded
from taskq.wire.headers import TaskHeaders
from taskq.wire.message import Message
from taskq.wire.task import encode
from tests.support.ledger import Ledger
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.site import Site

PATIENCE = 30.0


def start(site: Site, worker_process: StartWorker, *arguments: str) -> WorkerProcess:
    worker = worker_process(APP, "-Q", "q1", "-n", "one@host", *arguments, env=site.env)
    worker.wait_for("worker-ready")
    return worker


def assert_revoked(result: AsyncResult[Any], why: str) -> None:
    with pytest.raises(TaskRevokedError, match=why):
        result.get(timeout=PATIENCE)
    assert "REVOKED" == result.state


def test_a_task_that_waits_in_the_worker_ends_at_once_when_it_is_revoked(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = start(site, worker_process, "-c", "1", "--prefetch", "8")
    app = site.app()
    holder = app.send_task("tasks.act", args=("hold", str(gate)), queue="q1")
    ledger.wait_for(1)
    waiting = [app.send_task("tasks.record", args=(n,), queue="q1") for n in range(3)]
    for each in waiting:
        worker.wait_for("task-received", id=each.id)

    app.control.revoke([waiting[0].id, waiting[2].id])
    for each in (waiting[0], waiting[2]):
        assert_revoked(each, "revoked")  # while the holder runs
        worker.wait_for("task-revoked", id=each.id, reason="revoked")
    gate.touch()

    assert 1 == waiting[1].get(timeout=PATIENCE)
    assert [holder.id, waiting[1].id] == ledger.ids()
    assert 0 == worker.stop()
    assert (0, 0) == (site.count("q1"), site.count("q1.dead"))


def test_a_task_that_waits_for_its_time_never_runs_when_it_is_revoked(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    start(site, worker_process, "-c", "1")
    app = site.app()

    later = app.send_task("tasks.record", args=(1,), queue="q1", countdown=1.0)
    later.revoke()

    assert_revoked(later, "revoked")
    assert [] == ledger.ids()


def stamped(task_id: str, **stamps: object) -> Message:
    """A task as Celery sends it with stamps."""
    plain = encode(TaskHeaders(task="tasks.record", id=task_id), (1,), {})
    headers = {**plain.headers, "stamps": stamps, "stamped_headers": list(stamps)}
    return Message.of(replace(plain.properties, headers=headers), plain.body)


def test_a_task_with_a_revoked_stamp_never_runs(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    app = site.app()
    app.control.revoke_by_stamped_headers({"customer": ["7", "8"]})
    site.publish(stamped("one", customer="7"), "q1")
    site.publish(stamped("many", customer=["1", "8"]), "q1")
    site.publish(stamped("other", customer="9"), "q1")

    worker = start(site, worker_process, "-c", "1")

    assert ["other"] == ledger.wait_for(1)
    for each in ("one", "many"):
        worker.wait_for("task-revoked", id=each, reason="revoked")
    assert 0 == worker.stop()
    assert ["other"] == ledger.ids()
    assert (0, 0) == (site.count("q1"), site.count("q1.dead"))


@pytest.mark.parametrize("hold_lock", [False, True], ids=["in Python", "in C code"])
def test_a_task_that_will_not_hear_of_its_end_is_killed(
    site: Site, worker_process: StartWorker, ledger: Ledger, hold_lock: bool
) -> None:
    worker = start(site, worker_process, "-c", "1")
    app = site.app()
    deaf = app.send_task("tasks.deaf", args=(hold_lock,), queue="q1", time_limit=600)
    ledger.wait_for(1)

    deaf.revoke(terminate=True)
    assert_revoked(deaf, "terminated")
    good = app.send_task("tasks.record", args=(1,), queue="q1")

    assert 1 == good.get(timeout=PATIENCE)
    assert [deaf.id, good.id] == ledger.ids()
    assert 0 == worker.stop()
    assert "task-lost" not in worker.log()
    assert (0, 0) == (site.count("q1"), site.count("q1.dead"))


def test_only_the_child_that_runs_the_task_is_ended(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = start(site, worker_process, "-c", "2", "--prefetch", "8")
    app = site.app()
    doomed, other = (
        app.send_task("tasks.act", args=("hold", str(gate)), queue="q1") for _ in range(2)
    )
    ledger.wait_for(2)
    behind = [app.send_task("tasks.record", args=(n,), queue="q1") for n in range(4)]

    told = app.control.terminate(doomed.id, "SIGKILL", reply=True, limit=1, timeout=PATIENCE)
    assert_revoked(doomed, "terminated")
    for number, each in enumerate(behind):
        assert number == each.get(timeout=PATIENCE)
    gate.touch()

    assert [{"one@host": {"ok": f"terminate: {doomed.id}"}}] == told
    assert other.get(timeout=PATIENCE) is None
    assert 0 == worker.stop()
    assert sorted([doomed.id, other.id, *(each.id for each in behind)]) == sorted(ledger.ids())
    assert "task-lost" not in worker.log()


def test_a_signal_that_ends_nothing_lets_the_task_go_on(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = start(site, worker_process, "-c", "1")
    app = site.app()
    held = app.send_task("tasks.act", args=("hold", str(gate)), queue="q1")
    ledger.wait_for(1)

    app.control.terminate(held.id, signal.SIGINT, reply=True, limit=1, timeout=PATIENCE)
    good = app.send_task("tasks.record", args=(1,), queue="q1")
    gate.touch()

    assert held.get(timeout=PATIENCE) is None
    assert 1 == good.get(timeout=PATIENCE)
    assert 0 == worker.stop()
    assert "child-died" not in worker.log()


def test_a_task_that_was_sent_a_signal_in_vain_keeps_its_time_limit(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    start(site, worker_process, "-c", "1")
    app = site.app()
    deaf = app.send_task("tasks.deaf", queue="q1", time_limit=3)
    ledger.wait_for(1)

    app.control.terminate(deaf.id, "SIGINT")

    with pytest.raises(TimeLimitExceeded):
        deaf.get(timeout=PATIENCE)


def test_a_task_that_does_not_run_cannot_be_terminated_and_is_revoked(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    start(site, worker_process, "-c", "1")
    app = site.app()

    told = app.control.terminate("unknown", reply=True, limit=1, timeout=PATIENCE)
    late = app.send_task("tasks.record", args=(1,), queue="q1", task_id="unknown")

    assert [{"one@host": {"ok": "terminate: tasks unknown"}}] == told
    assert_revoked(late, "revoked")
    assert [] == ledger.ids()
