"""`TaskQ`, the one object a user makes: it holds the parts of a program's half and opens them late.

Nothing connects, and no driver is imported, before something is sent or a result is asked for.
"""

import importlib
import importlib.util
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    overload,
)

from taskq import schedules
from taskq.backends import open_backend
from taskq.backends.base import Backend
from taskq.broker import open_broker
from taskq.broker.base import Broker, Outlet, Route
from taskq.broker.topology import physical
from taskq.client.base import set_default_app
from taskq.client.eager import run_in_place
from taskq.client.options import CallOptions, Signature
from taskq.client.producer import Producer
from taskq.client.registry import Registry
from taskq.client.result import AsyncResult, EagerResult
from taskq.client.router import RouterTable
from taskq.client.sender import Sender
from taskq.client.task import Task, TaskOptions
from taskq.client.timetable import Setup, Timetable
from taskq.errors import ConfigurationError
from taskq.settings import Settings
from taskq.wire.message import Message

if TYPE_CHECKING:
    from taskq.control.inspector import Control

P = ParamSpec("P")
R = TypeVar("R")


class MakesTask(Protocol):
    """What `@app.task(...)` is: from a function, also a coroutine function, to its task."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class MakesBoundTask(Protocol):
    """As `MakesTask`, for a function whose first argument is the task itself."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
    ) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> Task[P, R]: ...


class TaskQ:
    """An app: settings, tasks, and the connections that they use.

    *broker* and *backend* are the settings `broker_url` and `result_backend`, *include* names
    modules with tasks that a worker imports, *settings* are any others.  ConfigurationError for a
    setting that there is not or a value of the wrong kind.  Any thread may use an app.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        broker: str | Sequence[str] | None = None,
        backend: str | None = None,
        include: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        self.main = name or "taskq"
        given = {"broker_url": broker, "result_backend": backend, "include": include or None}
        self.conf = Settings(
            **{key: value for key, value in given.items() if value is not None}, **settings
        )
        self.registry = Registry()
        self._timetable = Timetable(self.conf, self.registry)
        #: Its `connect` decorates functions that add to the schedule, called before that is read.
        self.on_after_configure = Setup()
        self._discoveries: list[tuple[Iterable[str] | Callable[[], Iterable[str]], str]] = []
        self._lock = threading.RLock()
        self._broker: Broker | None = None
        self._backend: Backend | None = None
        self._producer: Producer | None = None
        self._router: tuple[int, RouterTable] | None = None
        self._control: Control | None = None
        self.sender = Sender(self, lambda: self.router, lambda: self.producer)
        for share in _shared:
            share(self)
        _apps.add(self)
        set_default_app(self)

    # -- defining ------------------------------------------------------------------------------

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        *,
        bind: Literal[True],
        base: type[Task[Any, Any]] = ...,
        **options: Unpack[TaskOptions],
    ) -> MakesBoundTask: ...
    @overload
    def task(
        self,
        *,
        bind: Literal[False] = ...,
        base: type[Task[Any, Any]] = ...,
        **options: Unpack[TaskOptions],
    ) -> MakesTask: ...
    def task(self, *function: Any, **options: Any) -> Any:
        """Make a function a task of this app; the decorator, bare or with options.

        *bind* passes the task itself as first argument, *base* is a class derived from `Task`; the
        other options are the attributes of `Task`.
        """
        make = partial(self._make, options)
        return make(*function) if function else make

    def register_task(self, task: Task[P, R] | type[Task[P, R]]) -> Task[P, R]:
        """Add a task whose function is the `run` of its class."""
        made = task() if isinstance(task, type) else task
        made._app = self
        self.registry.register(made)
        self._timetable.check(made)
        return made

    def autodiscover_tasks(
        self,
        packages: Iterable[str] | Callable[[], Iterable[str]],
        related_name: str = "tasks",
    ) -> None:
        """Have workers import `<package>.<related_name>` of all *packages* that have one."""
        self._discoveries.append((packages, related_name))

    def import_modules(self) -> None:
        """Import what `include`, `imports` and autodiscovery name, so that its tasks are known."""
        for module in dict.fromkeys((*self.conf.include, *self.conf.imports)):
            importlib.import_module(module)
        for packages, related_name in self._discoveries:
            for package in packages() if callable(packages) else packages:
                importlib.import_module(package)
                module = f"{package}.{related_name}"
                if importlib.util.find_spec(module) is not None:
                    importlib.import_module(module)

    def config_from_object(self, source: object) -> None:
        """Take settings from a module (its name will do), any object, or a mapping.

        What the environment or the program's own code sets is stronger.
        """
        self.conf.load(source)

    # -- the schedule --------------------------------------------------------------------------

    def add_periodic_task(
        self,
        schedule: object,
        sig: Signature | Task[Any, Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> str:
        """Have beat send the call *sig* (`task.s(...)`) as *schedule* says; the entry's name.

        *schedule* is seconds, a timedelta, `crontab(...)` or five fields of text; *options* are
        those of an entry (`missed`, `overlap`, ...) and of `apply_async`.  ConfigurationError for
        what is wrong with it, and if another entry has the name.
        """
        return self._timetable.add(schedule, sig, args, kwargs or {}, name, options)

    def schedule_entries(self) -> "dict[str, schedules.Entry]":
        """What beat is to send: `beat_schedule`, the tasks' own schedules, what was added.

        Calls what is connected to `on_after_configure` and was not called yet.
        """
        self.on_after_configure.run(self)
        return self._timetable.entries()

    def schedule_entry(self, name: str, given: Mapping[str, Any]) -> "schedules.Entry":
        """The entry *name* that *given* describes, as `beat_schedule` does; it is added nowhere.

        ConfigurationError for what is wrong with it.
        """
        return self._timetable.read(name, given)

    # -- calling -------------------------------------------------------------------------------

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[Any]:
        """Call the task *name*, whose code need not be here; returns when the broker has it.

        Raises EncodeError for arguments that cannot travel, PublishRefused when it certainly is
        not queued, PublishUnconfirmed when nobody knows.
        """
        return self.sender.send(name, args or (), kwargs or {}, options)

    async def asend_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[Any]:
        """As `send_task`, without holding up the event loop."""
        return await self.sender.asend(name, args or (), kwargs or {}, options)

    def send_many(self, signatures: Iterable[Signature]) -> list[AsyncResult[Any]]:
        """Send many calls (`task.s(...)`, `app.signature(...)`), waiting for all confirms together.

        Nothing is sent if one cannot be encoded.  Those that are not confirmed are in an
        ExceptionGroup of PublishErrors, each naming its task and id; the others are queued.
        """
        if self.conf.task_always_eager:
            return [self._run_signature(each) for each in signatures]
        return self.sender.send_many(signatures)

    def signature(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Signature:
        """A call of the task *name* as a value, to be sent later."""
        return Signature(name, tuple(args), dict(kwargs or {}), dict(options))

    def run_in_place(
        self,
        task: Task[Any, Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        *,
        throw: bool | None = None,
    ) -> EagerResult[Any]:
        """Run *task* in this process as a worker would."""
        return run_in_place(self, task, args, kwargs, options, throw=throw)

    # -- the parts -----------------------------------------------------------------------------

    @property
    def broker(self) -> Broker:
        """The broker that `broker_url` names, opened when first used."""
        if self._broker is None:
            with self._lock:
                if self._broker is None:
                    self._broker = open_broker(self.conf.broker_options())
        return self._broker

    @property
    def backend(self) -> Backend:
        """The result store that `result_backend` names, opened when first used."""
        if self._backend is None:
            with self._lock:
                if self._backend is None:
                    self._backend = open_backend(
                        self.conf.backend_options(),
                        broker=self.broker,
                        outlet=lambda: self.producer.outlet,
                    )
        return self._backend

    @property
    def producer(self) -> Producer:
        """What publishes this process's messages, opened when first used."""
        if self._producer is None:
            with self._lock:
                if self._producer is None:
                    self._producer = Producer(
                        self.broker,
                        timeout=self.conf.publish_timeout,
                        retry=self.conf.task_publish_retry_policy,
                    )
        return self._producer

    @property
    def control(self) -> "Control":
        """What asks and steers workers: `app.control.inspect().active()`."""
        from taskq.control.inspector import Control

        if self._control is None:
            self._control = Control(
                lambda: self.broker,
                self._publish,
                lambda queue: physical(queue, self.conf.queue_prefix),
                lambda: self.conf.publish_timeout,
            )
        return self._control

    @property
    def router(self) -> RouterTable:
        """The queues and routes that the settings name, as they are now."""
        known = self._router
        if known is None or known[0] != self.conf.changes:
            conf = self.conf
            table = RouterTable(
                queues=conf.task_queues,
                routes=conf.task_routes,
                default=conf.task_default_queue,
                create_missing=conf.task_create_missing_queues,
                max_priority=conf.task_queue_max_priority,
                physical=lambda name: physical(name, conf.queue_prefix),
            )
            self._router = known = (conf.changes, table)
        return known[1]

    def use_outlet(self, outlet: Outlet) -> None:
        """Publish through *outlet* from now on and open no connection: a worker's child does."""
        self.producer.use(outlet)

    def close(self) -> None:
        """Release connections and threads, giving what is unconfirmed a moment.  Idempotent.

        Using the app again opens them again.
        """
        with self._lock:
            parts = (self._producer, self._backend, self._broker)
            self._producer = self._backend = self._broker = None
        for part in parts:
            if part is not None:
                part.close()

    def __enter__(self) -> "TaskQ":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<TaskQ {self.main}>"

    # -- how -----------------------------------------------------------------------------------

    def _make(self, options: Mapping[str, Any], function: Callable[..., Any]) -> Task[Any, Any]:
        task = _made(function, self, options)
        self.registry.register(task)
        self._timetable.check(task)
        return task

    def _publish(self, message: Message, route: Route) -> None:
        self.producer.publish(message, route)

    def _run_signature(self, call: Signature) -> EagerResult[Any]:
        task = call.type or self.registry[call.task]
        return self.run_in_place(task, call.args, call.kwargs, call.options)

    # Last, because from here on the class has this name for itself.
    def AsyncResult(self, id: str) -> AsyncResult[Any]:  # noqa: N802
        """The result of the task *id*, whoever sent it.

        With rpc:// results only those of tasks that this process sent can be read; others raise.
        """
        return AsyncResult(id, self)


#: Every app of this process, and what each must have: the shared tasks.
_apps: weakref.WeakSet[TaskQ] = weakref.WeakSet()
_shared: list[Callable[[TaskQ], object]] = []


def _renew_locks() -> None:
    """In a forked child: another thread of the parent may have held one."""
    for app in _apps:
        app._lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_locks)


@overload
def shared_task(function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
@overload
def shared_task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def shared_task(
    *, bind: Literal[True], base: type[Task[Any, Any]] = ..., **options: Unpack[TaskOptions]
) -> MakesBoundTask: ...
@overload
def shared_task(
    *,
    bind: Literal[False] = ...,
    base: type[Task[Any, Any]] = ...,
    **options: Unpack[TaskOptions],
) -> MakesTask: ...
def shared_task(*function: Any, **options: Any) -> Any:
    """As `@app.task`, for code that does not know its app: every app has the task.

    Called where it was defined, it is sent by the app that was made last.
    """
    make = partial(_share, options)
    return make(*function) if function else make


def _share(options: Mapping[str, Any], function: Callable[..., Any]) -> Task[Any, Any]:
    def share(app: TaskQ) -> None:
        app._make(options, function)

    for app in list(_apps):
        share(app)
    _shared.append(share)
    return _made(function, None, options)


def _made(
    function: Callable[..., Any], app: TaskQ | None, options: Mapping[str, Any]
) -> Task[Any, Any]:
    if not callable(function):
        raise TypeError(f"a task is made of a function, not of {function!r}")
    rest = dict(options)
    base: Any = rest.pop("base", None) or Task
    if not (isinstance(base, type) and issubclass(base, Task)):
        raise ConfigurationError(f"base={base!r} is no class derived from taskq.Task")
    task: Task[Any, Any] = base(function, app=app, **rest)
    return task
