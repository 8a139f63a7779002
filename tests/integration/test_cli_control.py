"""`taskq inspect`, `control` and `status`: workers of both kinds are asked, and where none is."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskq.control.commands import COMMANDS, VISIBLE
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.rabbit import Rabbit
from tests.support.shell import Screen, Shell
from tests.support.site import Site
from tests.support.wait import wait_until

#: Celery's app for its own worker; the broker's URL is in the environment.
CELERY_APP = """
import os
from celery import Celery

app = Celery("foreign", broker=os.environ["BROKER"], backend="rpc://")
app.conf.update(task_default_queue="foreign")

@app.task(name="foreign.add")
def add(x, y):
    return x + y
"""

#: Seconds that commands wait for answers: all that are asked are named, so this is how long a slow
#: machine may take, and not how long tests do.
PATIENCE = ("-t", "30")

#: The questions that need no arguments.
ASKED = [each.name for each in COMMANDS if each.kind == "inspect" and each.name != "query_task"]
ASKED = [name for name in ASKED if name in VISIBLE]

StartNode = Callable[[str], WorkerProcess]


@pytest.fixture
def start(site: Site, worker_process: StartWorker) -> StartNode:
    """Starts the worker that is called so; it takes from q1 and q2."""

    def start(name: str) -> WorkerProcess:
        worker = worker_process(APP, "-Q", "q1,q2", "-c", "1", "-n", f"{name}@here", env=site.env)
        worker.wait_for("worker-ready")
        return worker

    return start


@pytest.fixture
def shell(site: Site) -> Shell:
    return Shell(site.url)


@pytest.fixture
def foreign(rabbit: Rabbit, tmp_path: Path) -> Iterator[Shell]:
    """A shell where real Celery's worker celery@here is the only one."""
    (tmp_path / "foreign.py").write_text(CELERY_APP)
    shell = Shell(rabbit.url, tmp_path, BROKER=rabbit.url)
    log = tmp_path / "celery.log"
    worker = WorkerProcess(
        *(sys.executable, "-m", "celery", "-A", "foreign", "worker", "-n", "celery@here"),
        *("-c", "1", "-l", "INFO"),
        folder=tmp_path,
        env=shell.env,
        log=log,
    )
    try:
        wait_until(lambda: " ready." in worker.log(), "Celery's worker to be ready", timeout=60)
        yield shell
    finally:
        worker.end()


def test_inspect_alone_lists_what_can_be_asked(tmp_path: Path) -> None:
    listed = Shell("memory://", tmp_path).run("inspect").stdout

    assert "Tasks that children have in hand." in listed
    assert "hello" not in listed


def test_each_worker_answers_for_itself(shell: Shell, start: StartNode) -> None:
    start("w1")
    start("w2")

    both = shell.told("inspect", "ping", "-d", "w1@here,w2@here", *PATIENCE)
    one = shell.run("inspect", "ping", "-d", "w2@here", *PATIENCE).stdout

    assert {"w1@here", "w2@here"} == {each["node"] for each in both}
    assert [{"ok": "pong"}] * 2 == [each["reply"] for each in both]
    assert "w2@here: pong\n" == one


def test_a_pattern_chooses_workers(shell: Shell, start: StartNode) -> None:
    start("mail-1")
    start("web-1")

    answers = shell.told("inspect", "ping", "--pattern", "mail-*@*", "-t", "5")

    assert ["mail-1@here"] == [each["node"] for each in answers]


def test_what_runs_is_shown(site: Site, shell: Shell, start: StartNode, tmp_path: Path) -> None:
    start("w1")
    gate = tmp_path / "gate"
    task = site.app().send_task("tasks.act", args=("hold", str(gate)), queue="q1")

    def active() -> str:
        return shell.run("inspect", "active", "-d", "w1@here", *PATIENCE).stdout

    shown = wait_until(lambda: task.id in (seen := active()) and seen, "the task to be active")
    found = shell.run("inspect", "query-task", task.id, "-d", "w1@here", *PATIENCE).stdout
    status = shell.told("status", "-d", "w1@here", *PATIENCE)
    gate.touch()

    assert ["w1@here", "ID", task.id] == [line.split()[0] for line in shown.splitlines()]
    assert "tasks.act" in shown
    assert [task.id, "active", "tasks.act"] == found.splitlines()[2].split()[:3]
    assert (1, 1, ["q1", "q2"]) == tuple(status[0][key] for key in ("children", "active", "queues"))


def test_everything_that_can_be_asked_is_answered(shell: Shell, start: StartNode) -> None:
    start("w1")

    for command in ASKED:
        shown = shell.run("inspect", command, "-d", "w1@here", *PATIENCE).stdout
        assert shown.startswith("w1@here")


def test_the_status_is_one_line_for_each_worker(shell: Shell, start: StartNode) -> None:
    start("w1")
    start("w2")

    heads, first, second, _, summary = shell.run(
        "status", "-d", "w2@here,w1@here", *PATIENCE
    ).stdout.splitlines()

    assert ["NODE", "CHILDREN", "ACTIVE", "DONE", "UP", "LOAD", "QUEUES"] == heads.split()
    assert ["w1@here", "1", "0", "0"] == first.split()[:4]
    assert second.startswith("w2@here")
    assert second.endswith("q1, q2")
    assert summary.startswith("2 workers on ")


def test_a_paused_queue_and_a_drained_worker_are_seen(shell: Shell, start: StartNode) -> None:
    start("w1")
    at = ("-d", "w1@here", *PATIENCE)

    shell.run("control", "pause", "q1", *at)
    paused = shell.run("status", *at).stdout
    shell.run("control", "drain", *at)
    drained = shell.run("status", *at).stdout

    assert "q1 (paused), q2" in paused
    assert "none: it drains" in drained


def test_a_revoked_task_never_runs(site: Site, shell: Shell, start: StartNode) -> None:
    start("w1")

    revoked = shell.run("control", "revoke", "some-id", "other-id", "-d", "w1@here", *PATIENCE)
    result = site.app().send_task("tasks.add", args=(1, 1), queue="q1", task_id="some-id")

    assert "flagged as revoked" in revoked.stdout
    assert "REVOKED" == wait_until(lambda: result.ready() and result.state, "the result")


def test_who_is_revoked_before_there_is_a_worker_is_so_for_those_to_come(
    site: Site, shell: Shell, start: StartNode
) -> None:
    told = shell.run("control", "revoke", "some-id", "-t", "0.1")
    start("w1")

    listed = shell.told("inspect", "revoked", "-d", "w1@here", *PATIENCE)

    assert "Workers that start from now on obey." in told.stderr
    assert [["some-id"]] == [each["reply"] for each in listed]


def test_what_a_worker_refuses_is_told_and_makes_an_exit_code(
    shell: Shell, start: StartNode
) -> None:
    start("w1")
    words = ("control", "rate_limit", "no.such.task", "10/s", "-d", "w1@here", *PATIENCE)

    assert "w1@here: unknown task\n" == shell.run(*words, code=1).stdout
    assert [{"error": "unknown task"}] == [each["reply"] for each in shell.told(*words, code=1)]


def test_shutdown_ends_those_that_are_named(shell: Shell, start: StartNode) -> None:
    stays, goes = start("w1"), start("w2")

    told = shell.run("control", "shutdown", "-d", "w2@here", *PATIENCE).stdout

    assert "w2@here: told\n" == told
    assert 0 == goes.wait()
    assert stays.is_running


def test_no_worker_at_all_is_an_exit_code_of_its_own(site: Site, shell: Shell) -> None:
    masked = site.url.replace(":guest@", ":***@")

    for words in (["status"], ["inspect", "ping"], ["control", "pool_grow"], ["control", "drain"]):
        alone = shell.run(*words, "-t", "0.2", code=69)
        assert f"no worker answered within 0.2 s on {masked}" in alone.stderr
        assert ":guest@" not in alone.stderr
        assert "" == alone.stdout


def test_a_worker_that_does_not_answer_is_named_with_those_that_are_there(
    shell: Shell, start: StartNode
) -> None:
    start("w1")

    refused = shell.run("inspect", "ping", "-d", "w1@here,w9@here", "-t", "3", code=69)

    assert "w1@here: pong\n" == refused.stdout
    assert "w9@here did not answer within 3 s" in refused.stderr
    assert "these are there: w1@here" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspect", "activ"], "active"),
        (["control", "pool-grows"], "pool_grow"),
        (["inspct"], "inspect"),
        (["control", "rate_limit", "tasks.add", "often"], "10/s"),
        (["control", "terminate", "some-id", "--signal", "SIGNIX"], "signal"),
        (["control", "pool_grow", "many"], "integer"),
        (["inspect", "ping", "-d", "w1@here", "--pattern", "w*"], "not both"),
    ],
)
def test_what_is_misspelt_is_refused_with_what_may_be_meant(
    words: list[str], said: str, tmp_path: Path
) -> None:
    shell = Shell(f"sqlite:///{tmp_path}/taskq.db")

    assert said in shell.run(*words, code=2).stderr


def test_a_broker_that_is_away_is_named(tmp_path: Path) -> None:
    shell = Shell("amqp://guest:secret@127.0.0.1:1//", tmp_path, TASKQ_DECLARE_TIMEOUT="0.5")

    away = shell.run("inspect", "ping", "--broker", shell.env["TASKQ_BROKER_URL"], code=1)

    assert "amqp://guest:***@127.0.0.1:1//" in away.stderr


def test_celerys_own_worker_is_seen_and_steered(foreign: Shell) -> None:
    at = ("-d", "celery@here", "--broker", foreign.env["BROKER"], *PATIENCE)

    status = foreign.told("status", *at)
    limited = foreign.run("control", "rate_limit", "foreign.add", "10/m", *at).stdout
    registered = foreign.run("inspect", "registered", "rate_limit", *at).stdout
    stats = foreign.run("inspect", "stats", *at).stdout
    ended = foreign.run("control", "terminate", "some-id", *at).stdout
    grown = foreign.run("control", "pool_grow", "2", *at).stdout

    assert (1, 0, ["foreign"]) == tuple(status[0][key] for key in ("children", "active", "queues"))
    assert "celery@here: new rate limit set successfully\n" == limited
    assert "foreign.add [rate_limit=10/m]" in registered
    assert "max-concurrency" in stats
    assert "tasks unknown" in ended
    assert "pool will grow" in grown


def test_colours_are_for_terminals_alone_and_for_who_wants_them(
    shell: Shell, start: StartNode
) -> None:
    start("w1")
    words = ("status", "-d", "w1@here", *PATIENCE)

    _, shown = Screen(shell, *words).end()
    shell.env["NO_COLOR"] = "1"
    _, plain = Screen(shell, *words).end()

    assert "\x1b[1mNODE" in shown
    assert "\x1b[" not in plain


def test_on_a_terminal_tables_are_as_wide_as_that(site: Site, start: StartNode) -> None:
    start("a-worker-with-quite-a-long-name-on-a-host-with-a-long-name")

    shell = Shell(site.url, NO_COLOR="1")
    _, shown = Screen(shell, "status", "-t", "5", columns=60).end()

    assert "…" in shown
    assert max(map(len, shown.splitlines()[:2])) <= 60
