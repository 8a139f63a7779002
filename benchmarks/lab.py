"""The private servers that benchmarks run on, and a site on them for each single run.

RabbitMQ and Redis are the tests' own starters, on free loopback ports with their data in temporary
folders.  Every run gets a fresh vhost, so that no run finds anything of another.
"""

import compileall
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pika
import redis

from benchmarks import peers
from benchmarks.contenders import APPS, QUEUE, Contender, Place, Setup
from benchmarks.processes import Program
from benchmarks.watch import Watch
from tests.support.rabbit import RabbitNode
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until

#: The longest that one drain may take, in seconds: so many, and so many more in a full run.
_PATIENCE, _FULL_PATIENCE = 60.0, 840.0

#: The bench's own RabbitMQ differs from a fresh installation in nothing that is measured: this
#: takes back what tests make smaller.
_RABBIT = "raft.wal_max_size_bytes = 536870912\n"

#: Redis keeps nothing on disk, as its peers' documentation of result stores has it.
_REDIS = {"appendonly": "no"}

_ROOT = Path(__file__).parents[1]


class Lab:
    """Servers that are started when first wanted; *scale* shrinks every count.

    *say* is told what goes on.  *rabbit* may be a running node of somebody else's.
    """

    def __init__(
        self,
        scale: float = 1.0,
        say: Callable[[str], None] = lambda _: None,
        rabbit: RabbitNode | None = None,
    ) -> None:
        self.scale = scale
        self.say = say
        self._given = rabbit
        self._open = ExitStack()

    def __enter__(self) -> "Lab":
        # As pip leaves the peers, which it compiles whatever PYTHONDONTWRITEBYTECODE says.
        compileall.compile_dir(_ROOT / "taskq", quiet=2)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def count(self, full: int, least: int = 20) -> int:
        """*full*, or less of it in a quick run."""
        return max(int(full * self.scale), min(full, least))

    def seconds(self, full: float) -> float:
        """*full*, or less of it in a quick run, where half is still long."""
        return full * min(1.0, 5 * self.scale)

    def pause(self, full: float) -> None:
        """Wait so many seconds, or fewer in a quick run."""
        time.sleep(self.seconds(full))

    @property
    def patience(self) -> float:
        """The longest that anything may take, in seconds."""
        return _PATIENCE + _FULL_PATIENCE * self.scale

    @cached_property
    def rabbit(self) -> RabbitNode:
        """The RabbitMQ node, running."""
        if self._given is not None:
            return self._given
        node = RabbitNode(_RABBIT)
        self._open.callback(node.close)
        node.start()
        return node

    @cached_property
    def redis(self) -> RedisServer:
        """The Redis server, running."""
        server = RedisServer(_REDIS)
        self._open.callback(server.close)
        server.start()
        return server

    @cached_property
    def bare(self) -> str | None:
        """The path of the bare client (bare.c), compiled; None where there is no C compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            return None
        source = Path(__file__).with_name("bare.c")
        compiled = peers.STORE / "bare"
        peers.STORE.mkdir(parents=True, exist_ok=True)
        if not compiled.exists() or compiled.stat().st_mtime < source.stat().st_mtime:
            subprocess.run([compiler, "-O2", "-o", str(compiled), str(source)], check=True)
        return str(compiled)

    def versions(self) -> dict[str, str]:
        """The versions of the servers."""
        rabbit = self.rabbit.ctl("eval", "rabbit_misc:version().")
        with redis.Redis.from_url(self.redis.url) as client:
            return {
                "RabbitMQ": rabbit.strip().strip('"'),
                "Redis": client.info("server")["redis_version"],
            }

    @contextmanager
    def site(self, contender: Contender, setup: Setup | None = None) -> Iterator["Site"]:
        """A place of its own for one run of *contender*, removed afterwards."""
        with ExitStack() as leaving:
            folder = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="taskq-bench-")))
            place = Place("", "", folder) if contender.embedded else self._servers(folder, leaving)
            yield Site(self, contender, setup or Setup(), place)

    def _servers(self, folder: Path, leaving: ExitStack) -> Place:
        vhost = self.rabbit.fresh_vhost()
        leaving.callback(self.rabbit.ctl, "delete_vhost", vhost)
        with redis.Redis.from_url(self.redis.url) as client:
            client.flushall()
        return Place(self.rabbit.url(vhost), self.redis.url, folder, vhost)


@dataclass
class Site:
    """One contender on servers that hold nothing else."""

    lab: Lab
    contender: Contender
    setup: Setup
    place: Place
    _programs: int = 0

    @property
    def record(self) -> Path:
        """What tasks write down: see apps/work.py."""
        return self.place.folder / "record"

    def drive(self, command: str, **options: Any) -> dict[str, float]:
        """Have the contender's calls made by apps/drive.py, and return the figures."""
        python = peers.program("python") if self.contender.peer else sys.executable
        done = subprocess.run(
            [python, "drive.py", self.contender.module, command, json.dumps(options)],
            cwd=APPS,
            env=self._env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.contender.name} {command}: {done.stderr[-4000:]}")
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return figures

    def fill(self, count: int, task: str = "noop", size: int | None = None) -> dict[str, float]:
        """Send *count* calls, and return when all are in the queue."""
        figures = self.drive("fill", count=count, task=task, size=size)
        self.wait_filled(count)
        return figures

    def wait_filled(self, count: int) -> None:
        """Wait until there are *count* messages in the queue: not every library confirms them."""
        wait_until(lambda: self.ready() == count, f"{count} messages in {QUEUE}", timeout=60)

    def ready(self) -> int:
        """How many messages are ready in the queue."""
        with pika.BlockingConnection(pika.URLParameters(self.place.amqp)) as connection:
            declared = connection.channel().queue_declare(QUEUE, passive=True)
            return int(declared.method.message_count)

    def worker(self, *more: str) -> Program:
        """Start the contender's worker, with *more* options."""
        program, *options = self.contender.recipe(self.setup, self.place).worker
        start = [peers.program(program)] if self.contender.peer else [sys.executable, "-m", program]
        return self.program(*start, *options, *more)

    def recorded(self, count: int, worker: Program) -> float:
        """Wait until *count* tasks that write one byte each have run; how many a second did."""
        begun = first = 0.0
        deadline = time.monotonic() + self.lab.patience
        while (size := self._record_size()) < count:
            if size and not begun:
                begun, first = time.monotonic(), size
            worker.check()
            assert time.monotonic() < deadline, f"{size} of {count} tasks ran; {worker.log()}"
            time.sleep(0.005)
        return (count - first) / (time.monotonic() - begun)

    def _record_size(self) -> int:
        return self.record.stat().st_size if self.record.exists() else 0

    def lines(self, count: int, *workers: Program) -> list[str]:
        """What tasks wrote down, once there are *count* lines of it."""
        deadline = time.monotonic() + self.lab.patience
        while len(lines := self._lines()) < count:
            for worker in workers:
                worker.check()
            assert time.monotonic() < deadline, f"{len(lines)} of {count}; {workers[0].log()}"
            time.sleep(0.05)
        return lines

    def _lines(self) -> list[str]:
        return self.record.read_text().splitlines() if self.record.exists() else []

    def program(self, *command: str) -> Program:
        """Start any program at this site."""
        self._programs += 1
        log = self.place.folder / f"program-{self._programs}.log"
        return Program(command, folder=APPS, env=self._env(), log=log)

    def watch(self) -> Watch:
        """Begin to look at the queue."""
        self._programs += 1
        looks = self.place.folder / f"looks-{self._programs}"
        return Watch(
            self.lab.rabbit, self.place.vhost, QUEUE, file=looks, timeout=self.lab.patience
        )

    def _env(self) -> Mapping[str, str]:
        recipe = self.contender.recipe(self.setup, self.place)
        ours = {name: value for name, value in os.environ.items() if not name.startswith("TASKQ_")}
        if not self.contender.peer:
            ours["PYTHONPATH"] = str(_ROOT)
        return {
            **ours,
            **recipe.env,
            "BENCH_SETTINGS": json.dumps(recipe.settings),
            "BENCH_RECORD": str(self.record),
        }
