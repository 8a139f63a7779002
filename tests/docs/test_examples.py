"""The examples and the demo are run as anybody runs them, and must say what they are to say."""

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.docs.pages import ROOT
from tests.support.ports import free_port
from tests.support.process import StartWorker
from tests.support.rabbit import Rabbit
from tests.support.site import Site
from tests.support.wait import wait_until

#: Seconds that one example may take.
BOUND = 60

EXAMPLES = ROOT / "examples"


class Stage:
    """Where programs run: each process that comes of them carries a mark, by which it is found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mark = f"TASKQ_TEST_STAGE={uuid.uuid4()}"
        ours = {key: value for key, value in os.environ.items() if not key.startswith("TASKQ_")}
        name, _, value = self._mark.partition("=")
        self.env = ours | {name: value, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}

    def run(self, *command: str, expect: int = 0) -> str:
        """What the Python program *command* prints; it must end with *expect*, and alone."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )
        assert expect == done.returncode, done.stdout + done.stderr
        assert [] == self.living()
        return done.stdout + (done.stderr if expect else "")

    def living(self) -> list[int]:
        """The processes that carry the mark (none where there is no /proc)."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                pass  # it has ended, or is somebody else's
        return found

    def clear(self) -> bool:
        """Kill whoever is left; whether there was nobody."""
        left = self.living()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return not left


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    wait_until(stage.clear, "the programs of the test to end")


@pytest.fixture
def played(stage: Stage, site: Site) -> Stage:
    """The stage on the embedded broker (as the examples choose it), then on RabbitMQ."""
    if site.url.startswith("amqp"):
        stage.env |= site.env
    return stage


def example(stage: Stage, name: str) -> list[str]:
    return stage.run(str(EXAMPLES / "run.py"), name).splitlines()


def test_quickstart(played: Stage) -> None:
    assert [
        "2 + 3 = 5",
        "doubled: [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]",
        "1 / 0 : division by zero",
    ] == example(played, "quickstart")


def test_a_program_without_the_tasks_code_calls_them_by_name(played: Stage) -> None:
    good, bad = example(played, "by_name")

    assert "tasks.add: 42" == good
    assert "missing 1 required positional argument" in bad


def test_a_program_without_taskq_sends_a_task(stage: Stage, rabbit: Rabbit) -> None:
    stage.env["TASKQ_BROKER_URL"] = rabbit.url

    sent, answer = example(stage, "plain_pika")

    assert sent.startswith("sent ")
    assert "SUCCESS 5" == answer


def test_the_program_without_taskq_says_that_it_needs_rabbitmq(stage: Stage) -> None:
    said = stage.run(str(EXAMPLES / "run.py"), "plain_pika", expect=1)

    assert "TASKQ_BROKER_URL" in said


def test_two_queues_have_workers_of_their_own(played: Stage) -> None:
    lines = example(played, "two_queues")

    assert 5 == sum(bool(re.match(r"thumbnail \d.png by fast@", line)) for line in lines)
    assert 3 == sum(bool(re.match(r"report \w+ by slow@", line)) for line in lines)


def test_a_web_service_hands_its_work_on(played: Stage) -> None:
    assert [f"200 {n}.png at 100 pixels" for n in range(20)] == example(played, "web")


def test_the_web_service_can_be_served(
    stage: Stage, tmp_path: Path, worker_process: StartWorker
) -> None:
    url = f"sqlite:///{tmp_path}/taskq.db"
    worker_process(EXAMPLES / "web", "-c", "2", env={"TASKQ_BROKER_URL": url})
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "service:service", "--port", str(port)],
        cwd=EXAMPLES / "web",
        env=stage.env | {"TASKQ_BROKER_URL": url},
        stderr=subprocess.DEVNULL,
    )

    def answer() -> httpx.Response | None:
        try:
            return httpx.post(f"http://127.0.0.1:{port}/pictures/a.png?width=9", timeout=BOUND)
        except httpx.ConnectError:
            return None

    try:
        response = wait_until(answer, "the service to answer")
    finally:
        server.terminate()
        server.wait(BOUND)

    assert response is not None
    assert {"picture": "a.png at 9 pixels"} == response.json()


def test_retries(played: Stage) -> None:
    assert [
        "index.html after 3 retries",
        "given up: the bank does not answer about 100",
    ] == example(played, "retry")


def test_without_a_name_the_examples_are_listed(stage: Stage) -> None:
    listed = stage.run(str(EXAMPLES / "run.py"), expect=1)

    folders = {path.parent.name for path in EXAMPLES.glob("*/call.py")}

    assert folders == set(listed.splitlines()) & folders


def test_every_example_begins_with_the_command_that_runs_it() -> None:
    for call in EXAMPLES.glob("*/call.py"):
        first = call.read_text().splitlines()[0]
        assert first.startswith(f'"""python examples/run.py {call.parent.name}: ')


def test_the_demo_counts_and_shows_what_it_counted(played: Stage) -> None:
    said = played.run(str(EXAMPLES / "demo.py"), "--files", "60")

    assert "sent 60 tasks" in said
    assert "slowest files" in said
    assert "in all 60 files" in said
    assert ":***@" in said or "sqlite:///" in said


@pytest.mark.parametrize("moment", ["files of Python", "counting"])
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_leaves_nothing_of_the_demo(played: Stage, moment: str, presses: int) -> None:
    output = played.folder / "output"
    with output.open("wb") as file:
        demo = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "demo.py")],
            env=played.env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    wait_until(lambda: moment in output.read_text(), f"{moment!r} on the demo's screen")

    for _ in range(presses):  # as a terminal does it: to the whole foreground group
        os.killpg(demo.pid, signal.SIGINT)

    # The second press may meet a program that is ending already, and end it the faster: click, of
    # which it is a command, makes 1 of that.
    expected = {130} if presses == 1 else {130, 1, -signal.SIGINT}
    assert demo.wait(BOUND) in expected, output.read_text()
    wait_until(lambda: not played.living(), "the demo's processes to end", timeout=10)
    assert [] == list(played.folder.glob("taskq-demo-*"))
