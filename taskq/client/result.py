"""What became of a task: the caller's hold on a result that may not be there yet.

Where results are kept is the backend's business, what they look like there is `wire.result`'s.
"""

import builtins
import contextlib
import itertools
import math
import weakref
from collections.abc import Callable, Iterator
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar, cast

from taskq import clock, states
from taskq.client.base import App, default_app
from taskq.client.context import current_request
from taskq.errors import BackendUnavailable, TimeoutError
from taskq.retry import RetryPolicy
from taskq.wire.result import Result, exception_from_wire

R = TypeVar("R")

#: So many seconds after it was sent nobody expects a result yet: as long as RabbitMQ and a worker
#: take at their best.
_FRESH = 0.001
#: How a store that is away is asked again by who begins to wait.
_AWAY = RetryPolicy(limit=None, backoff=0.05, longest=1.0, jitter=False)


class AsyncResult(Generic[R]):
    """The result of task *id*; reading it asks the backend until it is final, then no more.

    Without *app* it is that of the app made last.
    """

    def __init__(self, id: str, app: App | None = None, *, task: str | None = None) -> None:
        self.id = id
        self.task = task
        self._app = app or default_app(f"the result of task {id}")
        self._final: Result | None = None
        #: When it was sent (monotonic), if this process has sent it.
        self._sent = -math.inf

    def was_sent(self) -> "AsyncResult[R]":
        """Note that its task has been sent just now."""
        self._sent = clock.monotonic()
        return self

    # -- waiting -------------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        *,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """Wait for the task and return what it returned.

        A failure is raised as the exception it was, with the worker's traceback in its notes; with
        *propagate* off it is returned.  Raises taskq's TimeoutError after *timeout* seconds; None
        waits until the result is there.  A backend tells when that is; *interval* makes this call
        ask by itself, too, every so many seconds.  While the store is away it is waited for, too;
        BackendUnavailable is raised where it was never there, for *timeout* seconds or, without
        one, for result_store_retry.  Inside a task RuntimeError is raised, because tasks that wait
        for tasks can block all workers; *disable_sync_subtasks* off allows it.
        """
        if self._final is None:
            self._refuse_in_task(disable_sync_subtasks)
            self._final = self._wait(timeout, interval)
        return self._open(self._final, propagate)

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        *,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """As `get`, without holding up the event loop."""
        import asyncio

        if self._final is None:
            self._refuse_in_task(disable_sync_subtasks)
            loop = asyncio.get_running_loop()
            deadline = None if timeout is None else clock.monotonic() + timeout
            arrived: asyncio.Future[Result] = loop.create_future()

            def settle(result: Result) -> None:
                if not arrived.done():
                    arrived.set_result(result)

            def on_ready(result: Result) -> None:
                try:
                    loop.call_soon_threadsafe(settle, result)
                except RuntimeError:
                    pass  # the event loop is closed: nobody waits any more

            end = await self._asubscribe(on_ready, timeout)
            try:
                left = None if deadline is None else max(0.0, deadline - clock.monotonic())
                self._final = await asyncio.wait_for(arrived, left)
            except builtins.TimeoutError:
                raise self._too_late(timeout) from None
            finally:
                end()
        return self._open(self._final, propagate)

    def wait(self, timeout: float | None = None, propagate: bool = True) -> R:
        """Another word for `get`."""
        return self.get(timeout, propagate)

    # -- looking -------------------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        """Whether the task has ended well."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Whether the task has failed."""
        return self.state == states.FAILURE

    @property
    def state(self) -> str:
        """One of `taskq.states`, or a state the task gave itself; PENDING if nothing is known."""
        known = self._look()
        return known.state if known else states.PENDING

    @property
    def result(self) -> Any:
        """What the task returned, the exception it raised, or the meta of a state of its own."""
        known = self._look()
        if known is not None and known.state in states.EXCEPTION_STATES:
            return exception_from_wire(known.value)
        return known.value if known else None

    @property
    def traceback(self) -> str | None:
        """The worker's traceback of a failed task."""
        known = self._look()
        return known.traceback if known else None

    @property
    def date_done(self) -> datetime | None:
        """When the task ended."""
        known = self._look()
        return datetime.fromisoformat(known.date_done) if known and known.date_done else None

    def exists(self) -> bool:
        """Whether the backend knows anything of the task."""
        return self._look() is not None

    def forget(self) -> None:
        """Remove the result from the backend."""
        self._final = None
        self._app.backend.forget(self.id)

    def revoke(self, terminate: bool = False, signal: str | int | None = None) -> None:
        """Have the task never run; it ends as REVOKED where a worker meets it.

        Returns when the broker has it, PublishError otherwise.  With *terminate* a run that goes on
        is ended by *signal*, SIGTERM if nothing else is said.  What has ended stays as it is.
        """
        self._app.control.revoke(self.id, terminate=terminate, signal=signal)

    status = state
    info = result

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, AsyncResult) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._named()}>"

    # -- how -----------------------------------------------------------------------------------

    def _look(self) -> Result | None:
        if self._final is not None:
            return self._final
        known = self._app.backend.fetch(self.id)
        if known is not None and known.state in states.READY_STATES:
            self._final = known
        return known

    def _wait(self, timeout: float | None, interval: float | None) -> Result:
        deadline = None if timeout is None else clock.monotonic() + timeout
        arrived: SimpleQueue[Result] = SimpleQueue()  # wakes up sooner than an Event
        end = self._subscribe(arrived.put, timeout)
        try:
            while True:
                left = None if deadline is None else max(0.0, deadline - clock.monotonic())
                pause = min((each for each in (left, interval) if each is not None), default=None)
                with contextlib.suppress(Empty):
                    return arrived.get(timeout=pause)
                if interval is not None and self._is_there():
                    return cast(Result, self._final)
                if pause == left:
                    raise self._too_late(timeout)
        finally:
            end()

    def _is_there(self) -> bool:
        try:
            self._look()
        except BackendUnavailable:
            pass  # who waits goes on waiting while the store is away
        return self._final is not None

    def _subscribe(
        self, on_ready: Callable[[Result], None], timeout: float | None
    ) -> Callable[[], None]:
        fresh = clock.monotonic() - self._sent < _FRESH
        for pause in self._attempts(timeout):
            try:
                return self._app.backend.subscribe(self.id, on_ready, fresh=fresh)
            except BackendUnavailable:
                clock.sleep(pause)
        return self._app.backend.subscribe(self.id, on_ready)

    async def _asubscribe(
        self, on_ready: Callable[[Result], None], timeout: float | None
    ) -> Callable[[], None]:
        import asyncio

        for pause in self._attempts(timeout):
            try:
                return await asyncio.to_thread(self._app.backend.subscribe, self.id, on_ready)
            except BackendUnavailable:
                await asyncio.sleep(pause)
        return await asyncio.to_thread(self._app.backend.subscribe, self.id, on_ready)

    def _attempts(self, timeout: float | None) -> Iterator[float]:
        """Seconds to wait after each failure to reach the store but the last, which is told."""
        patience = self._app.conf.result_store_retry if timeout is None else timeout
        deadline = clock.monotonic() + patience
        for attempt in itertools.count(1):
            left = deadline - clock.monotonic()
            if left <= 0:
                return
            yield min(left, _AWAY.delay_before(attempt))

    def _open(self, result: Result, propagate: bool) -> R:
        if result.state not in states.PROPAGATE_STATES:
            return cast(R, result.value)
        error = exception_from_wire(result.value)
        if result.traceback:
            error.add_note(f"The task's own traceback, from the worker:\n{result.traceback}")
        if propagate:
            raise error
        return cast(R, error)

    def _refuse_in_task(self, refuse: bool) -> None:
        request = current_request()
        if refuse and request is not None and not request.is_eager:
            raise RuntimeError(
                f"task {request.task}[{request.id}] waits for the result of {self._named()}: tasks "
                "that wait for tasks can block every worker; pass disable_sync_subtasks=False if "
                "this cannot happen here"
            )

    def _too_late(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(
            f"no result of {self._named()} within {timeout:g} s; it may still come: "
            "does a worker take from the task's queue?"
        )

    def _named(self) -> str:
        return f"{self.task or 'task'}[{self.id}]"


class EagerResult(AsyncResult[R]):
    """The result of a task that ran in place, in `apply()` or with task_always_eager.

    *outcome* is the value or the exception itself.
    """

    def __init__(self, id: str, app: App, *, task: str, final: Result, outcome: Any) -> None:
        super().__init__(id, app, task=task)
        self._final = final
        self._outcome = outcome

    @property
    def result(self) -> Any:
        """What the task returned, or the exception it raised."""
        return self._outcome

    info = result

    def forget(self) -> None:
        """Nothing is kept anywhere."""

    def revoke(self, terminate: bool = False, signal: str | int | None = None) -> None:
        """Nothing happens: the task has run."""

    def _open(self, result: Result, propagate: bool) -> R:
        if propagate and result.state in states.PROPAGATE_STATES:
            raise self._outcome
        return cast(R, self._outcome)


def hold(result: AsyncResult[Any], app: App) -> None:
    """Have the backend keep what arrives for *result* for as long as anybody holds it."""
    app.backend.hold(result.id)
    release: Callable[[str], None] = app.backend.release
    weakref.finalize(result, release, result.id).atexit = False
