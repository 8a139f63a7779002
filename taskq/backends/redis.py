"""Results in Redis, under Celery's keys and in Celery's form, told to whoever waits by pub/sub.

::

    store      one script: GET, then SET and PUBLISH on a channel named like the key
    subscribe  SUBSCRIBE -> confirmed -> MGET --> ready? settle
                         -> message ------------> ready? settle

Every confirmed subscription is followed by a read, so what was stored before it took hold is not
missed.  A lost connection needs no other care: the listener connects and subscribes again.
"""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from taskq import log, states
from taskq.backends.base import (
    Backend,
    BackendOptions,
    OnReady,
    Pipeline,
    Subscriptions,
    in_forked_child,
    reporting,
    unreadable,
)
from taskq.errors import MessageMalformed
from taskq.loop import Loop
from taskq.redisclient import explain, open_client, redis
from taskq.url import masked
from taskq.wire import codec
from taskq.wire import result as wire
from taskq.wire.result import Result

#: What Celery puts before the task id.
_PREFIX = "celery-task-meta-"

#: KEYS: the result's key.  ARGV: the new value, its life in ms or "", the value it may replace.
#: Returns nothing when stored, else the value in its way: whether that is SUCCESS, and so final,
#: only a reader of all serializers and compressions can tell, which Lua is not.
_STORE = """
local old = redis.call('GET', KEYS[1])
if old and old ~= ARGV[3] then return old end
if ARGV[2] == '' then
    redis.call('SET', KEYS[1], ARGV[1])
else
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return nil
"""

#: Celery 5.7 marks compressed results so: marker, content type of the method, NUL, bytes.
_COMPRESSED = b"\0celery-compressed\0"
#: No value of Redis is larger, in bytes.
_LARGEST = 512 * 1024 * 1024

#: Lets the kernel gather several commands, which wake the server once.  It keeps them for 0.2 s at
#: most, even if this process cannot run meanwhile (tcp(7), TCP_CORK).
_GATHER = getattr(socket, "MSG_MORE", 0)

#: Seconds between attempts to reconnect, doubling from the first to the second.
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 5.0
#: A listening connection that says nothing for so long after a PING is taken for dead, in seconds.
_PATIENCE = 15.0


class RedisBackend(Backend):
    """One Redis database: commands go through redis-py's pool, results are heard by a listener."""

    def __init__(self, options: BackendOptions) -> None:
        self._options = options
        self._name = masked(options.url.partition("?")[0])
        self._prefix = _global_prefix(options.extra) + _PREFIX
        self._life = b"%d" % round(options.expires * 1000) if options.expires else b""
        self._content_type = codec.dumps(None, options.serializer).content_type
        self._open()
        in_forked_child(self._in_child)

    def _open(self) -> None:
        self._redis = open_client(
            self._options.url, timeout=self._options.timeout, setting="result_backend"
        )
        self._script = self._redis.register_script(_STORE)
        self._waiting = Subscriptions()
        #: Guards the making of *_listener*.
        self._lock = threading.Lock()
        self._listener: _Listener | None = None

    def _in_child(self) -> None:
        if self._listener is not None:
            self._listener.release()
        self._open()

    def store(self, result: Result, *, reply_to: str | None = None) -> None:
        key, body, life = self._values(result)
        seen = b""
        while True:
            with self._reporting("store", result.task_id):
                found = self._script(keys=[key], args=[body, life, seen])
            if found is None or self._is_final(found):
                return
            seen = found

    def pipeline(self) -> Pipeline:
        script: str = self._script.sha  # type: ignore[attr-defined]  # of which the stubs know nothing
        return _Pipeline(self, self._redis, script, self._values)

    def _values(self, result: Result) -> tuple[str, bytes, bytes]:
        """Key, new value and life of *result*, as the script takes them."""
        body = wire.encode(result, self._options.serializer).body
        return self._prefix + result.task_id, body, self._life

    def fetch(self, task_id: str) -> Result | None:
        with self._reporting("fetch", task_id):
            value = self._redis.get(self._prefix + task_id)
        return None if value is None else self._decode(value)

    def forget(self, task_id: str) -> None:
        with self._reporting("forget", task_id):
            self._redis.delete(self._prefix + task_id)

    def subscribe(
        self, task_id: str, on_ready: OnReady, *, fresh: bool = False
    ) -> Callable[[], None]:
        waiting = self._waiting
        if fresh and self._listener is not None and self._listener.hears:
            waiting.add(task_id, on_ready)  # the listener looks, when it has subscribed
        else:
            waiting.begin(task_id, on_ready, self.fetch)
        with self._lock:
            if self._listener is None:
                self._listener = _Listener(
                    self._redis, self._name, self._prefix, waiting, self._decode
                )
            listener = self._listener
        listener.follow(task_id)

        def end() -> None:
            waiting.remove(task_id, on_ready)
            listener.follow(task_id)

        return end

    def close(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        self._redis.close()

    @contextmanager
    def _reporting(self, doing: str, task_id: str) -> Iterator[None]:
        with reporting(doing, task_id, self._name, redis.RedisError):
            try:
                yield
            except redis.RedisError as error:
                if said := explain(error):
                    raise redis.ConnectionError(said) from error
                raise

    def _is_final(self, value: bytes) -> bool:
        try:
            return self._decode(value).state == states.SUCCESS
        except MessageMalformed:
            return False

    def _decode(self, value: bytes) -> Result:
        if value.startswith(_COMPRESSED):
            method, _, packed = value.removeprefix(_COMPRESSED).partition(b"\0")
            value = codec.decompress(packed, method.decode("ascii", "replace"), _LARGEST)
        return wire.decode(value, self._content_type, None, self._options.accept)


def _global_prefix(transport_options: Mapping[str, Any]) -> str:
    """What Celery puts before all keys of one database's tenant."""
    prefix = str(transport_options.get("global_keyprefix") or "")
    return prefix if not prefix or prefix[-1] in ":_-." else f"{prefix}_"


class _Pipeline:
    """Results on their way, on a connection of their own; Redis's answers are read afterwards.

    An answer costs as much time as three results take to be sent, most of it in waking up.  Where
    an answer is not the usual one the result is stored again, as any other.
    """

    def __init__(
        self,
        backend: RedisBackend,
        client: "redis.Redis[bytes]",
        script: str,
        values: Callable[[Result], tuple[str, bytes, bytes]],
    ) -> None:
        self._backend = backend
        self._redis = client
        self._script = script.encode()
        self._values = values
        self._connection: Any = None
        self._socket: socket.socket
        self._flags = 0
        #: Results whose answers are still to come, in their order, and those without a connection.
        self._sent: list[Result] = []
        self._lost: list[Result] = []

    def store(self, result: Result, *, reply_to: str | None = None) -> None:
        key, body, life = self._values(result)
        self._sent.append(result)
        try:
            if self._connection is None:
                self._connect()
            self._socket.sendall(
                _packed(b"EVALSHA", self._script, b"1", key.encode(), body, life, b""), self._flags
            )
        except (redis.RedisError, OSError):
            self._give_up()

    def settle(self) -> None:
        again: list[Result] = []
        try:
            if self._flags and self._sent:
                # Sends what the kernel has gathered: tcp(7).
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while self._sent:
                if not self._is_next_taken():
                    again.append(self._sent[0])
                del self._sent[0]
        except (redis.RedisError, OSError):
            self._give_up()
        again += self._lost
        self._lost = []
        for result in again:
            self._backend.store(result)

    def _connect(self) -> None:
        self._connection = self._redis.connection_pool.make_connection()
        self._connection.connect()
        self._socket = self._connection._sock  # redis-py has no public way to it
        is_tcp = self._socket.family != socket.AF_UNIX and type(self._socket) is socket.socket
        self._flags = _GATHER if is_tcp else 0

    def _is_next_taken(self) -> bool:
        """Whether the next answer says that a result is stored."""
        try:
            return self._connection.read_response() is None
        except redis.ResponseError:  # the script is not known there yet, for one
            return False

    def _give_up(self) -> None:
        """Expect no more answers."""
        self._lost += self._sent
        self._sent = []
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None


def _packed(*words: bytes) -> bytes:
    """A command as Redis reads it; redis-py takes ten times as long for the same."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


class _Listener:
    """The connection on which this process hears results, and the one thread that touches it.

    One, because a TLS socket must not be read and written by two at once; other threads reach it
    through its loop.
    """

    def __init__(
        self,
        client: "redis.Redis[bytes]",
        name: str,
        prefix: str,
        waiting: Subscriptions,
        decode: Callable[[bytes], Result],
    ) -> None:
        self._redis = client
        self._name = name
        self._prefix = prefix
        self._waiting = waiting
        self._decode = decode
        # Written by the thread alone:
        self._connection: Any = None  # redis-py's classes for it have no common type
        self._descriptor = -1
        self._followed: set[str] = set()
        self._heard = True
        self._delay = _FIRST_DELAY
        self._loop = Loop()
        self._loop.add_callback(lambda: self._attempt(self._connect))
        self._loop.call_later(_PATIENCE, lambda: self._attempt(self._ping))
        self._thread = threading.Thread(target=self._run, name="taskq-results", daemon=True)
        self._thread.start()

    @property
    def hears(self) -> bool:
        """Whether it is connected, as far as it knows."""
        return self._connection is not None

    def follow(self, task_id: str) -> None:
        """Subscribe to the channel of *task_id* if somebody waits for it now, else unsubscribe."""
        self._loop.add_callback(lambda: self._attempt(lambda: self._follow(task_id)))

    def close(self) -> None:
        """Hang up, and wait for the thread if it is not the caller."""
        self._loop.add_callback(self._loop.stop)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def release(self) -> None:
        """Let the descriptors go: at the thread's end, and in a child that has no such thread."""
        if self._connection is not None:
            self._connection.disconnect()
        self._loop.close()

    def _run(self) -> None:
        self._loop.start()
        self.release()

    def _attempt(self, step: Callable[[], None]) -> None:
        """Do one *step* with the connection, and begin anew with another if it fails."""
        try:
            step()
        except redis.RedisError as error:
            self._lose(explain(error) or str(error))

    def _lose(self, reason: str) -> None:
        if self._connection is not None:
            self._loop.remove_handler(self._descriptor)
            self._connection.disconnect()
            self._connection = None
        log.event(
            "connection-lost",
            broker=self._name,
            role="results",
            reason=masked(reason),
            delay=self._delay,
        )
        self._loop.call_later(self._delay, lambda: self._attempt(self._connect))
        self._delay = min(2 * self._delay, _LONGEST_DELAY)

    def _connect(self) -> None:
        connection: Any = self._redis.connection_pool.make_connection()
        connection.connect()
        self._connection = connection
        self._descriptor = connection._sock.fileno()  # redis-py has no public way to it
        self._loop.add_handler(
            self._descriptor, lambda _fd, _events: self._attempt(self._read), Loop.READ
        )
        self._heard, self._delay = True, _FIRST_DELAY
        self._followed = set(self._waiting.ids())
        if self._followed:
            keys = [self._prefix + task_id for task_id in self._followed]
            connection.send_command("SUBSCRIBE", *keys)

    def _read(self) -> None:
        confirmed: list[bytes] = []
        self._heard = True
        while self._connection.can_read(0):
            match self._connection.read_response():
                case [b"message", key, value]:
                    self._settle(key, value)
                case [b"subscribe", key, _]:
                    confirmed.append(key)
        if confirmed:
            for key, value in zip(confirmed, self._redis.mget(confirmed), strict=True):
                if value is not None:
                    self._settle(key, value)

    def _settle(self, key: bytes, value: bytes) -> None:
        task_id = key.decode().removeprefix(self._prefix)
        try:
            self._waiting.settle(self._decode(value))
        except MessageMalformed as error:
            self._waiting.settle(unreadable(task_id, error))
        self._follow(task_id)

    def _follow(self, task_id: str) -> None:
        wanted = task_id in self._waiting
        if self._connection is None or wanted == (task_id in self._followed):
            return
        if wanted:
            self._followed.add(task_id)
        else:
            self._followed.remove(task_id)
        command = "SUBSCRIBE" if wanted else "UNSUBSCRIBE"
        self._connection.send_command(command, self._prefix + task_id)

    def _ping(self) -> None:
        """Notice a connection that died without a word."""
        self._loop.call_later(_PATIENCE, lambda: self._attempt(self._ping))
        if self._connection is not None and not self._heard:
            self._lose(f"no answer to PING within {_PATIENCE:g} s")
        elif self._connection is not None:
            self._heard = False
            self._connection.send_command("PING")
