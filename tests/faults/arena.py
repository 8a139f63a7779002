"""Where faults happen: workers and a steady producer on one broker, and the account at the end."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from taskq.wire.message import Message
from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.site import Site
from tests.support.wait import wait_until

PRODUCER = Path(__file__).parents[1] / "support" / "programs" / "steady.py"

#: How many times as much as in `make test` is done.
SCALE = int(os.environ.get("TASKQ_TEST_SCALE", "1"))

#: Tasks of one run.
COUNT = 2000 * SCALE

#: Seconds that one run may take.
PATIENCE = 60.0 * SCALE

#: Calls that a producer makes at once, one in each of its threads.
AT_ONCE = 8

#: Messages that a worker may hold unsettled.
WINDOW = 16


class Account(NamedTuple):
    """How many tasks ended in which way, in one run."""

    #: Calls that returned, those that nobody knows of, and those that certainly failed.
    sent: int
    unknown: int = 0
    refused: int = 0
    #: Where the tasks were found at the end.
    done: int = 0
    dead: int = 0
    queued: int = 0
    #: Those that went with a queue which an operator deleted.
    deleted: int = 0
    #: Runs that were not the first of their task.
    again: int = 0


class Tally(Protocol):
    """Keeps the account of a test for the table that ends a long run (see `conftest`)."""

    def __call__(self, account: Account) -> None:
        """Keep *account*."""


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Tally:
    """Keeps this test's account."""
    return lambda account: record_property("account", tuple(account))


class Flood:
    """A running producer (`steady.py`): *outcomes* tells of each id what became of its call."""

    def __init__(self, command: Sequence[str], file: Path, env: Mapping[str, str]) -> None:
        self._file = file
        file.touch()
        self._process = subprocess.Popen(
            [*command, str(file)], env=os.environ | env, stdin=subprocess.DEVNULL
        )

    @property
    def pid(self) -> int:
        """The process id of the producer."""
        return self._process.pid

    def outcomes(self) -> dict[str, str]:
        return dict(line.split() for line in self._file.read_text().splitlines(keepends=True))

    def ids(self, outcome: str) -> set[str]:
        return {task_id for task_id, known in self.outcomes().items() if known == outcome}

    def wait_for(self, count: int) -> None:
        """Wait until *count* calls have ended."""
        wait_until(lambda: len(self.outcomes()) >= count, f"{count} calls", timeout=PATIENCE)

    def finish(self) -> None:
        """Wait until all calls were made and each has an outcome."""
        assert 0 == self._process.wait(PATIENCE)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


class Arena:
    """One broker, its workers, and one queue `q1`."""

    def __init__(
        self, site: Site, start: StartWorker, ledger: Ledger, folder: Path, tally: Tally
    ) -> None:
        self.site = site
        self.ledger = ledger
        self._start = start
        self._folder = folder
        self._tally = tally
        self._floods: list[Flood] = []
        self.workers: list[WorkerProcess] = []

    def worker(self, url: str | None = None, **env: str) -> WorkerProcess:
        """A worker of `q1` with two children, once it is ready; *env* are TASKQ_ settings."""
        worker = self._start(
            *(APP, "-Q", "q1", "-c", "2", "--prefetch", str(WINDOW), "-l", "warning"),
            env={"TASKQ_BROKER_URL": url or self.site.url, **env},
        )
        worker.wait_for("worker-ready")
        self.workers.append(worker)
        return worker

    def flood(
        self,
        *,
        count: int = COUNT,
        seconds: float = 0.001,
        pause: float = 0.0,
        url: str | None = None,
        **env: str,
    ) -> Flood:
        """A producer that makes *count* calls of a task that takes *seconds*.

        Each of its threads sleeps *pause* seconds after each call, so that it has not ended before
        the faults have come.
        """
        numbers = map(str, (count, AT_ONCE, pause, seconds))
        command = [sys.executable, str(PRODUCER), url or self.site.url, "q1", *numbers]
        self._floods.append(Flood(command, self._folder / f"outcomes-{len(self._floods)}", env))
        return self._floods[-1]

    def done(self, count: int) -> None:
        """Wait until *count* tasks have come to their end."""
        self.ledger.wait_for(count, timeout=PATIENCE)

    def balance(self, *, repeats: int, deleted: int = 0) -> None:
        """Let all calls and tasks end, stop the workers, and balance the account.

        No more than *repeats* runs may be second ones.  So many tasks as an operator *deleted* may
        be missing.
        """
        for flood in self._floods:
            flood.finish()
        confirmed, unknown = self._ids("confirmed"), self._ids("unknown")
        wait_until(
            lambda: len(self._missing(confirmed)) <= deleted + self.site.count("q1.dead"),
            "all tasks to end",
            timeout=PATIENCE,
        )
        for worker in self.workers:
            if worker.is_running:
                assert 0 == worker.stop(), worker.log()
        dead, queued = self._take("q1.dead"), self._take("q1")
        gone = self._missing(confirmed).difference(dead, queued) if deleted else set()
        assert len(gone) <= deleted
        assert_conserved(confirmed - gone, self.ledger, dead=dead, queued=queued, unknown=unknown)
        found = self.ledger.repeats()
        account = Account(
            sent=len(confirmed),
            unknown=len(unknown),
            refused=len(self._ids("refused")),
            done=len(set(self.ledger.ids())),
            dead=len(dead),
            queued=len(queued),
            deleted=len(gone),
            again=found,
        )
        print(account)
        self._tally(account)
        assert found <= repeats

    def _ids(self, outcome: str) -> set[str]:
        return {task_id for flood in self._floods for task_id in flood.ids(outcome)}

    def _missing(self, confirmed: set[str]) -> set[str]:
        return confirmed.difference(self.ledger.ids())

    def _take(self, queue: str) -> list[str]:
        """The ids of all that stands in *queue*, for good."""
        return [_id(message) for message in self.site.take(queue, self.site.count(queue))]

    def close(self) -> None:
        for flood in self._floods:
            flood.end()
        for app in self.site.apps:
            app.close()


def _id(message: Message) -> str:
    return str(message.headers["id"])


#: Makes an arena on a broker.
MakeArena = Callable[[Site], Arena]


@pytest.fixture
def arena_on(
    worker_process: StartWorker, ledger: Ledger, tmp_path: Path, tally: Tally
) -> Iterator[MakeArena]:
    arenas: list[Arena] = []

    def make(site: Site) -> Arena:
        arenas.append(Arena(site, worker_process, ledger, tmp_path, tally))
        return arenas[-1]

    yield make
    for arena in arenas:
        arena.close()


@pytest.fixture
def arena(arena_on: MakeArena, site: Site) -> Arena:
    """An arena on the embedded broker, then on RabbitMQ."""
    return arena_on(site)
