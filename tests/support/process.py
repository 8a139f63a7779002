"""The real `taskq worker` as a process: started, listened to, signalled, and ended without rest.

A worker tells its lifecycle events through a pipe (TASKQ_TEST_SIGNALS, see `taskq.log`), so that
tests wait for what happens instead of for time to pass.  What ran is in `tests.support.ledger`.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.ledger import Ledger
from tests.support.program import leashed
from tests.support.wait import wait_until

REPOSITORY = Path(__file__).parents[2]

#: A folder with a `tasks.py` whose tasks do what their arguments say.
APP = Path(__file__).parent / "app"

#: The workers that a test started, for the report of its failure.
_WORKERS = pytest.StashKey[list["WorkerProcess"]]()

#: How long children may outlive the worker's parent process, in seconds.
PATIENCE = 10.0

Event = dict[str, Any]


class WorkerProcess:
    """One `taskq worker` and everything it forks, in a session of their own.

    *command* runs in *folder* and prints into *log*; *env* is its whole environment.
    """

    def __init__(self, *command: str, folder: Path, env: Mapping[str, str], log: Path) -> None:
        self._command = command
        #: Every event so far, oldest first; written by the listening thread.
        self.events: list[Event] = []
        self._unclaimed: list[Event] = []
        self._hung_up = False
        self._news = threading.Condition()
        self._log = log
        hearing, telling = os.pipe()
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    leashed(*command),
                    cwd=folder,
                    env={**env, "TASKQ_TEST_SIGNALS": str(telling)},
                    pass_fds=[telling],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        finally:
            os.close(telling)
        self._listener = threading.Thread(target=self._listen, args=[hearing], daemon=True)
        self._listener.start()

    def __str__(self) -> str:
        return f"{' '.join(self._command)} (pid {self.pid})"

    @property
    def pid(self) -> int:
        """The process id of the worker's parent process."""
        return self._process.pid

    def log(self) -> str:
        """Everything the worker printed and logged."""
        return self._log.read_text(errors="replace")

    def wait_for(self, name: str, *, timeout: float = 30.0, **fields: Any) -> Event:
        """The first event *name* with these *fields* that no earlier call was given.

        AssertionError, with what was heard instead, after *timeout* seconds or when the worker
        has ended.
        """
        with self._news:
            self._news.wait_for(
                lambda: self._hung_up or self._find(name, fields) is not None, timeout
            )
            found = self._find(name, fields)
            if found is not None:
                self._unclaimed.remove(found)
                return found
            wanted = " ".join([name, *(f"{key}={value!r}" for key, value in fields.items())])
            why = "ended without" if self._hung_up else f"told in {timeout:g} s nothing of"
            heard = "\n".join(str(event) for event in self.events[-20:])
            raise AssertionError(f"{self} {why} {wanted}; its last events:\n{heard}")

    def _find(self, name: str, fields: Mapping[str, Any]) -> Event | None:
        wanted = {"event": name, **fields}.items()
        return next((event for event in self._unclaimed if wanted <= event.items()), None)

    def _listen(self, hearing: int) -> None:
        with open(hearing, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                event = _read_event(line)
                with self._news:
                    self.events.append(event)
                    self._unclaimed.append(event)
                    self._news.notify_all()
        with self._news:
            self._hung_up = True
            self._news.notify_all()

    @property
    def is_running(self) -> bool:
        """Whether the worker's parent process is still there."""
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send signal *number* to the parent process, and to it alone."""
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, timeout: float = 30.0) -> int:
        """Send signal *number*, wait for the end, and return the exit code."""
        self.send(number)
        return self.wait(timeout)

    def kill(self) -> int:
        """SIGKILL the parent process; its children must follow by themselves."""
        return self.stop(signal.SIGKILL)

    def wait(self, timeout: float = 30.0) -> int:
        """The exit code, once the worker has ended and left no process behind.

        AssertionError if it runs on for *timeout* seconds, or a process that it started does for
        PATIENCE more; either is killed first.
        """
        try:
            returned = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"{self} was still running after {timeout:g} s") from None
        try:
            wait_until(
                lambda: not self.family(), f"the children of {self} to end", timeout=PATIENCE
            )
        finally:
            self.end()
        return returned

    def family(self) -> list[int]:
        """The ids of all living processes of the worker's session (empty without a /proc)."""
        return [pid for pid in _processes() if _session(pid) == self.pid]

    def kill_nursery(self) -> None:
        """SIGKILL the process that forks the children."""
        for pid in self._nurseries():
            os.kill(pid, signal.SIGKILL)

    def children(self) -> list[int]:
        """The ids of the processes that the nursery forked and that live."""
        nurseries = self._nurseries()
        return [pid for pid in self.family() if _parent(pid) in nurseries]

    def _nurseries(self) -> list[int]:
        return [
            pid
            for pid in self.family()
            if _parent(pid) == self.pid
            if b"taskq.worker.nursery" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]

    def end(self) -> None:
        """SIGKILL whatever is left of the worker, and wait until it is gone.  Idempotent."""
        self._process.kill()
        wait_until(self._kill_family, f"SIGKILL to end {self}", timeout=10)
        self._process.wait()
        self._listener.join(timeout=10)

    def _kill_family(self) -> bool:
        """Whether there was nobody left to kill."""
        members = self.family()
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not members


def _read_event(line: str) -> Event:
    """The event of *line*; of one that was cut because it is very long, at least its name."""
    try:
        event: Event = json.loads(line)
    except ValueError:
        name = re.match(r'\{"event": "([\w-]+)"', line)
        return {"event": name[1] if name else "unreadable", "line": line}
    return event


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


def _session(pid: int) -> int | None:
    """The session of a process, None if it has ended (a zombie has)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, _parent, _group, session = stat.rpartition(")")[2].split()[:4]
    return None if state in "ZX" else int(session)


def _parent(pid: int) -> int | None:
    """The process id of the parent of *pid*, None if *pid* is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


class StartWorker(Protocol):
    """What the fixture `worker_process` hands out."""

    def __call__(
        self, folder: Path, *arguments: str, env: Mapping[str, str] | None = None
    ) -> WorkerProcess:
        """Start `taskq worker *arguments*` in *folder*, with *env* added to the environment."""


@pytest.fixture
def worker_process(
    request: pytest.FixtureRequest, tmp_path: Path, ledger: Ledger
) -> Iterator[StartWorker]:
    """Starts workers; those still running at the end of the test are stopped, and must obey.

    Of the TASKQ_* variables they see only what the test gives, and where its ledger is.
    """
    workers = request.node.stash.setdefault(_WORKERS, [])

    def start(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> WorkerProcess:
        worker = WorkerProcess(
            *(sys.executable, "-m", "taskq", "worker", *arguments),
            folder=folder,
            env={**_environment(), **ledger.env, **(env or {})},
            log=tmp_path / f"worker-{len(workers) + 1}.log",
        )
        workers.append(worker)
        return worker

    try:
        yield start
        for worker in workers:
            if worker.is_running:
                worker.send(signal.SIGTERM)
        for worker in workers:
            if worker.is_running:
                worker.stop()  # a second signal: it need not finish what it runs
    finally:
        for worker in workers:
            worker.end()


def _environment() -> dict[str, str]:
    ours = {key: value for key, value in os.environ.items() if not key.startswith("TASKQ_")}
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [ours.get("PYTHONPATH")])])
    return ours | {"PYTHONPATH": path}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    """A failed test shows the log of each worker that it started."""
    report: pytest.TestReport = yield  # type: ignore[misc]
    if report.failed:
        for worker in item.stash.get(_WORKERS, []):
            report.sections.append((f"Log of {worker}", worker.log()))
    return report
