"""For users' tests: apps that need no server, a record of what was sent, waiting with a bound."""

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from taskq import clock, hooks
from taskq.app import TaskQ

T = TypeVar("T")

#: Seconds between two looks of `wait_until`.
_INTERVAL = 0.02


def eager_app(name: str = "tests", **settings: Any) -> TaskQ:
    """An app whose calls run at once in the caller, and raise there what the task raises.

    `TaskQ(...)` takes the same *settings*.
    """
    chosen = {"task_always_eager": True, "task_eager_propagates": True} | settings
    return memory_app(name, **chosen)


def memory_app(name: str = "tests", **settings: Any) -> TaskQ:
    """An app with a broker and results of its own in this process's memory, gone with it."""
    return TaskQ(name, **{"broker": f"memory://{uuid.uuid4().hex}"} | settings)


@dataclass(frozen=True, slots=True)
class Sent:
    """A call that was sent; *queue* is None if it went to an *exchange*."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    queue: str | None
    headers: Mapping[str, Any]
    id: str
    exchange: str
    routing_key: str


@contextlib.contextmanager
def sent(app: TaskQ) -> Iterator[list[Sent]]:
    """The calls that *app* sends during the block, in order, from any thread of this process.

    What runs in place (an eager app, `apply()`) is not sent.
    """
    record: list[Sent] = []
    sender = app

    def add(
        *,
        app: Any,
        task: str,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        headers: Mapping[str, Any],
        exchange: str,
        routing_key: str,
        **_: Any,
    ) -> None:
        if app is sender:
            queue = None if exchange else routing_key
            record.append(
                Sent(
                    task, tuple(args), dict(kwargs), queue, headers, task_id, exchange, routing_key
                )
            )

    hooks.after_publish(add)
    try:
        yield record
    finally:
        hooks.after_publish.disconnect(add)


def wait_until(
    condition: Callable[[], T], what: str = "the condition", *, timeout: float = 10.0
) -> T:
    """Ask *condition* until what it says is true, and return that.

    AssertionError with the words *what* and the last answer after *timeout* seconds.
    """
    deadline = clock.monotonic() + timeout
    while not (answer := condition()):
        if clock.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last answer: {answer!r}")
        clock.sleep(_INTERVAL)
    return answer
