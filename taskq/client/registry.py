"""Task names and the tasks that have them, each name once."""

from collections.abc import Iterator, Mapping
from typing import Any

from taskq.client.task import Task
from taskq.errors import TaskAlreadyRegistered, TaskNotRegistered
from taskq.settings import closest


class Registry(Mapping[str, Task[Any, Any]]):
    """The tasks of one app by name."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[Any, Any]] = {}

    def register(self, task: Task[Any, Any]) -> None:
        """Add *task*; TaskAlreadyRegistered if another function has its name.

        Functions are the same if module and qualified name are, so that a program whose main
        module is also imported under its name may define its tasks twice; the later one stays.
        """
        there = self._tasks.get(task.name)
        if there is not None and there.origin != task.origin:
            raise TaskAlreadyRegistered(
                f"two functions want to be task {task.name!r}: {':'.join(there.origin)} and "
                f"{':'.join(task.origin)}; give one of them another name="
            )
        self._tasks[task.name] = task

    def __getitem__(self, name: str) -> Task[Any, Any]:
        task = self._tasks.get(name)
        if task is None:
            near = closest(name, self._tasks)
            meant = f"; did you mean {near!r}?" if near else ""
            raise TaskNotRegistered(
                f"no task is called {name!r} here{meant} "
                "(is its module in include=, or imported by the app's module?)"
            )
        return task

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)
