"""What an app has beat send: its setting `beat_schedule` and the schedules of its own tasks.

When it is sent, and by whom, is beat's business.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from taskq import schedules
from taskq.client.options import Options, Signature
from taskq.client.task import Task
from taskq.errors import ConfigurationError
from taskq.settings import Settings

F = TypeVar("F", bound=Callable[..., object])

#: What `add_periodic_task` takes for the entry itself; the rest are options of the call.
_ENTRY_OPTIONS = frozenset(
    {
        *("relative", "timezone", "start", "end", "jitter", "missed", "missed_limit", "overlap"),
        "enabled",
    }
)

#: Options of a call that an entry cannot have, and why not.
_BEATS_OWN = {
    "task_id": "each run has an id of its own, of the entry's name and the due time",
    "countdown": "the schedule says when it is sent",
    "eta": "the schedule says when it is sent",
}


class Setup:
    """Functions that are called once with the app (as *sender*) before its schedule is read."""

    def __init__(self) -> None:
        self._waiting: list[Callable[..., object]] = []

    def connect(self, function: F | None = None, **_: object) -> Any:
        """Call *function*; a decorator, bare or called.  Celery's further options do nothing."""
        if function is None:
            return self.connect
        self._waiting.append(function)
        return function

    def run(self, app: object) -> None:
        """Call those that were not called yet; what one raises is raised."""
        while self._waiting:
            self._waiting.pop(0)(sender=app)


class Timetable:
    """The entries of one app, made anew from settings and tasks whenever they are asked for."""

    def __init__(self, conf: Settings, tasks: Mapping[str, Task[Any, Any]]) -> None:
        self._conf = conf
        self._tasks = tasks

    def add(
        self,
        schedule: object,
        call: Signature | Task[Any, Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        name: str | None,
        options: Mapping[str, Any],
    ) -> str:
        """Add an entry to `beat_schedule`; its name, which shows the call unless one is given.

        *options* are those of an entry and those of a call.  ConfigurationError for what is wrong
        with it, and if another entry has the name.
        """
        if isinstance(call, Task):
            call = Signature(call.name)
        args, kwargs = (*args, *call.args), {**call.kwargs, **kwargs}
        name = name or _shown(call.task, args, kwargs)
        given = {
            "task": call.task,
            "schedule": schedule,
            "args": args,
            "kwargs": kwargs,
            "options": {
                **call.options,
                **{key: value for key, value in options.items() if key not in _ENTRY_OPTIONS},
            },
            **{key: value for key, value in options.items() if key in _ENTRY_OPTIONS},
        }
        entry = self.read(name, given)
        there = self._conf.beat_schedule.setdefault(name, given)
        if there is not given and self.read(name, there) != entry:
            raise _taken(name)
        return name

    def check(self, task: Task[Any, Any]) -> None:
        """ConfigurationError if *task* cannot be sent as its own schedule says."""
        for _ in self._own((task,)):
            pass

    def entries(self) -> "dict[str, schedules.Entry]":
        """All entries by name; ConfigurationError names the one that is wrong."""
        found = {name: self.read(name, given) for name, given in self._conf.beat_schedule.items()}
        for entry in self._own(self._tasks.values()):
            if entry.name in found:
                raise _taken(entry.name)
            found[entry.name] = entry
        return found

    def _own(self, tasks: Iterable[Task[Any, Any]]) -> "Iterator[schedules.Entry]":
        for task in tasks:
            if task.schedule is not None:
                said = task.schedule
                if not isinstance(said, Mapping) or "schedule" not in said:
                    said = {"schedule": said}
                yield self.read(task.name, {**said, "task": task.name})

    def read(self, name: str, given: object) -> "schedules.Entry":
        """The entry *name* that *given* describes; ConfigurationError if it cannot be sent."""
        entry = schedules.read_entry(name, given, timezone=self._conf.timezone)
        try:
            Options.merged(entry.options)
            if entry.task in self._tasks:
                self._tasks[entry.task].check(entry.args, entry.kwargs)
        except TypeError as error:
            raise _wrong(name, str(error)) from error
        for option in _BEATS_OWN.keys() & entry.options.keys():
            raise _wrong(name, f"leave out the option {option!r}: {_BEATS_OWN[option]}")
        return entry


def _shown(task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    shown = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
    return f"{task}({', '.join(shown)})"


def _wrong(name: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"the entry {name!r} of the schedule: {problem}")


def _taken(name: str) -> ConfigurationError:
    return _wrong(name, "there is another one of this name; give one of them another name=")
