"""The benchmark's tasks and calls in RQ, which keeps them in Redis."""

from typing import Any

import work
from redis import Redis
from rq import Queue

connection = Redis.from_url(work.SETTINGS["url"])
queue = Queue(work.QUEUE, connection=connection)

#: Nothing is kept of a job that is done.
_OPTIONS = {"result_ttl": 0}


def send(task: str, *args: Any) -> None:
    queue.enqueue(work.TASKS[task], *args, **_OPTIONS)


def send_many(calls: list[tuple[Any, ...]]) -> None:
    jobs = [
        Queue.prepare_data(work.TASKS[task], args=tuple(args), **_OPTIONS) for task, *args in calls
    ]
    queue.enqueue_many(jobs)


def close() -> None:
    connection.close()
