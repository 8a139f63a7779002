"""The contract of a result store: results are stored, fetched, awaited and forgotten by task id.

Everything blocks (for at most the options' *timeout*), may be called from any thread, and notices
a fork: a child process opens connections of its own.  A store never holds the value of a result
apart from its encoding; `wire.result` owns the mapping that Celery's readers know.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from taskq.broker.base import Queue
from taskq.wire.result import Result


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What a store is told besides its URL; all times in seconds."""

    url: str
    #: How long a result is kept; None or 0 keeps it for ever.
    expires: float | None = 86_400.0
    serializer: str = "json"
    accept: tuple[str, ...] = ("json", "msgpack")
    #: One operation (a query, a command) may take this long.
    timeout: float = 5.0
    #: How often stores that cannot push are asked for awaited results.
    interval: float = 0.5
    #: Celery's result_backend_transport_options and the like.
    extra: dict[str, Any] = field(default_factory=dict)
    #: Where relative SQLite paths start from.
    root: str = "."


#: Called once with a ready result, from a thread of the backend's choosing; must not block.
OnReady = Callable[[Result], None]


class Backend(Protocol):
    """Where results are kept."""

    def store(self, result: Result, *, reply_to: str | None = None) -> None:
        """Keep *result*, replacing what is there unless that is SUCCESS already.

        *reply_to* is where the caller of the task listens (used by rpc only).  Raises
        BackendUnavailable; a stored result wakes its subscribers in every process.
        """

    def fetch(self, task_id: str) -> Result | None:
        """The newest result of *task_id*, None if nothing is known or it has expired."""

    def forget(self, task_id: str) -> None:
        """Remove the result; nothing happens if there is none."""

    def subscribe(self, task_id: str, on_ready: OnReady) -> Callable[[], None]:
        """Call *on_ready* once, when the result is in a ready state (at once if it is now).

        Returns the function that ends the subscription (idempotent).
        """

    def reply_queue(self) -> Queue | None:
        """The queue of this process that results must be addressed to; None for shared stores."""

    def hold(self, task_id: str) -> None:
        """This process will ask for *task_id*: keep what arrives for it (used by rpc only)."""

    def release(self, task_id: str) -> None:
        """Nobody in this process asks for *task_id* any more."""

    def close(self) -> None:
        """Release connections and threads.  Idempotent."""


class Subscriptions:
    """Who waits for which task id in this process; thread-safe, shared by all backends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[OnReady]] = {}

    def add(self, task_id: str, on_ready: OnReady) -> bool:
        """Add one; True if it is the first of its task."""
        with self._lock:
            first = task_id not in self._waiting
            self._waiting.setdefault(task_id, []).append(on_ready)
            return first

    def remove(self, task_id: str, on_ready: OnReady) -> bool:
        """Take one away; True if its task has none left because of it."""
        with self._lock:
            waiting = self._waiting.get(task_id, [])
            if on_ready in waiting:
                waiting.remove(on_ready)
                if not waiting:
                    del self._waiting[task_id]
                    return True
            return False

    def ids(self) -> list[str]:
        """The task ids that are waited for."""
        with self._lock:
            return list(self._waiting)

    def settle(self, result: Result) -> None:
        """Wake everyone who waits for this ready *result*, once."""
        with self._lock:
            waiting = self._waiting.pop(result.task_id, [])
        for on_ready in waiting:
            on_ready(result)
