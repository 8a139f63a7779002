"""`taskq call` and `taskq result`: tasks are sent, and followed, from a shell."""

import json
from pathlib import Path

import pytest

from tests.support.ledger import Ledger
from tests.support.process import APP, StartWorker
from tests.support.rabbit import Rabbit
from tests.support.shell import Screen, Shell
from tests.support.site import Site


@pytest.fixture
def shell(site: Site) -> Shell:
    return Shell(site.url)


@pytest.fixture
def stored(tmp_path: Path) -> Shell:
    """With a store that every process can read."""
    return Shell(f"sqlite:///{tmp_path}/taskq.db")


@pytest.fixture
def worker(site: Site, worker_process: StartWorker) -> None:
    worker_process(APP, "-c", "1", env=site.env).wait_for("worker-ready")


@pytest.fixture
def its_worker(stored: Shell, worker_process: StartWorker) -> None:
    url = stored.env["TASKQ_BROKER_URL"]
    worker_process(APP, "-c", "1", env={"TASKQ_BROKER_URL": url}).wait_for("worker-ready")


def test_a_call_that_waits_prints_what_the_task_returned(shell: Shell, worker: None) -> None:
    called = shell.run("call", "tasks.add", "--args", "[2, 3]", "--wait", "30")

    assert "5\n" == called.stdout
    assert 36 == len(called.stderr.strip())  # the id


def test_a_call_that_waits_tells_programs_everything(shell: Shell, worker: None) -> None:
    (good,) = shell.told("call", "tasks.add", "--kwargs", '{"x": 2, "y": 3}', "--wait", "30")
    (bad,) = shell.told("call", "tasks.fail", "--args", '["sorry"]', "--wait", "30", code=4)

    assert ("SUCCESS", 5, None) == (good["state"], good["result"], good["error"])
    assert ("FAILURE", None, "ValueError: sorry") == (bad["state"], bad["result"], bad["error"])
    assert "Traceback" in bad["traceback"]


def test_a_failure_is_told_beside_standard_output(shell: Shell, worker: None) -> None:
    words = ("call", "tasks.fail", "--args", '["sorry"]', "--wait", "30", "--traceback")

    called = shell.run(*words, code=4)

    assert "" == called.stdout
    assert "FAILURE ValueError: sorry" in called.stderr
    assert "raise ValueError(text)" in called.stderr


def test_what_expired_has_an_exit_code_of_its_own(shell: Shell, worker: None) -> None:
    called = shell.run(
        *("call", "tasks.add", "--args", "[2, 3]", "--wait", "30"),
        *("--expires", "2001-01-01T00:00+00:00"),
        code=5,
    )

    assert "REVOKED" in called.stderr


def test_a_call_prints_the_id_and_options_are_those_of_the_message(
    site: Site, shell: Shell
) -> None:
    words = ("--queue", "q7", "--priority", "3", "--id", "my-own", "--time-limit", "1m30s")

    called = shell.run("call", "tasks.add", "--args", "[2, 3]", *words)
    (message,) = site.take("q7", 1)

    assert "my-own\n" == called.stdout
    assert ("my-own", [90.0, None]) == (message.headers["id"], message.headers["timelimit"])
    assert [2, 3] == json.loads(message.body)[0]
    assert 3 == message.properties.priority


def test_with_a_broker_alone_any_task_can_be_called(site: Site, tmp_path: Path) -> None:
    nowhere = Shell("memory://", tmp_path)

    nowhere.run("call", "somebody.elses", "--broker", site.url, "--queue", "q7")

    assert "somebody.elses" == site.take("q7", 1)[0].headers["task"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["tasks.ad"], 1, "did you mean 'tasks.add'?"),
        (["tasks.add", "--args", "[2]"], 2, "missing a required argument: 'y'"),
        (["tasks.add", "--args", "2, 3"], 2, "is no JSON"),
        (["tasks.add", "--args", "{}"], 2, "is no JSON list"),
        (["tasks.add", "--kwargs", "[]"], 2, "is no JSON object"),
        (["tasks.add", "--args", "[2, 3]", "--eta", "soon"], 2, "is no moment"),
        (["tasks.add", "--args", "[2, 3]", "--priority", "300"], 2, "0<=x<=255"),
        (["tasks.add", "--args", "[2, 3]", "--broker", "nix://", "-A", "tasks"], 2, "not both"),
        (["tasks.add", "--args", "[2, 3]", "-A", "nowhere"], 3, "cannot be imported"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(
    stored: Shell, words: list[str], code: int, said: str
) -> None:
    refused = stored.run("call", *words, code=code)

    assert said in refused.stderr
    assert "" == refused.stdout


def test_foreign_sends_what_the_app_does_not_know(site: Site, shell: Shell) -> None:
    shell.run("call", "tasks.nobody", "--foreign", "--queue", "q7")

    assert "tasks.nobody" == site.take("q7", 1)[0].headers["task"]


def test_a_result_is_there_for_every_process(stored: Shell, its_worker: None) -> None:
    (sent,) = stored.told("call", "tasks.add", "--args", "[2, 3]", "--wait", "30")

    assert "5\n" == stored.run("result", sent["id"]).stdout


def test_following_tells_each_state_until_the_end(
    stored: Shell, its_worker: None, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    task = stored.run("call", "tasks.report", "--args", json.dumps([str(gate)])).stdout.strip()

    following = stored.start("result", task, "--follow", "--json")
    assert following.stdout is not None
    on_the_way = json.loads(following.stdout.readline())
    gate.touch()
    out, _ = following.communicate(timeout=60)

    assert ("PROGRESS", {"done": 1, "of": 2}) == (on_the_way["state"], on_the_way["result"])
    last = json.loads(out.splitlines()[-1])
    assert ("SUCCESS", "ready") == (last["state"], last["result"])
    assert 0 == following.returncode


def test_what_does_not_end_in_time_has_an_exit_code_of_its_own(stored: Shell) -> None:
    task = stored.run("call", "tasks.add", "--args", "[2, 3]").stdout.strip()

    waited = stored.run("result", task, "--follow", "--timeout", "0.1", code=6)

    assert "" == waited.stdout
    assert "PENDING" in waited.stderr


def test_the_result_of_a_task_sent_elsewhere_over_rpc_cannot_be_read(rabbit: Rabbit) -> None:
    refused = Shell(rabbit.url).run("result", "some-id", code=3)

    assert "rpc" in refused.stderr


def test_a_result_has_no_power_over_the_terminal(
    stored: Shell, its_worker: None, ledger: Ledger
) -> None:
    call = ("call", "tasks.act", "--args", '["ok", "a\\u001b[31mb"]', "--wait", "30")

    code, shown = Screen(stored, *call).end()

    assert 0 == code
    assert "a\\x1b[31mb" in shown
    assert "a\x1b[31mb\n" == stored.run(*call).stdout  # for a pipe it is what it is
