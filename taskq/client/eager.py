"""Running a task in place, as a worker would: for `apply()` and `task_always_eager`.

No message is made.  Retries happen at once, whatever their delay.
"""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from taskq import clock, hooks, states
from taskq.client.base import App
from taskq.client.context import Request, current_request, running
from taskq.client.endings import tell
from taskq.client.options import Options
from taskq.client.result import EagerResult
from taskq.client.sender import new_id
from taskq.client.task import Again, Task
from taskq.errors import Ignore, Reject, Retry
from taskq.wire.result import Result, exception_to_wire


def run_in_place(
    app: App,
    task: Task[Any, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    throw: bool | None = None,
) -> EagerResult[Any]:
    """Run *task* until it no longer asks for a retry; what it raised is raised with *throw*."""
    task.check(args, kwargs)
    args, kwargs = task.outgoing(args, kwargs)
    chosen = Options.merged(task.call_options, options)
    parent = current_request()
    task_id = chosen.task_id or new_id()
    request = Request(
        task=task.name,
        id=task_id,
        args=tuple(args),
        kwargs=dict(kwargs),
        root_id=(parent and (parent.root_id or parent.id)) or task_id,
        parent_id=parent.id if parent else None,
        headers=chosen.headers,
        delivery_info={
            "exchange": chosen.exchange or "",
            "routing_key": chosen.routing_key or chosen.queue or app.conf.task_default_queue,
            "priority": chosen.priority,
            "redelivered": False,
        },
        timelimit=(chosen.time_limit, chosen.soft_time_limit),
        ignore_result=chosen.ignore_result,
        is_eager=True,
        called_directly=False,
    )
    while isinstance(done := _run_once(app, task, request), Request):
        request = done
    if throw is None:
        throw = app.conf.task_eager_propagates
    if throw:
        done.get()
    return done


def _run_once(app: App, task: Task[Any, Any], request: Request) -> EagerResult[Any] | Request:
    """What a run ended with, or the request of the run that it asks for."""
    fields: dict[str, Any] = {"task": task, "task_id": request.id}
    call: dict[str, Any] = {"args": request.args, "kwargs": request.kwargs}
    hooks.task_prerun.send(**fields, **call)
    started = clock.monotonic()
    text: str | None = None
    outcome: Any
    with running(request):
        try:
            outcome = task.invoke(request.args, request.kwargs)
            state = states.SUCCESS
        except Retry as retry:
            outcome, state, text = retry, states.RETRY, traceback.format_exc()
        except Ignore as ignore:
            outcome, state = ignore, states.IGNORED
        except Reject as reject:
            outcome, state = reject, states.REJECTED
        except Exception as error:
            outcome, state, text = error, states.FAILURE, traceback.format_exc()
        runtime = clock.monotonic() - started
        tell(task, request, state, outcome, traceback=text, runtime=runtime)
    if isinstance(outcome, Retry):
        return _next(request, outcome)
    if state in (states.IGNORED, states.REJECTED):
        outcome = None
    value = exception_to_wire(outcome) if state in states.EXCEPTION_STATES else outcome
    assert request.id is not None
    done = clock.utc().isoformat() if state in states.READY_STATES else None
    final = Result(request.id, state, value, text, done, parent_id=request.parent_id)
    if app.conf.task_store_eager_result and state in states.READY_STATES:
        app.backend.store(final)
    return EagerResult(request.id, app, task=task.name, final=final, outcome=outcome)


def _next(request: Request, retry: Retry) -> Request:
    again = retry if isinstance(retry, Again) else Again(retry.exc, retry.when)
    return replace(
        request,
        retries=request.retries + 1,
        args=request.args if again.new_args is None else tuple(again.new_args),
        kwargs=request.kwargs if again.new_kwargs is None else dict(again.new_kwargs),
    )
