"""The benchmark's tasks and calls in taskiq with taskiq-aio-pika."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import work
from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.queue import Queue, QueueType

broker = AioPikaBroker(
    url=work.SETTINGS["url"],
    qos=work.SETTINGS["qos"],
    task_queues=[Queue(name=work.QUEUE, type=QueueType(work.SETTINGS["queue_type"]))],
)


def _coroutine(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """*function* as taskiq likes it best: run on the event loop, in no thread."""

    async def run(*args: Any) -> Any:
        return function(*args)

    return run


TASKS = {
    name: broker.task(task_name=name)(_coroutine(function)) for name, function in work.TASKS.items()
}

_loop = asyncio.new_event_loop()
_started = False

#: How many calls are on their way at once when there are many.
_AT_ONCE = 500


def send(task: str, *args: Any) -> None:
    _run(_kick(task, *args))


def send_many(calls: list[tuple[Any, ...]]) -> None:
    async def kick(some: list[tuple[Any, ...]]) -> None:
        await asyncio.gather(*(_kick(*call) for call in some))

    for first in range(0, len(calls), _AT_ONCE):
        _run(kick(calls[first : first + _AT_ONCE]))


def close() -> None:
    if _started:
        _loop.run_until_complete(broker.shutdown())


async def _kick(task: str, *args: Any) -> None:
    await TASKS[task].kiq(*args)


def _run(work: Awaitable[None]) -> None:
    global _started
    if not _started:
        _loop.run_until_complete(broker.startup())
        _started = True
    _loop.run_until_complete(work)
