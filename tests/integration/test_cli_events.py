"""`taskq events`: what workers tell, line by line for pipes and programs, as a view for people."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.process import APP, StartWorker
from tests.support.shell import BOUND, Screen, Shell
from tests.support.site import Site


@pytest.fixture
def shell(site: Site) -> Shell:
    return Shell(site.url)


@pytest.fixture
def worker(site: Site, worker_process: StartWorker) -> None:
    """Tells of itself every tenth of a second, so that nobody waits long for what it tells."""
    env = site.env | {"TASKQ_WORKER_HEARTBEAT": "0.1"}
    worker_process(APP, "-Q", "q1", "-c", "1", "-n", "w1@here", "-E", env=env).wait_for(
        "worker-ready"
    )


Listen = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def listen(shell: Shell) -> Iterator[Listen]:
    """Starts `taskq events`, and waits for its first line."""
    started = []

    def listen(*words: str) -> "subprocess.Popen[str]":
        listening = shell.start("events", *words, process_group=0)
        started.append(listening)
        assert listening.stdout is not None
        assert listening.stdout.readline(), "there is no first line"
        return listening

    yield listen
    for listening in started:
        listening.kill()
        listening.communicate()


def until(listening: "subprocess.Popen[str]", text: str) -> list[str]:
    """The lines up to that with *text* in it."""
    assert listening.stdout is not None
    lines = []
    for line in listening.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"it ended without {text!r}: {lines}")


def test_each_event_is_a_line(site: Site, worker: None, listen: Listen) -> None:
    listening = listen()  # no terminal: as with --dump

    sent = site.app().send_task("tasks.add", args=(2, 3), queue="q1")
    lines = until(listening, "task-succeeded")

    (received,) = [line for line in lines if "task-received" in line]
    assert f" w1@here tasks.add[{sent.id}] args=(2, 3) kwargs={{}}" in received
    assert f" w1@here tasks.add[{sent.id}] result=5 runtime=" in lines[-1]
    assert any("worker-heartbeat   w1@here freq=0.1 active=" in line for line in lines)


def test_programs_read_one_object_a_line(site: Site, worker: None, listen: Listen) -> None:
    listening = listen("--json")

    sent = site.app().send_task("tasks.fail", args=("sorry",), queue="q1")
    last = json.loads(until(listening, "task-failed")[-1])

    assert ("task-failed", sent.id, "w1@here") == (last["type"], last["uuid"], last["hostname"])
    assert "ValueError('sorry')" == last["exception"]


def test_ctrl_c_is_a_good_end(worker: None, listen: Listen) -> None:
    listening = listen("--dump")

    listening.send_signal(signal.SIGINT)
    _, error = listening.communicate(timeout=BOUND)

    assert (0, "") == (listening.returncode, error)


def test_a_pipe_that_closes_ends_it(shell: Shell, worker: None, listen: Listen) -> None:
    listening = listen("--dump")
    assert listening.stdout is not None

    listening.stdout.close()

    listening.wait(BOUND)
    assert listening.stderr is not None
    assert "" == listening.stderr.read()


def test_on_a_terminal_there_is_a_view(site: Site, shell: Shell, worker: None) -> None:
    screen = Screen(shell, "events", "--freq", "0.1", columns=100)
    assert "w1@here" in screen.read_until("w1@here")

    sent = site.app().send_task("tasks.add", args=(2, 3), queue="q1")
    screen.read_until("SUCCESS")
    screen.interrupt()
    code, shown = screen.end()

    assert 0 == code
    last = shown.rpartition("\x1b[H\x1b[J")[2]
    assert "1 worker, " in last
    assert sent.id in shown
    assert "alive" in shown
