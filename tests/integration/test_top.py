"""`taskq top` on real fleets: one frame as text, and the live screen on a terminal of its own."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from taskq.cli.top import top
from tests.docs.pages import page
from tests.support.process import APP, REPOSITORY, StartWorker, WorkerProcess
from tests.support.program import leashed
from tests.support.site import Site
from tests.support.wait import wait_until

#: Seconds within which anything shows on the screen.
BOUND = 60

#: The program that a shell is to its jobs: it gives the terminal to the command of its arguments.
LEADER = """
import fcntl, os, signal, subprocess, sys, termios

def front():
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
sys.exit(subprocess.Popen(sys.argv[1:], preexec_fn=front).wait())
"""

TOP = (sys.executable, "-m", "taskq", "top")


def environment(url: str, **more: str) -> dict[str, str]:
    ours = {key: value for key, value in os.environ.items() if not key.startswith("TASKQ_")}
    ours |= {"PYTHONPATH": str(REPOSITORY), "TASKQ_BROKER_URL": url, "TERM": "xterm"}
    return {**ours, "COLUMNS": "120", "TASKQ_TASK_QUEUES": '["q1", "q2"]', **more}


def start(site: Site, worker_process: StartWorker, *arguments: str) -> WorkerProcess:
    worker = worker_process(APP, "-Q", "q1", "-c", "2", "-n", "w1@here", *arguments, env=site.env)
    worker.wait_for("worker-ready")
    return worker


def once(url: str, *arguments: str) -> str:
    done = subprocess.run(
        leashed(*TOP, *arguments),
        cwd=APP,
        env=environment(url),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def table(text: str, heading: str) -> list[dict[str, str]]:
    """The lines of the table in *text* whose first heading is *heading*."""
    lines = text.splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.split()[:1] == [heading]]
    headings = lines[at].split()
    rows = []
    for line in lines[at + 1 :]:
        if not line.strip():
            break
        rows.append(dict(zip(headings, line.split(), strict=False)))
    return rows


class Terminal:
    """`taskq top` on a terminal of its own; what it draws is gathered by a thread."""

    def __init__(self, url: str, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        env = environment(url)
        del env["COLUMNS"]
        self.process = subprocess.Popen(
            leashed(sys.executable, "-c", LEADER, *leashed(*TOP, *arguments)),
            cwd=APP,
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        self._drawn = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while read := os.read(self.ours, 65536):
                self._drawn += read

    @property
    def pid(self) -> int:
        """The process id of `taskq top`."""
        leader = self.process.pid
        return int(Path(f"/proc/{leader}/task/{leader}/children").read_text())

    def text(self, since: int = 0) -> str:
        """All that was drawn, without colours and movements."""
        drawn = bytes(self._drawn[since:]).decode(errors="replace")
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn)

    def press(self, keys: str) -> int:
        """Press *keys*; where the drawing is by then."""
        mark = len(self._drawn)
        os.write(self.ours, keys.encode())
        return mark

    def until(self, pattern: str, since: int = 0) -> str:
        """Wait until something like *pattern* is drawn."""

        def found() -> str:
            assert self.process.poll() is None, self.text()
            text = self.text(since)
            return text if re.search(pattern, text, re.DOTALL) else ""

        return wait_until(found, f"{pattern!r} on the screen", timeout=BOUND)

    def mode(self) -> list[Any]:
        """The settings of the terminal."""
        return termios.tcgetattr(self._theirs)

    def leave(self) -> int:
        """Wait for the end; the exit code."""
        return self.process.wait(BOUND)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._theirs)
        self._thread.join(10)
        os.close(self.ours)


@pytest.fixture
def terminal(site: Site) -> Iterator[Terminal]:
    terminal = Terminal(site.url, "-i", "0.5")
    yield terminal
    terminal.close()


sqlite_only = pytest.mark.parametrize("site", ["sqlite"], indirect=True)


def test_one_frame_shows_workers_queues_and_tasks(site: Site, worker_process: StartWorker) -> None:
    worker = start(site, worker_process)
    app = site.app()
    waiting = app.send_task("tasks.add", args=(1, 1), queue="q2")
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.05):
            app.send_task("tasks.add", args=(1, 1), queue="q1")
            app.send_task("tasks.fail", args=("no",), queue="q1")

    sender = threading.Thread(target=send)
    sender.start()
    try:
        text = once(site.url)
    finally:
        over.set()
        sender.join()

    assert re.match(r"taskq top  1 worker  [\d.]+ tasks/s  \S+\n", text), text
    assert "guest:guest" not in text
    assert "events of tasks enabled on w1@here, until this ends" in text
    (shown,) = table(text, "WORKER")
    assert ("w1@here", "online", "2") == (shown["WORKER"], shown["STATE"], shown["CHILDREN"])
    queues = {row["QUEUE"]: row for row in table(text, "QUEUE")}
    assert ("1", "open") == (queues["q2"]["READY"], queues["q2"]["STATE"])
    assert int(queues["q1"]["DEAD"]) > 0
    tasks = {row["TASK"]: row for row in table(text, "TASK")}
    assert int(tasks["tasks.add"]["DONE"]) > 0 == int(tasks["tasks.add"]["FAILED"])
    assert int(tasks["tasks.fail"]["FAILED"]) > 0 == int(tasks["tasks.fail"]["DONE"])
    assert tasks["tasks.add"]["P95"].endswith("s")
    latest = table(text, "ID")
    assert {"SUCCESS", "FAILURE"} <= {row["STATE"] for row in latest}
    assert {"w1@here"} == {row["WORKER"] for row in latest}
    # It leaves the worker as it was.
    worker.wait_for("control-command", command="disable_events")
    assert waiting.state == "PENDING"


@sqlite_only
def test_workers_that_send_no_events_are_left_alone_if_that_is_wished(
    site: Site, worker_process: StartWorker
) -> None:
    worker = start(site, worker_process)

    text = once(site.url, "--once", "--no-enable-events", "-i", "0.2")

    assert "w1@here" in text
    assert "enabled" not in text
    assert not [each for each in worker.events if each.get("command") == "enable_events"]


@sqlite_only
def test_without_workers_there_is_a_frame_all_the_same(site: Site) -> None:
    text = once(site.url, "-Q", "q2,strange", "-i", "0.2")

    assert "0 workers" in text
    assert ["q2", "strange"] == [row["QUEUE"] for row in table(text, "QUEUE")]


def test_the_screen_lives_and_its_keys_steer(
    site: Site, worker_process: StartWorker, terminal: Terminal, tmp_path: Path
) -> None:
    start(site, worker_process, "-E")
    app = site.app(task_send_sent_event=True)
    gate = tmp_path / "gate"
    held = [app.send_task("tasks.act", args=("hold", str(gate)), queue="q1") for _ in range(2)]
    terminal.until(r"tasks\.act +STARTED")
    waiting = app.send_task("tasks.add", args=(1, 1), queue="q1")
    terminal.until(r"w1@here +online +2 +2")
    terminal.until(rf"{waiting.id} +tasks\.add +PENDING")

    terminal.press("/tasks.add\r")
    mark = terminal.press("5")
    terminal.until(rf"only lines with 'tasks.add'.*{waiting.id}|{waiting.id}.*only lines", mark)
    mark = terminal.press("x")
    terminal.until(r"revoke tasks\.add\[\S+\]\? y/n", mark)
    terminal.press("y")
    terminal.press("\x1b")
    terminal.until(rf"{waiting.id} revoked")

    mark = terminal.press("3")
    terminal.until(r"q1 +open", mark)
    mark = terminal.press("p")
    terminal.until(r"pause queue q1 on all workers\? y/n", mark)
    mark = terminal.press("y")
    terminal.until(r"q1 +paused +\d", mark)
    gate.touch()
    for each in held:
        each.get(timeout=30)
    late = app.send_task("tasks.add", args=(2, 2), queue="q1")
    terminal.press("p")
    mark = terminal.press("y")
    terminal.until(r"q1 +open +\d", mark)
    assert 4 == late.get(timeout=30)
    terminal.press("q")

    assert 0 == terminal.leave(), terminal.text()
    assert terminal.before == terminal.mode()
    wait_until(lambda: waiting.state == "REVOKED", "the task to be revoked")


@sqlite_only
@pytest.mark.parametrize(
    ("end", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 0)]
)
def test_the_terminal_is_put_back_however_it_ends(
    terminal: Terminal, end: signal.Signals, code: int
) -> None:
    terminal.until("0 workers")
    assert terminal.before != terminal.mode()

    if end == signal.SIGINT:
        terminal.press("\x03")
    else:
        os.kill(terminal.pid, end)

    assert code == terminal.leave(), terminal.text()
    assert terminal.before == terminal.mode()
    assert "Traceback" not in terminal.text()
    assert b"\x1b[?1049l" in terminal._drawn  # the screen that was there before is seen again


@sqlite_only
def test_it_can_be_suspended_and_goes_on(terminal: Terminal) -> None:
    terminal.until("0 workers")

    terminal.press("\x1a")
    stopped = f"/proc/{terminal.pid}/stat"
    wait_until(lambda: ") T " in Path(stopped).read_text(), "the stop")
    assert terminal.before == terminal.mode()
    mark = len(terminal._drawn)
    os.killpg(terminal.pid, signal.SIGCONT)
    terminal.until("0 workers", mark)
    terminal.press("?")
    terminal.until("pause the chosen queue")
    terminal.press("qq")

    assert 0 == terminal.leave()


@sqlite_only
def test_without_rich_it_says_what_to_install(site: Site, tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError('no rich here')")

    done = subprocess.run(
        TOP,
        cwd=APP,
        env=environment(site.url, PYTHONPATH=f"{tmp_path}{os.pathsep}{REPOSITORY}"),
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )

    assert 3 == done.returncode
    assert "pip install 'taskq[top]'" in done.stderr


def test_a_broker_that_is_away_is_told_below() -> None:
    text = once("amqp://guest:secret@127.0.0.1:1//", "-i", "0.2")

    assert "Connection refused" in text
    assert "secret" not in text


def test_every_option_and_key_stands_in_its_page() -> None:
    text = page("top")
    options = {
        name for param in top.params if isinstance(param, click.Option) for name in param.opts
    }

    assert options == set(re.findall(r"`(--?[\w-]+)`", text))
    for key in ("s", "r", "/", "x", "p", "q", "?"):
        assert f"| `{key}` |" in text
