"""The contract of a result store: results are stored, fetched, awaited and forgotten by task id.

Everything blocks (for at most the options' *timeout*), may be called from any thread, and notices
a fork: a child process opens connections of its own.  A store never holds the value of a result
apart from its encoding; `wire.result` owns the mapping that Celery's readers know.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakMethod

from taskq import log, states
from taskq.broker.base import Queue
from taskq.errors import BackendUnavailable, MessageMalformed
from taskq.url import masked
from taskq.wire.result import Result, exception_to_wire


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


class Pipeline(Protocol):
    """A way for one thread to store results without waiting for each of them."""

    def store(self, result: Result, *, reply_to: str | None = None) -> None:
        """Begin to store *result*; what `Backend.store` would raise may come from `settle`."""

    def settle(self) -> None:
        """Return when all is stored that was begun.

        Raises BackendUnavailable when some of it may not be: to store all of it again is right.
        """


class Backend(Protocol):
    """Where results are kept.

    A store that every process can read may inherit `reply_queue`, `hold` and `release` from here:
    as they stand they do nothing.  `pipeline` is for stores that take several results at once.
    """

    def store(self, result: Result, *, reply_to: str | None = None) -> None:
        """Keep *result*, replacing what is there unless that is SUCCESS already.

        *reply_to* is where the caller of the task listens (used by rpc only).  Raises
        BackendUnavailable; a stored result wakes its subscribers in every process.
        """

    def pipeline(self) -> Pipeline:
        """A new pipeline into this store; as it stands, one that stores each result at once."""
        return _AtOnce(self)

    def fetch(self, task_id: str) -> Result | None:
        """The newest result of *task_id*, None if nothing is known or it has expired."""

    def forget(self, task_id: str) -> None:
        """Remove the result; nothing happens if there is none."""

    def subscribe(
        self, task_id: str, on_ready: OnReady, *, fresh: bool = False
    ) -> Callable[[], None]:
        """Call *on_ready* once, when the result is in a ready state (at once if it is now).

        With *fresh* the task was sent just now, so that to look first is hardly worth the while.
        Returns the function that ends the subscription (idempotent).
        """

    def reply_queue(self) -> Queue | None:
        """The queue of this process that results must be addressed to; None for shared stores."""
        return None

    def hold(self, task_id: str) -> None:
        """This process will ask for *task_id*: keep what arrives for it (used by rpc only)."""
        return

    def release(self, task_id: str) -> None:
        """Nobody in this process asks for *task_id* any more."""
        return

    def close(self) -> None:
        """Release connections and threads.  Idempotent."""


class _AtOnce:
    """The pipeline of a store that takes one result after the other."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def store(self, result: Result, *, reply_to: str | None = None) -> None:
        self._backend.store(result, reply_to=reply_to)

    def settle(self) -> None:
        """All is stored."""


class Subscriptions:
    """Who waits for which task id in this process; thread-safe, shared by all backends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[OnReady]] = {}

    def begin(self, task_id: str, on_ready: OnReady, fetch: Callable[[str], Result | None]) -> None:
        """Add one, and settle it if `fetch(task_id)` is ready; what *fetch* raises undoes it.

        In this order a store misses nobody that tells what it keeps to all who were added by then.
        """
        self.add(task_id, on_ready)
        try:
            self.settle(fetch(task_id))
        except BaseException:
            self.remove(task_id, on_ready)
            raise

    def add(self, task_id: str, on_ready: OnReady) -> None:
        """Add one."""
        with self._lock:
            self._waiting.setdefault(task_id, []).append(on_ready)

    def remove(self, task_id: str, on_ready: OnReady) -> None:
        """Take one away; nothing happens if it is not there."""
        with self._lock:
            waiting = self._waiting.get(task_id, [])
            if on_ready in waiting:
                waiting.remove(on_ready)
                if not waiting:
                    del self._waiting[task_id]

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._waiting

    def ids(self) -> list[str]:
        """The task ids that are waited for."""
        with self._lock:
            return list(self._waiting)

    def settle(self, result: Result | None) -> None:
        """Wake everyone who waits for *result*, once; nothing happens unless it is ready."""
        if result is None or result.state not in states.READY_STATES:
            return
        with self._lock:
            waiting = self._waiting.pop(result.task_id, [])
        for on_ready in waiting:
            try:
                on_ready(result)
            except Exception as error:  # one caller's mistake must not cost others their result
                failed = log.brief(repr(error))
                log.event("hook-failed", hook="result", function=on_ready, exception=failed)


@contextmanager
def reporting(doing: str, task_id: str, store: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn the driver's *errors* into BackendUnavailable, which says for whom, where and why.

    *doing* is a verb ("store", "fetch"); passwords in *store* and in the driver's words are masked.
    """
    try:
        yield
    except errors as error:
        words = getattr(error, "orig", None) or error  # SQLAlchemy's own would quote the statement
        reason = " ".join(str(words).split()).rstrip(".") or type(error).__name__
        raise BackendUnavailable(
            masked(
                f"cannot {doing} the result of task {task_id} in {store}: {reason}; "
                "see that the store runs and that result_backend names it"
            )
        ) from error


def unreadable(task_id: str, error: MessageMalformed) -> Result:
    """The failure that whoever waits for *task_id* is told: what was stored is no result."""
    return Result(task_id, states.FAILURE, exception_to_wire(error))


def in_forked_child(method: Callable[[], None]) -> None:
    """Call the bound *method* in each child that is forked while its object lives."""
    reference = WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive()

    os.register_at_fork(after_in_child=call)


def unforked() -> threading.Lock:
    """A lock that nobody holds when this process forks, in the parent or in the child."""
    lock = threading.Lock()
    os.register_at_fork(
        before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
    )
    return lock
