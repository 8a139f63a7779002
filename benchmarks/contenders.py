"""Who is measured, and with which settings: those that its own documentation recommends for speed.

A contender says how its worker is started and what its app is given, for one `Setup`; the app's
module with its tasks lies in apps/.  What stands here is what the report prints.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

#: Where the apps lie; every worker and every caller runs there.
APPS = Path(__file__).parent / "apps"

#: The queue that every library uses; apps/work.py has the same.
QUEUE = "bench"


@dataclass(frozen=True)
class Place:
    """The private servers of one run, and a folder; *vhost* is the one that *amqp* names."""

    amqp: str
    redis: str
    folder: Path
    vhost: str = ""


@dataclass(frozen=True)
class Setup:
    """What all contenders of one row have in common.

    *prefetch* is the number of messages taken ahead for each child; None: the library's default.
    """

    queue_type: Literal["quorum", "classic"] = "quorum"
    results: Literal["off", "rpc", "redis"] = "off"
    confirms: bool = False
    children: int = 2
    prefetch: int | None = None
    #: Whether the worker tells monitors what becomes of each task.
    events: bool = False


@dataclass(frozen=True)
class Recipe:
    """A contender at one place: its app's *settings*, its *worker*'s command, more *env*."""

    settings: Mapping[str, Any]
    worker: tuple[str, ...]
    env: Mapping[str, str]


class Contender:
    """A library; derived classes know one each.

    *peer* says that it lives in the peers' venv, *embedded* that it needs no servers.
    """

    name: str
    peer = True
    embedded = False

    @property
    def module(self) -> str:
        """The name of the module in apps/."""
        return f"{self.name}_app"

    def recipe(self, setup: Setup, place: Place) -> Recipe:
        """How it is set up; the worker's program is named as in its environment's bin folder."""
        raise NotImplementedError


class Taskq(Contender):
    """taskq on RabbitMQ."""

    name = "taskq"
    peer = False

    def recipe(self, setup: Setup, place: Place) -> Recipe:
        settings: dict[str, Any] = {
            "broker_url": place.amqp,
            "task_default_queue": QUEUE,
            "task_ignore_result": setup.results == "off",
        }
        if setup.queue_type == "classic":
            settings["task_queues"] = [{"name": QUEUE, "arguments": {"x-queue-type": "classic"}}]
        if setup.results != "off":
            settings["result_backend"] = "rpc://" if setup.results == "rpc" else place.redis
        prefetch = ("--prefetch", str(setup.prefetch * setup.children)) if setup.prefetch else ()
        events = ("-E",) if setup.events else ()
        return Recipe(settings, (*_taskq_worker(setup.children), *prefetch, *events), {})


class TaskqSqlite(Contender):
    """taskq on its embedded broker; `synchronous=NORMAL`, the default, is said for the report."""

    name = "taskq"
    peer = False
    embedded = True

    def recipe(self, setup: Setup, place: Place) -> Recipe:
        settings = {
            "broker_url": f"sqlite:///{place.folder}/taskq.db?synchronous=normal",
            "task_default_queue": QUEUE,
            "task_ignore_result": True,
        }
        return Recipe(settings, _taskq_worker(setup.children), {})


class Celery(Contender):
    """Celery with its prefork pool; `-O fair` is its default since 4.0."""

    name = "celery"

    def recipe(self, setup: Setup, place: Place) -> Recipe:
        settings: dict[str, Any] = {
            "broker_url": place.amqp,
            "task_default_queue": QUEUE,
            "task_default_queue_type": setup.queue_type,
            "worker_detect_quorum_queues": True,
            "task_acks_late": True,
            "task_ignore_result": setup.results == "off",
            "worker_disable_rate_limits": True,
            "broker_connection_retry_on_startup": True,
            "broker_transport_options": {"confirm_publish": setup.confirms},
        }
        if setup.prefetch:
            settings["worker_prefetch_multiplier"] = setup.prefetch
        if setup.results != "off":
            settings["result_backend"] = "rpc://" if setup.results == "rpc" else place.redis
        worker = (
            *("celery", "-A", "celery_app", "worker", "-P", "prefork", "-c", str(setup.children)),
            *("-O", "fair", "--without-gossip", "--without-mingle", "--without-heartbeat"),
            *("-l", "warning"),
            *(("-E",) if setup.events else ()),
        )
        return Recipe(settings, worker, {})


class Dramatiq(Contender):
    """dramatiq with eight threads a process, which is its default, and not slower than one."""

    name = "dramatiq"

    def recipe(self, setup: Setup, place: Place) -> Recipe:
        settings = {
            "url": place.amqp,
            "queue_type": setup.queue_type,
            "confirm_delivery": setup.confirms,
        }
        processes = ("--processes", str(setup.children), "--threads", "8")
        env = {"dramatiq_queue_prefetch": str(setup.prefetch)} if setup.prefetch else {}
        return Recipe(settings, ("dramatiq", "dramatiq_app", *processes), env)


class Taskiq(Contender):
    """taskiq with taskiq-aio-pika; its tasks are coroutines, up to 100 at once a process."""

    name = "taskiq"

    def recipe(self, setup: Setup, place: Place) -> Recipe:
        settings = {
            "url": place.amqp,
            "queue_type": setup.queue_type,
            "qos": setup.prefetch or 10,
        }
        worker = (
            *("taskiq", "worker", "taskiq_app:broker", "--workers", str(setup.children)),
            *("--ack-type", "when_executed", "--max-async-tasks", "100", "--no-parse"),
            *("--log-level", "WARNING"),
        )
        return Recipe(settings, worker, {})


class Huey(Contender):
    """huey on SQLite at the defaults of its storage (WAL, `synchronous=FULL`), with processes."""

    name = "huey"
    embedded = True

    def recipe(self, setup: Setup, place: Place) -> Recipe:
        settings = {"name": QUEUE, "filename": str(place.folder / "huey.db")}
        worker = ("huey_consumer", "huey_app.huey", "-w", str(setup.children), "-k", "process")
        return Recipe(settings, (*worker, "-q"), {})


class Rq(Contender):
    """RQ on Redis, with its worker that runs jobs in its own process; others fork for each job."""

    name = "rq"

    def recipe(self, setup: Setup, place: Place) -> Recipe:
        worker = (
            *("rq", "worker-pool", "-n", str(setup.children), "-w", "rq.worker.SimpleWorker"),
            *("-u", place.redis, "-P", ".", "-q", QUEUE),
        )
        return Recipe({"url": place.redis}, worker, {})


def _taskq_worker(children: int) -> tuple[str, ...]:
    return (
        *("taskq", "worker", "-A", "taskq_app:app"),
        *("-c", str(children), "-l", "warning"),
    )
