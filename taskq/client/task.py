"""A task: a function with a name, its author's options, and the ways to call it elsewhere.

How a call travels is `sender`'s business and running in place is `eager`'s; a worker runs a task
by `invoke`.
"""

import contextvars
import inspect
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from inspect import getattr_static as _static
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack, cast

from taskq.client.base import App, default_app
from taskq.client.context import Request, current_request
from taskq.client.options import CallOptions, Signature
from taskq.client.result import AsyncResult, EagerResult
from taskq.client.validation import Validation, plain
from taskq.errors import Ignore, MaxRetriesExceededError, Reject, Retry
from taskq.rate import parse_rate
from taskq.retry import RetryPolicy
from taskq.settings import closest
from taskq.wire.result import Result

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
R = TypeVar("R")


class TaskOptions(TypedDict, total=False):
    """What `@app.task(...)` takes besides `bind` and `base`; `Task` says what each means."""

    name: str
    queue: str | None
    serializer: str
    compression: str | None
    ignore_result: bool
    acks_late: bool
    acks_on_failure_or_timeout: bool
    dead_letter: bool
    reject_on_worker_lost: bool
    max_retries: int | None
    default_retry_delay: float
    autoretry_for: tuple[type[BaseException], ...]
    dont_autoretry_for: tuple[type[BaseException], ...]
    retry_backoff: bool | float
    retry_backoff_max: float
    retry_jitter: bool
    retry_when: Callable[[Any, int], float | None] | None
    throws: tuple[type[BaseException], ...]
    track_started: bool
    time_limit: float | None
    soft_time_limit: float | None
    rate_limit: str | float | None
    priority: int | None
    expires: float | None
    pydantic: bool
    typing: bool
    schedule: Any


class _Setting:
    """An attribute that is a setting of the app's until the task or its class has its own."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, task: "Task[Any, Any] | None", owner: type) -> Any:
        return self if task is None else getattr(task.app.conf, self._name)


def _setting(name: str) -> Any:
    return _Setting(name)


class Task(Generic[P, R]):
    """A function that can be called here, as a plain function, or sent to run in a worker.

    Made by `@app.task`; *base* classes derive from it to change options and the `on_...` methods,
    and may bring a `run` of their own.  The attributes below are what `@app.task(...)` sets.
    """

    name: str = ""
    #: The queue it goes to, unless a call or task_routes says otherwise.
    queue: str | None = None
    serializer: str = _setting("task_serializer")
    compression: str | None = _setting("task_compression")
    priority: int | None = _setting("task_default_priority")
    #: Seconds after the call; a worker that would start it later does not.
    expires: float | None = None
    #: Keep no result.
    ignore_result: bool = _setting("task_ignore_result")
    #: Acknowledge the message when the task is done, not when it starts.
    acks_late: bool = _setting("task_acks_late")
    #: Count it as dealt with when it failed or timed out.
    acks_on_failure_or_timeout: bool = _setting("task_acks_on_failure_or_timeout")
    #: Keep its message in the dead-letter queue when it failed for good.
    dead_letter: bool = True
    #: Run it again when the process that ran it died.
    reject_on_worker_lost: bool = _setting("task_reject_on_worker_lost")
    #: Store STARTED when it starts.
    track_started: bool = _setting("task_track_started")
    #: Seconds after which it is killed, and told by SoftTimeLimitExceeded; None or 0: never.
    time_limit: float | None = _setting("task_time_limit")
    soft_time_limit: float | None = _setting("task_soft_time_limit")
    #: How often each worker begins it at most: "10/s", "100/m", "5/h"; None: as often as it can.
    rate_limit: str | float | None = _setting("task_default_rate_limit")
    #: How often it may be tried again; None: without end.
    max_retries: int | None = 3
    #: Seconds before a retry, where neither the call to `retry` nor *retry_backoff* says otherwise.
    default_retry_delay: float = 180.0
    #: Exceptions after which it is tried again by itself, and those among them that are left alone.
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    #: Retries wait twice as long each time, starting with this many seconds (True: one).
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600.0
    #: Wait a random part of that.
    retry_jitter: bool = True
    #: A function of an exception and the number of the attempt that raised it (the first is 1): the
    #: seconds until the next, or None for no more.  It is asked instead of *retry_backoff*, as long
    #: as *max_retries* allows, about what *autoretry_for* names, else about any `Exception`.
    retry_when: Callable[[Any, int], float | None] | None = None
    #: Exceptions that are no surprise: logged in one line, without traceback.
    throws: tuple[type[BaseException], ...] = ()
    #: Validate and convert arguments and result by their annotations.
    pydantic: bool = False
    #: Check at the call that the arguments fit the function.
    typing: bool = True
    #: When beat sends it: seconds, `crontab(...)`, "30 7 * * 1", or a mapping as in beat_schedule.
    schedule: Any = None

    #: The function as it is called with the task's own arguments.
    run: Callable[..., Any]

    def __init__(
        self,
        function: Callable[..., Any] | None = None,
        *,
        app: App | None = None,
        bind: bool = False,
        **options: Unpack[TaskOptions],
    ) -> None:
        self._app = app
        self.bind = bind
        for option, value in options.items():
            if option not in TaskOptions.__annotations__:
                raise TypeError(_no_option(option))
            if value is not None or not isinstance(_static(type(self), option), _Setting):
                vars(self)[option] = value
        if function is not None:
            self.run = function.__get__(self) if bind else function
            self.__wrapped__ = function
            self.__doc__ = function.__doc__
        elif not callable(getattr(self, "run", None)):
            raise TypeError(f"{type(self).__qualname__} has no method `run` and no function")
        source = function if function is not None else type(self)
        #: Module and qualified name of what it runs: two tasks with the same are the same.
        self.origin = (_module_of(source), source.__qualname__)
        self.name = self.name or f"{self.origin[0]}.{source.__name__}"
        self.__name__ = source.__name__
        self.__qualname__ = source.__qualname__
        self.__module__ = source.__module__
        _ = self.retry_policy  # what is none is refused here, not at the first failure
        parse_rate(self._own("rate_limit"))
        #: The options of each call that the author set, weaker than a route's.
        self.call_options = {
            option: value for option in _CALL_OPTIONS if (value := self._own(option)) is not None
        }

    @property
    def app(self) -> App:
        """The app it belongs to; for a shared task, the one made last."""
        return self._app or default_app(f"shared task {self.name}")

    @property
    def request(self) -> Request:
        """The run that this code is part of; an empty one in a plain call of the function."""
        request = current_request()
        return request if request is not None and request.task == self.name else Request()

    @property
    def retry_policy(self) -> RetryPolicy:
        """How often and how far apart it is tried again."""
        return RetryPolicy(
            limit=self.max_retries,
            delay=self.default_retry_delay,
            backoff=float(self.retry_backoff) or None,
            longest=self.retry_backoff_max,
            jitter=self.retry_jitter,
            autoretry_for=self.autoretry_for,
            dont_autoretry_for=self.dont_autoretry_for,
            retry_when=self.retry_when,
        )

    # -- calling -------------------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now, as if it were no task."""
        return cast(R, self.run(*args, **kwargs))

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send it to a worker with these arguments; returns when the broker has it.

        Raises TypeError for arguments that do not fit, EncodeError for those that cannot travel,
        PublishRefused when it certainly is not queued, PublishUnconfirmed when nobody knows.
        """
        return self.apply_async(args, kwargs)

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """As `delay`, without holding up the event loop."""
        return await self.aapply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """As `delay`, with the *options* of this one call (see `CallOptions`)."""
        if self.app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        sent = self.app.sender.send(self.name, args or (), kwargs or {}, options, self)
        return cast(AsyncResult[R], sent)

    async def aapply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """As `apply_async`, without holding up the event loop."""
        if self.app.conf.task_always_eager:
            import asyncio

            return await asyncio.to_thread(self.apply, args, kwargs, **options)
        sent = await self.app.sender.asend(self.name, args or (), kwargs or {}, options, self)
        return cast(AsyncResult[R], sent)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> EagerResult[R]:
        """Run it here and now as a worker would, retries included but without their delays.

        *throw* raises what it raised; None: as task_eager_propagates says.
        """
        done = self.app.run_in_place(self, args or (), kwargs or {}, options, throw=throw)
        return cast(EagerResult[R], done)

    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature:
        """This call as a value, to be sent later (`app.send_many`)."""
        return Signature(self.name, args, kwargs, type=self)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature:
        """As `s`, taking nothing from a task before it."""
        return Signature(self.name, args, kwargs, immutable=True, type=self)

    def AsyncResult(self, id: str) -> AsyncResult[R]:  # noqa: N802
        """The result of the run *id* of this task."""
        return AsyncResult(id, self.app, task=self.name)

    # -- inside a run --------------------------------------------------------------------------

    def retry(  # Celery's arguments in Celery's order
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Ask for this run to be made again, later; raises Retry, which must leave the task.

        The same id runs again after *countdown* seconds, at *eta*, or after the delay that the
        task's options say; with other *args*, *kwargs* or *options* if given.  When *max_retries*
        are used up, *exc* is raised, or MaxRetriesExceededError.  With *throw* off it is sent at
        once, and the Retry is returned.  In a plain call of the function *exc* is raised.  Code
        without the task at hand raises `Retry` itself, to the same effect.
        """
        request = self.request
        if request.called_directly:
            raise exc or Retry(f"{self.name} was called directly; only a sent task is tried again")
        policy = self.retry_policy
        if max_retries is not None:
            policy = replace(policy, limit=max_retries)
        number = request.retries + 1
        if not policy.allows(number):
            raise exc or MaxRetriesExceededError(
                f"{self.name}[{request.id}] was tried {number} times and may not be again; "
                f"args: {request.args!r:.200} kwargs: {request.kwargs!r:.200}"
            )
        when = eta if eta is not None else countdown
        again = Again(
            exc=exc or sys.exception(),
            when=policy.delay_before(number) if when is None else when,
            args=args,
            kwargs=kwargs,
            options=options,
        )
        if throw or request.is_eager:
            raise again
        self.send_again(request, again)
        return again

    def update_state(
        self,
        task_id: str | None = None,
        state: str | None = None,
        meta: Any = None,
    ) -> None:
        """Store *state* (a word of your own, such as "PROGRESS") and *meta* as the run's result."""
        request = self.request
        if request.is_eager and not self.app.conf.task_store_eager_result:
            return
        task_id = task_id or request.id
        if task_id is None or not state:
            raise ValueError(f"{self.name}.update_state needs a state, and a task_id outside a run")
        self.app.backend.store(Result(task_id, state, meta), reply_to=request.reply_to)

    # -- to be overridden in a base class ------------------------------------------------------

    def on_success(
        self, retval: Any, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        """The run returned *retval*, and the result is stored."""

    def on_failure(
        self,
        exc: BaseException,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: str,
    ) -> None:
        """The run failed with *exc*; *einfo* is its traceback as text."""

    def on_retry(
        self,
        exc: BaseException,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: str,
    ) -> None:
        """The task will run again because of *exc*."""

    def after_return(  # Celery's arguments in Celery's order
        self,
        status: str,
        retval: Any,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: str | None,
    ) -> None:
        """The run ended in state *status* with *retval*, a value or an exception."""

    # -- for those who send and run tasks ------------------------------------------------------

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """TypeError, naming the task, if *args* and *kwargs* do not fit the function."""
        if not kwargs and len(args) in self._arity:
            return
        if self.typing and self._signature is not None:
            try:
                self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self.name}{self._signature}: {error}") from None

    def outgoing(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """*args* and *kwargs* as they travel: pydantic models of a `pydantic=True` task as data."""
        return (plain(args), plain(kwargs)) if self.pydantic else (args, kwargs)

    def invoke(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        runner: "asyncio.Runner | None" = None,
    ) -> Any:
        """Run the function for the current request and return what is to be stored.

        A coroutine runs to its end, on *runner* if there is one.  Raises Again where the run is to
        be made again, by its own wish or by the task's options, as long as retries are left, and
        InvalidArguments, which is never retried, when annotations are to be checked and something
        does not fit them.
        """
        if self.pydantic:
            args, kwargs = self._validation.arguments(args, kwargs)
        try:
            value = self.run(*args, **kwargs)
            if inspect.iscoroutine(value):
                value = _run_to_end(value, runner)
        except (Again, Reject, Ignore, MaxRetriesExceededError):
            raise
        except Retry as asked:  # made by hand: how often, and when by default, `retry` knows
            if isinstance(asked.when, datetime):
                raise self.retry(exc=asked.exc, eta=asked.when) from asked
            raise self.retry(exc=asked.exc, countdown=asked.when) from asked
        except BaseException as error:
            delay = self.retry_policy.delay_after(error, self.request.retries + 1)
            if delay is None:
                raise
            raise self.retry(exc=error, countdown=delay) from error
        return self._validation.result(value) if self.pydantic else value

    def send_again(self, request: Request, retry: Retry) -> None:
        """Send the next try of *request*, with the same id, as *retry* asks."""
        again = retry if isinstance(retry, Again) else Again(exc=retry.exc, when=retry.when)
        self.app.sender.send_again(self, request, again)

    @cached_property
    def _signature(self) -> inspect.Signature | None:
        try:
            return inspect.signature(self.run)
        except (TypeError, ValueError):  # some functions written in C do not tell
            return None

    @cached_property
    def listens(self) -> bool:
        """Whether it has an `on_success` or an `after_return` of its own."""
        own, plain = type(self), Task
        return (
            own.on_success is not plain.on_success
            or own.after_return is not plain.after_return
            or not vars(self).keys().isdisjoint(("on_success", "after_return"))
        )

    @cached_property
    def _arity(self) -> range:
        """How many arguments by position always fit, without any by name."""
        parameters = self._signature.parameters.values() if self._signature is not None else ()
        needed = [each.kind for each in parameters if each.default is each.empty]
        if any(kind is inspect.Parameter.KEYWORD_ONLY for kind in needed):
            return range(0)
        known = [each.kind for each in parameters if each.kind in _BY_POSITION]
        return range(sum(kind in _BY_POSITION for kind in needed), len(known) + 1)

    @cached_property
    def _validation(self) -> Validation:
        return Validation(self.run, self.name)

    def _own(self, option: str) -> Any:
        """What the task or its class has for *option*; None where the app's setting rules."""
        value = vars(self).get(option, _static(type(self), option))
        return None if isinstance(value, _Setting) else value

    def __repr__(self) -> str:
        return f"<task {self.name}>"


class Again(Retry):
    """A Retry that knows what the next try differs in; what `Task.retry` raises."""

    def __init__(
        self,
        exc: BaseException | None,
        when: float | datetime | None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(None, exc, when)
        self.new_args = args
        self.new_kwargs = kwargs
        self.options = options or {}


#: Kinds of parameters that an argument without a name may be for.
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

#: Options of a call that a task may have of its own.
_CALL_OPTIONS = (
    "queue", "serializer", "compression", "priority", "expires", "ignore_result", "time_limit",
    "soft_time_limit",
)  # fmt: skip


def _run_to_end(coroutine: Coroutine[Any, Any, Any], runner: "asyncio.Runner | None") -> Any:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    if runner is not None:
        return runner.run(coroutine)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    # Run in place inside somebody's event loop, which cannot turn meanwhile: it gets its own.
    with ThreadPoolExecutor(1) as other:
        return other.submit(contextvars.copy_context().run, asyncio.run, coroutine).result()


def _module_of(source: Callable[..., Any]) -> str:
    """The name of the module of *source*, as another process would import it.

    That of `__main__` is the name given to `python -m`, or the file's name without `.py`.
    """
    if source.__module__ != "__main__":
        return source.__module__
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return main.__spec__.name.removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return os.path.splitext(os.path.basename(file))[0] if file else "__main__"


def _no_option(option: str) -> str:
    near = closest(option, TaskOptions.__annotations__)
    meant = f"; did you mean {near!r}?" if near else ""
    return f"a task has no option {option!r}{meant}"
