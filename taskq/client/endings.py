"""Telling how a run of a task ended: its own `on_...` methods first, then the hooks.

Nothing that they raise changes the ending; it is logged as `hook-failed`.
"""

from collections.abc import Callable
from typing import Any

from taskq import hooks, log, states
from taskq.client.context import Request
from taskq.client.task import Task
from taskq.errors import Retry


def is_told(task: Task[Any, Any]) -> bool:
    """Whether anybody hears of a run of *task* that begins or succeeds."""
    listens = hooks.task_prerun or hooks.task_success or hooks.task_postrun
    return bool(listens) or task.listens


def tell(
    task: Task[Any, Any],
    request: Request,
    state: str,
    outcome: Any,
    *,
    traceback: str | None = None,
    runtime: float = 0.0,
) -> None:
    """Say that *request*, a run of *task*, ended in *state* after *runtime* seconds.

    *outcome* is what it returned or raised (the Retry, in state RETRY).
    """
    task_id = request.id or ""
    call = (task_id, request.args, request.kwargs)
    fields: dict[str, Any] = {"task": task, "task_id": task_id}
    if state == states.SUCCESS:
        _call(task.on_success, outcome, *call)
        if hooks.task_success:
            hooks.task_success.send(**fields, result=outcome, runtime=runtime)
    elif state == states.RETRY and isinstance(outcome, Retry):
        reason = outcome.exc or outcome
        _call(task.on_retry, reason, *call, traceback or "")
        hooks.task_retry.send(**fields, reason=reason, when=outcome.when)
    elif state == states.FAILURE:
        _call(task.on_failure, outcome, *call, traceback or "")
        hooks.task_failure.send(
            **fields,
            args=request.args,
            kwargs=request.kwargs,
            exception=outcome,
            traceback=traceback or "",
        )
    _call(task.after_return, state, outcome, *call, traceback)
    if hooks.task_postrun:
        hooks.task_postrun.send(
            **fields, args=request.args, kwargs=request.kwargs, state=state, result=outcome
        )


def _call(method: Callable[..., object], *args: Any) -> None:
    try:
        method(*args)
    except Exception as error:
        name = f"{method.__self__.name}.{method.__name__}"  # type: ignore[attr-defined]
        failed = log.brief(repr(error))
        log.event("hook-failed", hook=method.__name__, function=name, exception=failed)
