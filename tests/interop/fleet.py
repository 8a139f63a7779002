"""A fleet on one RabbitMQ: workers of taskq and one of Celery's, and Flower, as real processes.

Each worker takes from a queue of its own, which has the worker's short name.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from celery import Celery

from taskq import TaskQ
from tests.support.ports import free_port
from tests.support.process import WorkerProcess, _environment
from tests.support.rabbit import RabbitNode
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until

SHOP = Path(__file__).parents[1] / "support/shop"

#: The short name of Celery's own worker, beside which the others are held.
THEIRS = "celery"
OURS = ("one", "two", "three")
ALL = (*OURS, THEIRS)


def node(name: str) -> str:
    """The node name of the worker *name*."""
    return f"{name}@fleet"


class Fleet:
    """The workers by short name, and ways to give them work and orders."""

    def __init__(self, broker: RabbitNode, results: RedisServer, folder: Path) -> None:
        self.broker = broker
        self.folder = folder
        self.url = broker.url(broker.fresh_vhost())
        self.env = {
            **_environment(),
            "SHOP_BROKER": self.url,
            "SHOP_RESULTS": results.url,
            "SHOP_LEDGER": str(folder / "ledger"),
        }
        self.members: dict[str, WorkerProcess] = {}
        self.ours = TaskQ("customer", broker=self.url, backend=results.url)
        self.theirs = Celery("customer", broker=self.url, backend=results.url, set_as_current=False)
        self._held = 0

    # -- processes -----------------------------------------------------------------------------

    def process(
        self, name: str, *command: str, env: Mapping[str, str] | None = None
    ) -> WorkerProcess:
        """Start `python -m` *command* in the shop; it is ended with the fleet."""
        self.members[name] = process = WorkerProcess(
            *(sys.executable, "-m", *command),
            folder=SHOP,
            env={**self.env, **(env or {})},
            log=self.folder / f"{name}.log",
        )
        return process

    def launch(self, *names: str) -> None:
        """Start the workers *names* and wait until they are ready."""
        for name in names:
            options = ("-n", node(name), "-Q", name, "-c", "2")
            if name.startswith(THEIRS):
                self.process(name, "celery", "-A", "theirs", "worker", *options, "-l", "INFO")
            else:
                self.process(name, "taskq", "worker", "-A", "ours", *options)
        for name in names:
            worker = self.members[name]
            if name.startswith(THEIRS):
                wait_until(
                    lambda log=worker.log: " ready." in log(), f"{name} to be ready", timeout=60
                )
            else:
                worker.wait_for("worker-ready", timeout=60)

    def close(self) -> None:
        """End all, without a word."""
        for process in self.members.values():
            process.end()
        self.ours.close()
        self.theirs.close()

    def logs(self) -> str:
        """What all of them said last."""
        return "\n".join(
            f"--- {name}\n{process.log()[-3000:]}" for name, process in self.members.items()
        )

    # -- work ----------------------------------------------------------------------------------

    def send(self, name: str, task: str, *args: Any, **options: Any) -> str:
        """Send *task* to the worker *name*; its id."""
        app = self.theirs if name.startswith(THEIRS) else self.ours
        return str(
            app.send_task(f"shop.{task}", args, queue=options.pop("queue", name), **options).id
        )

    def state(self, task_id: str) -> str:
        """What the result store knows of a task."""
        return str(self.theirs.AsyncResult(task_id).state)

    def wait_for_state(self, task_id: str, state: str) -> None:
        """Wait until the result store says that the task is in *state*."""
        wait_until(lambda: self.state(task_id) == state, f"{task_id} to be {state}")

    def ran(self) -> list[str]:
        """The names that the tasks `note` wrote down, one for each run."""
        ledger = self.folder / "ledger"
        return ledger.read_text().replace(" ran", "").split() if ledger.exists() else []

    @contextmanager
    def holding(self, *names: str) -> Iterator[dict[str, str]]:
        """A task runs on each of the workers *names* as long as this lasts; their ids by name."""
        self._held += 1
        paths = {name: self.folder / f"hold-{self._held}-{name}" for name in names}
        ids = {name: self.send(name, "hold", str(path)) for name, path in paths.items()}
        try:
            for path in paths.values():
                wait_until(Path(f"{path}.begun").exists, f"{path.name} to begin")
            yield ids
        finally:
            for path in paths.values():
                path.touch()

    # -- orders --------------------------------------------------------------------------------

    def celery(self, *arguments: str, code: int = 0) -> str:
        """What the command line of real Celery printed."""
        return self._command("celery", "-b", self.url, *arguments, code=code)

    def ask(self, *command: str, to: tuple[str, ...] = ALL, code: int = 0) -> dict[str, Any]:
        """The replies, by short name, to Celery's `inspect` or `control` *command*."""
        kind, *rest = command
        nodes = ",".join(map(node, to))
        printed = self.celery(kind, "-t", "20", "-d", nodes, "--json", *rest, code=code)
        replies = _replies(json.loads(printed))
        assert replies.keys() == {node(name) for name in to}, printed
        return {name: replies[node(name)] for name in to}

    def look(self, question: str, name: str) -> Any:
        """What the worker *name* replies to Celery's `inspect` *question*; starts no process."""
        ask = self.theirs.control.inspect([node(name)], timeout=20)
        replies = getattr(ask, question)()
        assert replies is not None, f"{name} does not say {question}"
        return replies[node(name)]

    def taskq(self, *arguments: str, code: int = 0) -> str:
        """What taskq's command line printed."""
        return self._command("taskq", *arguments, code=code)

    def _command(self, *command: str, code: int) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=SHOP,
            env={**self.env, "TASKQ_APP": "ours", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert code == ran.returncode, f"{command}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout


def _replies(found: Any) -> dict[str, Any]:
    """`inspect` prints a mapping, `control` a list of mappings of one."""
    if isinstance(found, list):
        return {name: reply for each in found for name, reply in each.items()}
    return dict(found)


class Flower:
    """Flower as a process, and its pages."""

    def __init__(self, fleet: Fleet) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        fleet.process(
            "flower",
            *("celery", "-A", "theirs", "flower", "--address=127.0.0.1"),
            f"--port={self.url.rpartition(':')[2]}",
            f"--broker-api={fleet.broker.api}",
            "--inspect-timeout=20000",
            env={"FLOWER_UNAUTHENTICATED_API": "true"},
        )
        self._client = httpx.Client(base_url=self.url, timeout=60)
        self._process = fleet.members["flower"]
        wait_until(self._answers, "Flower to answer", timeout=60)

    def _answers(self) -> bool:
        assert self._process.is_running, self._process.log()
        try:
            return self._client.get("/healthcheck").is_success
        except httpx.TransportError:
            return False

    def page(self, path: str, **query: Any) -> str:
        """The text of a page."""
        answer = self._client.get(path, params=query)
        assert answer.is_success, f"{path}: {answer.status_code}\n{answer.text[-3000:]}"
        return answer.text

    def json(self, path: str, **query: Any) -> Any:
        """A page that is for programs."""
        return json.loads(self.page(path, **query))

    def press(self, path: str, *, code: int = 200, **query: Any) -> str:
        """What the button behind *path* says."""
        answer = self._client.post(path, params=query)
        assert code == answer.status_code, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()["message"] if answer.is_success else answer.text

    def workers(self) -> dict[str, dict[str, Any]]:
        """The table of workers by short name."""
        return {
            row["hostname"].partition("@")[0]: row for row in self.json("/workers", json=1)["data"]
        }

    def tasks(self, search: str = "") -> dict[str, dict[str, Any]]:
        """The table of tasks by id."""
        query = {"draw": 1, "start": 0, "length": 1000, "search[value]": search}
        query |= {"order[0][column]": 0, "order[0][dir]": "asc", "columns[0][data]": "received"}
        return {row["uuid"]: row for row in self.json("/tasks/datatable", **query)["data"]}

    def wait_for_task(self, task_id: str, state: str) -> None:
        """Wait until the table of tasks has the task in *state*."""
        wait_until(
            lambda: self.tasks().get(task_id, {}).get("state") == state, f"{task_id} to be {state}"
        )

    def close(self) -> None:
        """Close the connections to it."""
        self._client.close()


def form(value: Any, *variable: str) -> Any:
    """The keys and types of *value*; *variable* names mappings whose keys are not fixed.

    "N/A" is what Celery says where it has nothing to say.
    """
    if isinstance(value, Mapping):
        return {
            key: "mapping" if key in variable else form(each, *variable)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return "list"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "null" if value in (None, "N/A") else type(value).__name__
