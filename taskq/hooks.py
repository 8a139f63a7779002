"""Where users attach observers to what taskq does; the hooks themselves do nothing.

::

    from taskq import hooks

    @hooks.task_failure
    def tell_someone(*, task_id: str, exception: BaseException, **_: Any) -> None: ...

A handler is called with keyword arguments only, in the process and thread where the thing happens,
and holds it up meanwhile.  It names the fields that it wants and takes the others as `**_`, so that
a later field breaks nothing.  An exception from a handler is logged as `hook-failed` and changes
nothing else.  The function under `@Hook` is never called: it gives a hook its name, its fields and
their types.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import datetime
from typing import Any, Generic, ParamSpec

from taskq import log

P = ParamSpec("P")


class Hook(Generic[P]):
    """One kind of event, and those who want to hear of it; used as a decorator, it adds one."""

    def __init__(self, shape: Callable[P, object]) -> None:
        self.name = shape.__name__
        self.__doc__ = shape.__doc__
        # Replaced and never changed in place, so that `send` needs no lock.
        self._handlers: tuple[Callable[P, object], ...] = ()

    def __call__(self, handler: Callable[P, object]) -> Callable[P, object]:
        """Call *handler* at each event from now on; adding it twice is adding it once."""
        if handler not in self._handlers:
            self._handlers = (*self._handlers, handler)
        return handler

    def disconnect(self, handler: Callable[P, object]) -> None:
        """Forget *handler*; nothing happens if it is not known."""
        self._handlers = tuple(each for each in self._handlers if each != handler)

    def send(self, *args: P.args, **fields: P.kwargs) -> None:
        """Tell every handler; never raises what a handler raised."""
        for handler in self._handlers:
            try:
                handler(*args, **fields)
            except Exception as error:
                function = getattr(handler, "__qualname__", repr(handler))
                failed = log.brief(repr(error))
                log.event("hook-failed", hook=self.name, function=function, exception=failed)

    def __bool__(self) -> bool:
        """Whether anybody listens: lets hot paths skip making the fields."""
        return bool(self._handlers)

    def __repr__(self) -> str:
        return f"<Hook {self.name}: {len(self._handlers)} handlers>"


@Hook
def worker_process_init() -> None:
    """A child of the worker was forked and will now take tasks: open connections of your own."""


@Hook
def worker_ready(*, node: str) -> None:
    """The worker *node* consumes from its queues."""


@Hook
def worker_shutdown(*, node: str) -> None:
    """The worker *node* has finished its tasks and ends."""


@Hook
def task_prerun(*, task: Any, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """A task is about to run."""


@Hook
def task_postrun(
    *,
    task: Any,
    task_id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    state: str,
    result: Any,
) -> None:
    """A task ran and is now in *state*; *result* is its value or exception."""


@Hook
def task_success(*, task: Any, task_id: str, result: Any, runtime: float) -> None:
    """A task returned *result* after *runtime* seconds."""


@Hook
def task_failure(
    *,
    task: Any,
    task_id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    exception: BaseException,
    traceback: str,
) -> None:
    """A task failed for good with *exception*; *traceback* is text."""


@Hook
def task_retry(
    *, task: Any, task_id: str, reason: BaseException, when: float | datetime | None
) -> None:
    """A task will run again: *when* is seconds from now, a moment, or None for at once."""


@Hook
def before_publish(
    *,
    app: Any,
    task: str,
    task_id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    headers: MutableMapping[str, Any],
) -> None:
    """A task is about to be sent; what a handler adds to *headers* travels with it."""


@Hook
def after_publish(
    *,
    app: Any,
    task: str,
    task_id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    headers: Mapping[str, Any],
    exchange: str,
    routing_key: str,
) -> None:
    """The broker has the task (inside a task: the worker has it, and passes it on)."""
