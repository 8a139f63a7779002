"""Results as messages to the process that sent the task, through the broker and nothing else.

Each process that sends tasks has one reply queue, and each state of a task is one message to it,
in Celery's form.  The queue is declared by the sender, with the task's own, so results wait in it
until somebody here asks for one; only then it is consumed, on a connection of its own.  Nothing is
kept for ids that nobody here holds, and no other process can read a result.
"""

import os
import threading
import uuid
from collections.abc import Callable
from functools import lru_cache
from queue import Empty, SimpleQueue

from taskq import clock, states
from taskq.backends.base import (
    Backend,
    BackendOptions,
    OnReady,
    Subscriptions,
    in_forked_child,
    reporting,
    unreadable,
)
from taskq.broker.base import Broker, Outlet, Queue, Replies, Route
from taskq.errors import ConfigurationError, MessageMalformed, PublishError, PublishUnconfirmed
from taskq.loop import Loop
from taskq.wire import result as wire
from taskq.wire.message import Message, encode_reply_properties
from taskq.wire.result import Result


class RpcBackend(Backend):
    """The worker's half is `store`; everything else is the half of the process that asks."""

    def __init__(
        self, options: BackendOptions, *, broker: Broker, outlet: Callable[[], Outlet]
    ) -> None:
        self._options = options
        self._broker = broker
        self._outlet = outlet
        self._start()
        in_forked_child(self._in_child)

    def _start(self) -> None:
        self._queue = Queue(f"taskq.reply.{uuid.uuid4()}", kind="reply")
        self._waiting = Subscriptions()
        #: Guards everything below.  Reentrant, because `release` may be called by the garbage
        #: collector, in whatever the thread is doing.
        self._lock = threading.RLock()
        self._holds: dict[str, int] = {}
        #: The newest state of held tasks, and when it expires.
        self._newest: dict[str, tuple[Result, float | None]] = {}
        self._listener: _Listener | None = None

    def _in_child(self) -> None:
        self._inherited = self._listener  # sockets of the parent: not ours to close
        self._start()

    # -- the worker's half -------------------------------------------------------------------

    def store(self, result: Result, *, reply_to: str | None = None) -> None:
        if not reply_to:
            return
        body, content_type, content_encoding = wire.encode(result, self._options.serializer)
        raw = encode_reply_properties(content_type, content_encoding, result.task_id)
        message = Message(raw, body)
        with reporting("store", result.task_id, f"queue {reply_to!r}", PublishError):
            self._publish(message, reply_to)

    def _publish(self, message: Message, reply_to: str) -> None:
        answers: SimpleQueue[PublishError | None] = SimpleQueue()
        # Not mandatory: a queue that is gone means that nobody will ask, which is no failure.
        self._outlet().publish(
            message,
            _route(reply_to),
            answers.put,
            mandatory=False,
            timeout=self._options.timeout,
            confirm=False,
        )
        try:
            refusal = answers.get(timeout=self._options.timeout)
        except Empty:
            raise PublishUnconfirmed(f"no word within {self._options.timeout:g} s") from None
        if refusal is not None:
            raise refusal

    # -- the asker's half --------------------------------------------------------------------

    def reply_queue(self) -> Queue | None:
        return self._queue

    def hold(self, task_id: str) -> None:
        with self._lock:
            self._holds[task_id] = self._holds.get(task_id, 0) + 1

    def release(self, task_id: str) -> None:
        with self._lock:
            left = self._holds.pop(task_id, 0) - 1
            if left > 0:
                self._holds[task_id] = left
            else:
                self._newest.pop(task_id, None)

    def fetch(self, task_id: str) -> Result | None:
        self._listen(task_id)
        result, expires = self._newest.get(task_id, (None, None))
        return None if expires is not None and expires <= clock.monotonic() else result

    def forget(self, task_id: str) -> None:
        with self._lock:
            self._newest.pop(task_id, None)

    def subscribe(
        self, task_id: str, on_ready: OnReady, *, fresh: bool = False
    ) -> Callable[[], None]:
        waiting = self._waiting
        waiting.begin(task_id, on_ready, self.fetch)
        return lambda: waiting.remove(task_id, on_ready)

    def close(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _listen(self, task_id: str) -> None:
        with self._lock:
            if task_id not in self._holds:
                raise ConfigurationError(
                    "rpc results can be read only by the process that sent the task, and only "
                    f"while it keeps the AsyncResult; task {task_id} is not held by process "
                    f"{os.getpid()}: set result_backend to redis://, db+postgresql:// or sqlite:///"
                )
            if self._listener is None:
                self._listener = _Listener(self._broker, self._queue, self._on_reply)

    def _on_reply(self, message: Message) -> None:
        labels = message.properties
        try:
            result = wire.decode(
                message.body, labels.content_type, labels.content_encoding, self._options.accept
            )
        except MessageMalformed as error:
            if labels.correlation_id is None:
                return
            result = unreadable(labels.correlation_id, error)
        expires = self._options.expires and clock.monotonic() + self._options.expires
        with self._lock:
            if result.task_id not in self._holds:
                return
            newest, _ = self._newest.get(result.task_id, (None, None))
            if newest is not None and newest.state == states.SUCCESS:
                return
            self._newest[result.task_id] = result, expires or None
        self._waiting.settle(result)


@lru_cache(maxsize=1024)
def _route(queue: str) -> Route:
    """The same object for the same *queue*, which others know again."""
    return Route("", queue)


class _Listener:
    """The thread that consumes the reply queue, on a loop of its own."""

    def __init__(self, broker: Broker, queue: Queue, on_reply: Callable[[Message], None]) -> None:
        self._loop = Loop()
        try:
            self._replies: Replies = broker.replies(self._loop, queue, on_reply)
        except BaseException:
            self._loop.close()
            raise
        self._thread = threading.Thread(target=self._run, name="taskq-results", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop consuming, and wait for the thread if it is not the caller."""
        self._loop.add_callback(self._loop.stop)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        self._loop.start()
        self._replies.close()
        self._loop.close()
