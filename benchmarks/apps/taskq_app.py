"""The benchmark's tasks and calls in taskq."""

from typing import Any

import work

from taskq import TaskQ

app = TaskQ("bench", **work.SETTINGS)

TASKS = {name: app.task(name=name)(function) for name, function in work.TASKS.items()}


@app.task(name="spread")
def spread() -> None:
    for _ in range(work.SPREAD):
        send("noop")


TASKS["spread"] = spread


def send(task: str, *args: Any) -> None:
    TASKS[task].delay(*args)


def send_many(calls: list[tuple[Any, ...]]) -> None:
    app.send_many(TASKS[task].s(*args) for task, *args in calls)


def send_later(seconds: float, task: str, *args: Any) -> None:
    TASKS[task].apply_async(args, countdown=seconds)


def send_many_later(delays: list[float]) -> None:
    app.send_many(app.signature("noop", countdown=delay) for delay in delays)


def ask(task: str, *args: Any) -> Any:
    return TASKS[task].delay(*args).get(timeout=60)


def close() -> None:
    app.close()
