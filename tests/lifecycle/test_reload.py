"""HUP brings new code without dropping the connection or a task; broken code changes nothing."""

import signal
from pathlib import Path

import pytest

from taskq import TaskQ
from tests.support.process import StartWorker, WorkerProcess
from tests.support.site import Site
from tests.support.wait import wait_until

CODE = """
import time
from pathlib import Path
from taskq import TaskQ

app = TaskQ("reloading")

@app.task(name="version")
def version():
    return {number}

@app.task(name="hold")
def hold(gate):
    while not Path(gate).exists():
        time.sleep(0.01)
    return {number}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tasks.py").write_text(CODE.format(number=1))
    return tmp_path / "code"


def start(site: Site, worker_process: StartWorker, folder: Path) -> WorkerProcess:
    env = site.env | {"PYTHONDONTWRITEBYTECODE": "1"}
    worker = worker_process(folder, "-Q", "q1", "-c", "2", env=env)
    worker.wait_for("worker-ready")
    return worker


def version(app: TaskQ) -> object:
    return app.send_task("version", queue="q1").get(timeout=30)


def test_hup_replaces_children_as_they_finish_and_running_tasks_end_on_their_own_code(
    site: Site, worker_process: StartWorker, folder: Path, tmp_path: Path
) -> None:
    worker = start(site, worker_process, folder)
    app = site.app()
    gate = tmp_path / "gate"
    held = app.send_task("hold", args=(str(gate),), queue="q1")
    assert 1 == version(app)

    (folder / "tasks.py").write_text(CODE.format(number=2))
    worker.send(signal.SIGHUP)
    worker.wait_for("worker-reloaded")
    wait_until(lambda: version(app) == 2, "the new code")
    gate.touch()

    assert 1 == held.get(timeout=30)
    wait_until(lambda: [2, 2, 2, 2] == [version(app) for _ in range(4)], "no old child")
    names = [event["event"] for event in worker.events]
    assert "connection-lost" not in names
    assert "child-died" not in names
    assert 0 == worker.stop()


def test_a_broken_import_leaves_the_old_code_serving_and_says_why(
    site: Site, worker_process: StartWorker, folder: Path
) -> None:
    worker = start(site, worker_process, folder)
    app = site.app()

    (folder / "tasks.py").write_text("import no_such_module_here\n")
    worker.send(signal.SIGHUP)
    failed = worker.wait_for("reload-failed")

    assert "no_such_module_here" in failed["why"]
    assert [1, 1, 1, 1] == [version(app) for _ in range(4)]
    assert 0 == worker.stop()


def test_new_tasks_are_known_after_a_reload(
    site: Site, worker_process: StartWorker, folder: Path
) -> None:
    worker = start(site, worker_process, folder)

    more = CODE.format(number=2).replace('name="version"', 'name="another"')
    (folder / "tasks.py").write_text(more)
    worker.send(signal.SIGHUP)
    worker.wait_for("worker-reloaded")
    result = site.app().send_task("another", queue="q1")

    assert 2 == result.get(timeout=30)


def test_term_gives_back_what_runs_longer_than_the_shutdown_timeout(
    site: Site, worker_process: StartWorker, folder: Path, tmp_path: Path
) -> None:
    env = site.env | {"TASKQ_WORKER_SHUTDOWN_TIMEOUT": "0.3"}
    worker = worker_process(folder, "-Q", "q1", "-c", "1", env=env)
    worker.wait_for("worker-ready")
    held = site.app().send_task("hold", args=(str(tmp_path / "never"),), queue="q1")
    worker.wait_for("task-received", id=held.id)

    code = worker.stop()

    assert 1 == code
    assert [held.id] == [message.headers["id"] for message in site.take("q1", 1)]
