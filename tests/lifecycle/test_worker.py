"""The real worker as a process: tasks run, results come back, children die, signals stop it."""

import signal
from pathlib import Path

import pytest

from taskq import TimeoutError as ResultTimeout
from taskq.errors import PublishFailed, TaskNotRegistered, WorkerLostError
from taskq.wire.dead import read as read_dead
from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.site import Site
from tests.support.wait import wait_until


def start(site: Site, worker_process: StartWorker, *arguments: str) -> WorkerProcess:
    worker = worker_process(APP, "-Q", "q1", "-c", "2", *arguments, env=site.env)
    worker.wait_for("worker-ready")
    return worker


def test_a_task_sent_by_name_comes_back_as_its_result(
    site: Site, worker_process: StartWorker
) -> None:
    start(site, worker_process)

    result = site.app().send_task("tasks.add", args=(2, 3), queue="q1")

    assert 5 == result.get(timeout=30)
    assert result.successful()


def test_an_exception_comes_back_as_itself_with_the_remote_traceback(
    site: Site, worker_process: StartWorker
) -> None:
    start(site, worker_process)

    result = site.app().send_task("tasks.fail", args=("no luck",), queue="q1")
    with pytest.raises(ValueError, match="no luck") as caught:
        result.get(timeout=30)

    assert "in fail" in "\n".join(caught.value.__notes__)
    assert result.failed()


def test_a_solo_worker_runs_tasks_in_its_own_process(
    site: Site, worker_process: StartWorker
) -> None:
    worker = worker_process(APP, "-Q", "q1", "--pool", "solo", env=site.env)
    worker.wait_for("worker-ready")
    app = site.app()

    retried = app.send_task("tasks.act", args=("retry", 2), queue="q1")
    unknown = app.send_task("tasks.nobody", queue="q1")

    assert 2 == retried.get(timeout=30)
    with pytest.raises(TaskNotRegistered):
        unknown.get(timeout=30)
    assert 0 == worker.stop()


def test_a_task_that_asks_for_retries_gets_them_and_keeps_its_id(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    start(site, worker_process)

    result = site.app().send_task("tasks.act", args=("retry", 3), queue="q1")

    assert 3 == result.get(timeout=30)
    assert [result.id] * 4 == ledger.ids()


def test_a_countdown_is_waited_for_by_the_broker(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    app = site.app()
    delayed = app.send_task("tasks.record", args=(1,), queue="q1", countdown=0.5)

    ready_at_once = site.count("q1")
    start(site, worker_process)

    assert 1 == delayed.get(timeout=30)
    assert 0 == ready_at_once
    assert_conserved([delayed.id], ledger, once=True)


@pytest.mark.parametrize("word", ["exit", "kill", "segfault"])
def test_a_task_that_kills_its_child_runs_again_and_is_dead_lettered_in_the_end(
    site: Site, worker_process: StartWorker, ledger: Ledger, word: str
) -> None:
    worker = start(site, worker_process)
    app = site.app()

    poison = app.send_task("tasks.act", args=(word,), queue="q1")
    with pytest.raises(WorkerLostError):
        poison.get(timeout=60)
    good = app.send_task("tasks.record", args=(1,), queue="q1")

    assert 1 == good.get(timeout=30)
    (dead,) = site.take("q1.dead", 1)
    letter = read_dead(dead.headers)
    assert letter is not None
    assert letter.reason.startswith("WorkerLost")
    assert [poison.id] * 3 + [good.id] == ledger.ids()
    assert worker.is_running
    assert_conserved([poison.id, good.id], ledger, dead=[dead.headers["id"]])


def test_term_finishes_what_runs_and_gives_back_the_rest(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    worker = start(site, worker_process)
    app = site.app()
    gate = tmp_path / "gate"
    running = [app.send_task("tasks.act", args=("hold", str(gate)), queue="q1") for _ in range(2)]
    waiting = [app.send_task("tasks.record", args=(n,), queue="q1") for n in range(20)]
    ledger.wait_for(2)

    worker.send(signal.SIGTERM)
    worker.wait_for("worker-stopping")
    gate.touch()

    assert 0 == worker.wait()
    queued = [message.headers["id"] for message in site.take("q1", 20)]
    assert {each.id for each in running} == set(ledger.ids())
    assert_conserved([each.id for each in [*running, *waiting]], ledger, queued=queued, once=True)


def test_a_second_signal_stops_at_once_and_what_ran_goes_back(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = start(site, worker_process)
    held = site.app().send_task("tasks.act", args=("sleep", 600), queue="q1")
    ledger.wait_for(1)

    worker.send(signal.SIGTERM)
    worker.wait_for("worker-stopping")
    code = worker.stop(signal.SIGTERM)

    assert 1 == code
    assert [held.id] == [message.headers["id"] for message in site.take("q1", 1)]
    with pytest.raises(ResultTimeout):
        held.get(timeout=0.1)


def test_when_the_parent_is_killed_its_tasks_run_elsewhere_and_no_process_stays(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    first = start(site, worker_process)
    app = site.app()
    gate = tmp_path / "gate"
    held = [app.send_task("tasks.act", args=("hold", str(gate)), queue="q1") for _ in range(2)]
    ledger.wait_for(2)

    first.kill()  # asserts that its whole session is gone
    gate.touch()
    start(site, worker_process)

    assert [None, None] == [each.get(timeout=30) for each in held]
    assert_conserved([each.id for each in held], ledger)


def test_when_the_nursery_is_killed_another_takes_its_place(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = start(site, worker_process)

    worker.kill_nursery()
    worker.wait_for("nursery-died")
    result = site.app().send_task("tasks.record", args=(1,), queue="q1")

    assert 1 == result.get(timeout=30)
    assert 0 == worker.stop()


def test_a_broken_import_ends_the_worker_with_code_3_and_its_reason(
    site: Site, worker_process: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text("import no_such_module_here\n")

    worker = worker_process(tmp_path, "-Q", "q1", env=site.env)

    assert 3 == worker.wait()
    assert "no_such_module_here" in worker.log()


def test_a_folder_without_an_app_is_told_where_one_was_looked_for(
    worker_process: StartWorker, tmp_path: Path
) -> None:
    worker = worker_process(tmp_path, "-Q", "q1")

    assert 3 == worker.wait()
    assert "<package>/app.py" in worker.log()
    assert "TASKQ_APP" in worker.log()


def test_tasks_may_send_tasks_and_are_acked_only_when_these_are_confirmed(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    start(site, worker_process)

    result = site.app().send_task("tasks.spread", args=(10, "q1"), queue="q1")
    children = result.get(timeout=30)
    ledger.wait_for(10)

    assert_conserved(children, ledger, once=True)


def test_a_task_that_sends_to_nowhere_fails_and_says_so(
    site: Site, worker_process: StartWorker
) -> None:
    start(site, worker_process)

    result = site.app().send_task("tasks.stray", queue="q1")

    with pytest.raises(PublishFailed, match="nowhere"):
        result.get(timeout=30)


def test_progress_can_be_read_while_the_task_runs(
    site: Site, worker_process: StartWorker, tmp_path: Path
) -> None:
    start(site, worker_process)
    gate = tmp_path / "gate"

    result = site.app().send_task("tasks.report", args=(str(gate),), queue="q1")
    wait_until(lambda: result.state == "PROGRESS", "the state PROGRESS")
    meta = result.info
    gate.touch()

    assert {"done": 1, "of": 2} == meta
    assert "ready" == result.get(timeout=30)


def test_a_result_that_cannot_be_stored_is_how_the_task_fails(
    site: Site, worker_process: StartWorker
) -> None:
    start(site, worker_process)

    result = site.app().send_task("tasks.act", args=("unencodable",), queue="q1")

    with pytest.raises(Exception, match="object"):
        result.get(timeout=30)


def test_a_child_is_replaced_after_its_share_of_tasks_and_none_is_lost(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = start(site, worker_process, "--max-tasks-per-child", "5")
    app = site.app()

    sent = [app.send_task("tasks.record", args=(n,), queue="q1") for n in range(40)]
    results = [each.get(timeout=30) for each in sent]
    worker.wait_for("child-retired")

    assert list(range(40)) == results
    assert_conserved([each.id for each in sent], ledger, once=True)


def test_a_child_that_has_grown_too_large_is_replaced(
    site: Site, worker_process: StartWorker
) -> None:
    worker = start(site, worker_process, "--max-memory-per-child", "100")  # KiB: anything is more

    result = site.app().send_task("tasks.add", args=(1, 2), queue="q1")

    assert 3 == result.get(timeout=30)
    worker.wait_for("child-retired")
    assert worker.is_running


def test_a_task_that_blows_up_its_child_is_ended_while_it_runs_and_says_why(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    start(site, worker_process, "--max-memory-per-child", str(100 * 1024))

    swollen = site.app().send_task("tasks.swell", args=(200,), queue="q1")
    with pytest.raises(WorkerLostError, match="max_memory_per_child"):
        swollen.get(timeout=60)

    (dead,) = site.take("q1.dead", 1)
    letter = read_dead(dead.headers)
    assert letter is not None
    assert "peak memory" in letter.reason
    assert "into the task" in letter.reason
    assert_conserved([swollen.id], ledger, dead=[dead.headers["id"]])


CONFIRMING = """
from taskq import PublishError, TaskQ

app = TaskQ("tests")

@app.task
def send(exchange):
    try:
        send.apply_async((exchange,), exchange=exchange, routing_key="k", confirm=True)
    except PublishError as error:
        return type(error).__name__, str(error)
    return None
"""


def test_a_task_that_waits_for_a_confirm_is_told_how_its_sending_ended(
    site: Site, worker_process: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text(CONFIRMING)
    worker_process(tmp_path, "-Q", "q1", "-c", "1", env=site.env)

    kind, words = site.app().send_task("tasks.send", args=("nowhere",), queue="q1").get(timeout=30)

    assert "Undeliverable" == kind
    assert "exchange 'nowhere'" in words
