"""The benchmark's tasks and calls in huey, which keeps them in a SQLite file."""

from typing import Any

import work
from huey import SqliteHuey

huey = SqliteHuey(**work.SETTINGS)

TASKS = {name: huey.task(name=name)(function) for name, function in work.TASKS.items()}


def send(task: str, *args: Any) -> None:
    TASKS[task](*args)


def send_many(calls: list[tuple[Any, ...]]) -> None:
    for call in calls:
        send(*call)


def close() -> None:
    huey.storage.close()
