"""Workers and tasks as events describe them, whatever order these came in.

Pure: events go in, the picture can be looked at, and the time is told by who looks.  What is kept
is bounded: of too many tasks or workers, those are forgotten that were silent for longest.  Hearing
events is the business of `receiver`.

A task's state is that of its latest event by the sender's own time; where two have the same time,
by how far they lead.  That a task was sent never changes what a worker says of it, as its sender's
clock may be ahead.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from taskq import states

#: So much of a text is kept, in characters: what senders cut is far shorter.
_LONGEST = 16 * 1024

#: What becomes of a task with each event -> how far that is, and the state's name.
_SUBJECTS: dict[str, tuple[int, str]] = {
    "sent": (0, states.PENDING),
    "received": (1, states.RECEIVED),
    "started": (2, states.STARTED),
    "rejected": (4, states.REJECTED),
    "retried": (5, states.RETRY),
    "revoked": (6, states.REVOKED),
    "failed": (7, states.FAILURE),
    "succeeded": (8, states.SUCCESS),
}
#: Of events that a task sends about itself, whose state has the event's name.
_OWN_RANK = 3

_CALL = ("name", "args", "kwargs", "root_id", "parent_id", "eta", "expires")
#: The texts that an event brings, beside those of the call.
_TEXTS: dict[str, tuple[str, ...]] = {
    "sent": ("queue", "exchange", "routing_key"),
    "succeeded": ("result",),
    "failed": ("exception", "traceback"),
    "retried": ("exception", "traceback"),
}

#: What orders events: the sender's time, its logical clock, its name.
_Key = tuple[float, int, str]


@dataclass(slots=True)
class Worker:
    """A node that was heard of."""

    hostname: str
    pid: int | None = None
    #: Seconds between its heartbeats.
    freq: float = 60.0
    active: int | None = None
    processed: int | None = None
    loadavg: tuple[float, ...] = ()
    sw_ident: str | None = None
    sw_ver: str | None = None
    sw_sys: str | None = None
    #: When it last spoke of itself, by its own time, and when that was heard.
    timestamp: float = 0.0
    heard: float = 0.0
    #: It said goodbye, and nothing later.
    is_offline: bool = False
    #: Attribute -> the latest event that told it.
    _last: dict[str, _Key] = field(default_factory=dict)

    def is_alive(self, now: float) -> bool:
        """Whether it has not said goodbye, and missed at most one heartbeat by *now*."""
        return not self.is_offline and now < self.heard + 2 * self.freq


@dataclass(slots=True)
class Task:
    """A run of a task; each moment is that of the latest such event, by its sender's time."""

    uuid: str
    state: str = states.PENDING
    name: str | None = None
    args: str | None = None
    kwargs: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    retries: int | None = None
    eta: str | None = None
    expires: str | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    #: Who sent it, and which worker spoke of it last.
    client: str | None = None
    hostname: str | None = None
    sent: float | None = None
    received: float | None = None
    started: float | None = None
    succeeded: float | None = None
    failed: float | None = None
    retried: float | None = None
    revoked: float | None = None
    rejected: float | None = None
    result: str | None = None
    runtime: float | None = None
    exception: str | None = None
    traceback: str | None = None
    #: Of the event that gave it its state.
    timestamp: float = float("-inf")
    clock: int = 0
    #: Subject -> the latest event of that kind.
    _last: dict[str, _Key] = field(default_factory=dict)
    _state: tuple[float, int, int, str] = (float("-inf"), -1, 0, "")

    @property
    def is_ready(self) -> bool:
        """Whether it has ended, as far as is known."""
        return self.state in states.READY_STATES

    def as_dict(self) -> dict[str, Any]:
        """All that is known of it."""
        return {key: value for key, value in asdict(self).items() if not key.startswith("_")}


class State:
    """What was heard up to now; `event` takes in one event more."""

    def __init__(self, *, max_workers: int = 5_000, max_tasks: int = 10_000) -> None:
        #: By name; who spoke last comes last.
        self.workers: dict[str, Worker] = {}
        #: By id; what was spoken of last comes last.
        self.tasks: dict[str, Task] = {}
        self.event_count = 0
        #: How many tasks were seen, also those that are forgotten.
        self.task_count = 0
        self._max_workers = max_workers
        self._max_tasks = max_tasks

    def event(self, event: Mapping[str, Any]) -> Worker | Task | None:
        """Take in *event*, as a `Receiver` hands it out; whom it is about, None for others."""
        self.event_count += 1
        group, _, subject = event["type"].partition("-")
        if group == "worker":
            return self._on_worker(event, subject)
        if group == "task" and subject:
            return self._on_task(event, subject)
        return None

    def alive_workers(self, now: float) -> list[Worker]:
        """The workers that live at *now*, in seconds since the epoch."""
        return [worker for worker in self.workers.values() if worker.is_alive(now)]

    def tasks_by_time(self, limit: int | None = None) -> list[tuple[str, Task]]:
        """Ids and tasks, the one with the latest event first; at most *limit*."""
        found = sorted(self.tasks.items(), key=lambda each: each[1].timestamp, reverse=True)
        return found[:limit]

    def tasks_by_type(self, name: str, limit: int | None = None) -> Iterator[tuple[str, Task]]:
        """As `tasks_by_time`, of those whose task has that *name*."""
        found = (each for each in self.tasks_by_time() if each[1].name == name)
        return islice(found, limit)

    def tasks_by_worker(
        self, hostname: str, limit: int | None = None
    ) -> Iterator[tuple[str, Task]]:
        """As `tasks_by_time`, of those that the worker *hostname* has or had."""
        found = (each for each in self.tasks_by_time() if each[1].hostname == hostname)
        return islice(found, limit)

    def task_types(self) -> list[str]:
        """The names of the tasks that are known, in order."""
        return sorted({task.name for task in self.tasks.values() if task.name is not None})

    # -- taking in ---------------------------------------------------------------------------

    def _on_worker(self, event: Mapping[str, Any], subject: str) -> Worker:
        worker = self._worker(event["hostname"])
        worker.heard = max(worker.heard, _number(event.get("local_received")) or 0.0)
        key = _key(event)
        said: dict[str, Any] = {"timestamp": key[0], "is_offline": subject == "offline"}
        said |= {name: read(event[name]) for name, read in _VITALS.items() if name in event}
        for name, value in said.items():  # some heartbeats say less than others
            if value is not None and key >= worker._last.get(name, key):
                worker._last[name] = key
                setattr(worker, name, value)
        return worker

    def _on_task(self, event: Mapping[str, Any], subject: str) -> Task:
        task = self._task(event["uuid"])
        key = _key(event)
        if subject != "sent":
            self._worker(event["hostname"])
        if subject not in task._last or key > task._last[subject]:
            self._merge(task, event, subject, key)
        rank, state = _SUBJECTS.get(subject, (_OWN_RANK, subject.upper()[:64]))
        when, clock, sender = key
        if subject == "sent":
            when = float("-inf")
        if (when, rank, clock, sender) > task._state:
            task._state = when, rank, clock, sender
            task.state = state
            task.timestamp, task.clock = key[0], clock
            if subject != "sent":
                task.hostname = sender
        return task

    def _merge(self, task: Task, event: Mapping[str, Any], subject: str, key: _Key) -> None:
        """Take over what *event* says, unless a later one of its kind has said it."""
        last = task._last
        if subject in _SUBJECTS:
            last[subject] = key
            setattr(task, subject, float(event["timestamp"]))
        if subject == "received" or (subject == "sent" and "received" not in last):
            for name in _CALL:
                setattr(task, name, _text(event.get(name)))
            task.retries = _integer(event.get("retries"))
        if subject == "sent":
            task.client = key[2]
        if subject == "succeeded":
            task.runtime = _number(event.get("runtime"))
        other = {"failed": "retried", "retried": "failed"}.get(subject)
        if other is None or other not in last or (key, subject) > (last[other], other):
            for name in _TEXTS.get(subject, ()):
                setattr(task, name, _text(event.get(name)))

    def _worker(self, hostname: str) -> Worker:
        worker = self.workers.pop(hostname, None) or Worker(hostname)
        self.workers[hostname] = worker
        if len(self.workers) > self._max_workers:
            del self.workers[next(iter(self.workers))]
        return worker

    def _task(self, uuid: str) -> Task:
        task = self.tasks.pop(uuid, None)
        if task is None:
            task = Task(uuid)
            self.task_count += 1
        self.tasks[uuid] = task
        if len(self.tasks) > self._max_tasks:
            del self.tasks[next(iter(self.tasks))]
        return task


def _key(event: Mapping[str, Any]) -> _Key:
    return float(event["timestamp"]), event.get("clock") or 0, event["hostname"]


def _text(value: object) -> str | None:
    return None if value is None else str(value)[:_LONGEST]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _integer(value: object) -> int | None:
    return value if type(value) is int else None


def _loads(value: object) -> tuple[float, ...] | None:
    return tuple(_number(load) or 0.0 for load in value[:3]) if isinstance(value, list) else None


#: What a worker says of itself -> how it is read.
_VITALS: dict[str, Callable[[object], Any]] = {
    "pid": _integer,
    "freq": _number,
    "active": _integer,
    "processed": _integer,
    "loadavg": _loads,
    "sw_ident": _text,
    "sw_ver": _text,
    "sw_sys": _text,
}
