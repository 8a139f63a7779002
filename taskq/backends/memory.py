"""Results in this process only, for tests and for programs that are one process.

Every backend of one URL shares one store; a forked child goes on with a copy of its own.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

from taskq import clock, states
from taskq.backends.base import Backend, BackendOptions, OnReady, Subscriptions, in_forked_child
from taskq.wire import result as wire
from taskq.wire.codec import Encoded
from taskq.wire.result import Result


class _Kept(NamedTuple):
    state: str
    encoded: Encoded
    expires: float | None

    def expired(self) -> bool:
        return self.expires is not None and self.expires <= clock.monotonic()


class _Store:
    """What the backends of one URL share: encoded results, as any other store would keep them."""

    def __init__(self) -> None:
        self.waiting = Subscriptions()
        self._lock = threading.Lock()
        #: By task id, in the order of their last change, which is about that of their expiry.
        self._results: dict[str, _Kept] = {}
        in_forked_child(self._in_child)

    def put(self, task_id: str, kept: _Kept) -> None:
        with self._lock:
            while self._results and self._results[oldest := next(iter(self._results))].expired():
                del self._results[oldest]
            old = self._results.get(task_id)
            if old is None or old.state != states.SUCCESS or old.expired():
                self._results.pop(task_id, None)
                self._results[task_id] = kept

    def get(self, task_id: str) -> Encoded | None:
        kept = self._results.get(task_id)
        return None if kept is None or kept.expired() else kept.encoded

    def remove(self, task_id: str) -> None:
        with self._lock:
            self._results.pop(task_id, None)

    def _in_child(self) -> None:
        self.waiting = Subscriptions()
        self._lock = threading.Lock()


_stores: dict[str, _Store] = {}


class MemoryBackend(Backend):
    """A view of the store that this process keeps under the URL."""

    def __init__(self, options: BackendOptions) -> None:
        self._options = options
        self._store = _stores.setdefault(options.url, _Store())

    def store(self, result: Result, *, reply_to: str | None = None) -> None:
        encoded = wire.encode(result, self._options.serializer)
        expires = self._options.expires and clock.monotonic() + self._options.expires
        self._store.put(result.task_id, _Kept(result.state, encoded, expires or None))
        if result.task_id in self._store.waiting:
            self._store.waiting.settle(self.fetch(result.task_id))

    def fetch(self, task_id: str) -> Result | None:
        encoded = self._store.get(task_id)
        if encoded is None:
            return None
        return wire.decode(
            encoded.body, encoded.content_type, encoded.content_encoding, self._options.accept
        )

    def forget(self, task_id: str) -> None:
        self._store.remove(task_id)

    def subscribe(
        self, task_id: str, on_ready: OnReady, *, fresh: bool = False
    ) -> Callable[[], None]:
        waiting = self._store.waiting
        waiting.begin(task_id, on_ready, self.fetch)
        return lambda: waiting.remove(task_id, on_ready)

    def close(self) -> None:
        pass
