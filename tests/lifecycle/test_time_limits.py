"""Time limits: a soft one can be answered, a hard one cannot be escaped."""

import pytest

from taskq import SoftTimeLimitExceeded
from taskq.errors import TimeLimitExceeded
from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.site import Site


def start(site: Site, worker_process: StartWorker) -> WorkerProcess:
    worker = worker_process(APP, "-Q", "q1", "-c", "1", env=site.env)
    worker.wait_for("worker-ready")
    return worker


def test_a_soft_limit_is_raised_in_the_task_which_may_end_well(
    site: Site, worker_process: StartWorker
) -> None:
    start(site, worker_process)

    result = site.app().send_task("tasks.tidy", queue="q1")

    assert "tidied up" == result.get(timeout=30)


def test_a_soft_limit_of_the_call_that_is_not_caught_fails_the_task(
    site: Site, worker_process: StartWorker
) -> None:
    start(site, worker_process)

    result = site.app().send_task("tasks.act", args=("sleep", 60), queue="q1", soft_time_limit=0.2)

    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=30)


@pytest.mark.parametrize("hold_lock", [False, True], ids=["in Python", "in C code"])
def test_a_hard_limit_ends_the_child_and_another_takes_over(
    site: Site, worker_process: StartWorker, ledger: Ledger, hold_lock: bool
) -> None:
    worker = start(site, worker_process)
    app = site.app()

    deaf = app.send_task("tasks.deaf", args=(hold_lock,), queue="q1")
    with pytest.raises(TimeLimitExceeded):
        deaf.get(timeout=30)
    good = app.send_task("tasks.record", args=(1,), queue="q1")

    assert 1 == good.get(timeout=30)
    (dead,) = site.take("q1.dead", 1)
    assert worker.is_running
    assert [deaf.id, good.id] == ledger.ids()  # it ran once: a timeout is no crash
    assert_conserved([deaf.id, good.id], ledger, dead=[dead.headers["id"]])


def test_an_operators_limits_take_the_place_of_those_in_the_code(
    site: Site, worker_process: StartWorker
) -> None:
    start(site, worker_process)
    app = site.app()

    app.control.time_limit("tasks.act", soft=0.2, reply=True, limit=1, timeout=30)
    told = app.send_task("tasks.act", args=("sleep", 60), queue="q1")
    with pytest.raises(SoftTimeLimitExceeded):
        told.get(timeout=30)
    app.control.time_limit("tasks.tidy", hard=0.2, reply=True, limit=1, timeout=30)
    killed = app.send_task("tasks.tidy", queue="q1")  # its soft limit is gone: nobody warns it

    with pytest.raises(TimeLimitExceeded):
        killed.get(timeout=30)
