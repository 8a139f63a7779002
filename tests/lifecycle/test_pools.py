"""Which pool runs the tasks: as the command line says, else as the app's settings do."""

from pathlib import Path

import pytest

from tests.support.process import StartWorker
from tests.support.site import Site

APP = """
import os
from pathlib import Path
from taskq import TaskQ, hooks

app = TaskQ("tests"{more})

@app.task
def where():
    return os.getpid()

def note(word):
    with Path("notes").open("a") as notes:
        notes.write(word + "\\n")

@hooks.worker_ready
def ready(**_):
    note("ready")

@hooks.worker_shutdown
def shutdown(**_):
    note("shutdown")
"""


@pytest.mark.parametrize(
    ("arguments", "env", "code", "in_the_worker_itself"),
    [
        ([], {}, "", False),
        ([], {"TASKQ_WORKER_POOL": "solo"}, "", True),
        ([], {}, ", worker_pool='solo'", True),
        ([], {"TASKQ_WORKER_POOL": "solo"}, ", worker_pool='prefork'", False),
        (["--pool=prefork"], {"TASKQ_WORKER_POOL": "solo"}, "", False),
        (["--pool=solo"], {}, ", worker_pool='prefork'", True),
    ],
    ids=["default", "environment", "code", "code first", "prefork asked", "solo asked"],
)
def test_tasks_run_where_the_command_line_or_else_the_setting_says(
    site: Site,
    worker_process: StartWorker,
    tmp_path: Path,
    arguments: list[str],
    env: dict[str, str],
    code: str,
    in_the_worker_itself: bool,
) -> None:
    (tmp_path / "tasks.py").write_text(APP.format(more=code))
    worker = worker_process(tmp_path, "-Q", "q1", "-c", "1", *arguments, env={**site.env, **env})
    worker.wait_for("worker-ready")

    pid = site.app().send_task("tasks.where", queue="q1").get(timeout=30)

    assert in_the_worker_itself == (pid == worker.pid)
    assert f"1 ({'solo' if in_the_worker_itself else 'prefork'})" in worker.log()
    assert 0 == worker.stop()
    assert ["ready", "shutdown"] == (tmp_path / "notes").read_text().split()


def test_a_result_store_that_makes_no_sense_ends_the_worker_at_once(
    site: Site, worker_process: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text(APP.format(more=""))

    worker = worker_process(
        *(tmp_path, "-Q", "q1"), env={**site.env, "TASKQ_RESULT_BACKEND": "nosuch://me:secret@h"}
    )

    assert 3 == worker.wait()
    assert "result_backend 'nosuch://me:***@h' is of no known kind" in worker.log()
