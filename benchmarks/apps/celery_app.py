"""The benchmark's tasks and calls in Celery."""

from typing import Any

import work
from celery import Celery

app = Celery("bench")
app.conf.update(work.SETTINGS)

TASKS = {name: app.task(function, name=name) for name, function in work.TASKS.items()}


@app.task(name="spread")
def spread() -> None:
    for _ in range(work.SPREAD):
        TASKS["noop"].delay()


TASKS["spread"] = spread


def send(task: str, *args: Any) -> None:
    TASKS[task].delay(*args)


def send_many(calls: list[tuple[Any, ...]]) -> None:
    """One by one over one connection: Celery has nothing for many, its groups do the same."""
    with app.producer_pool.acquire(block=True) as producer:
        for task, *args in calls:
            TASKS[task].apply_async(args, producer=producer)


def ask(task: str, *args: Any) -> Any:
    return TASKS[task].delay(*args).get(timeout=60)


def close() -> None:
    """Ask the broker something first: closing forgets what it has not read of the socket yet."""
    with app.producer_pool.acquire(block=True) as producer:
        producer.channel.queue_declare(work.QUEUE, passive=True)
    app.close()
