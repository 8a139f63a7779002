"""A task that is too late does not run: it ends as REVOKED, wherever its time ran out."""

import time
from pathlib import Path

import pytest

from taskq import AsyncResult, TaskRevokedError
from taskq.wire.dead import read_x_death
from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.site import Site
from tests.support.wait import wait_until


def assert_revoked(result: AsyncResult, worker: WorkerProcess) -> None:
    """*result* says that its task expired, and so does the worker's log."""
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(timeout=30)
    assert result.state == "REVOKED"
    assert "moved to" not in worker.log()


def test_a_task_that_expired_in_its_queue_never_runs(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    app = site.app()
    late = app.send_task("tasks.record", args=(1,), queue="q1", expires=0.01)
    good = app.send_task("tasks.record", args=(2,), queue="q1", expires=600)
    moment = time.time() + 0.01
    wait_until(lambda: time.time() > moment, "the expiry")
    worker = worker_process(APP, "-Q", "q1", "-c", "1", env=site.env)

    assert 2 == good.get(timeout=30)
    assert_revoked(late, worker)
    assert worker.stop() == 0
    assert [good.id] == ledger.ids()
    assert (0, 0) == (site.count("q1"), site.count("q1.dead"))


def test_a_task_that_expires_behind_others_in_the_worker_never_runs(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    app = site.app()
    worker = worker_process(APP, "-Q", "q1", "-c", "1", "--prefetch", "4", env=site.env)
    holder = app.send_task("tasks.act", args=("hold", str(gate)), queue="q1")
    ledger.wait_for(1)
    moment = time.time() + 2.0
    late = app.send_task("tasks.record", args=(1,), queue="q1", expires=2.0)
    worker.wait_for("task-received", id=late.id)

    wait_until(lambda: time.time() > moment, "the expiry")
    gate.touch()
    holder.get(timeout=30)

    assert_revoked(late, worker)
    worker.wait_for("task-revoked", id=late.id, reason="expired")
    assert [holder.id] == ledger.ids()


def test_a_delayed_task_that_expires_before_it_is_due_never_runs(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    app = site.app()
    late = app.send_task("tasks.record", args=(1,), queue="q1", countdown=0.6, expires=0.3)
    good = app.send_task("tasks.record", args=(2,), queue="q1", countdown=0.6, expires=600)
    worker = worker_process(APP, "-Q", "q1", "-c", "1", env=site.env)

    assert 2 == good.get(timeout=30)
    assert_revoked(late, worker)
    assert [good.id] == ledger.ids()


def test_a_retry_does_not_outlive_its_task(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    app = site.app()
    worker = worker_process(APP, "-Q", "q1", "-c", "1", env=site.env)
    worker.wait_for("worker-ready")
    late = app.send_task("tasks.act", args=("retry", 10**9), queue="q1", expires=1.0)

    assert_revoked(late, worker)
    assert {late.id} == set(ledger.ids())


def test_what_the_broker_lets_expire_is_found_with_the_dead_letters(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    app = site.app()
    sent = [app.send_task("tasks.record", args=(n,), queue="q1") for n in range(2)]
    first, second = site.take("q1", 2)
    assert [first.headers["id"], second.headers["id"]] == [each.id for each in sent]
    # As a producer of Celery's does: the broker is to drop it by itself.
    site.publish(first.copy(expiration="1"), "q1")
    site.publish(second.copy(expiration="600000"), "q1")
    wait_until(lambda: site.count("q1.dead") == 1, "the expiry")
    worker_process(APP, "-Q", "q1", "-c", "1", env=site.env)

    assert 1 == sent[1].get(timeout=30)
    (letter,) = site.take("q1.dead", 1)

    assert letter.headers["id"] == sent[0].id
    assert letter.body == first.body
    if site.url.startswith("amqp"):
        death = read_x_death(letter.headers)
        assert death is not None
        assert ("q1", "dead-lettered by the broker: expired") == (death.queue, death.reason)
    assert_conserved([each.id for each in sent], ledger, dead=[sent[0].id], once=True)
