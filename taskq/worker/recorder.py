"""How runs ended, kept in the result store: one by one, or several on their way together.

Whether a run may wait for others is the executor's decision.  A store that is away is asked again
for `result_store_retry` seconds; what becomes of the message then is the parent's business.
"""

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from taskq import clock, log, states
from taskq.backends.base import Pipeline
from taskq.client.context import Request
from taskq.client.task import Task
from taskq.errors import BackendUnavailable, EncodeError, Retry
from taskq.wire.result import Result, exception_to_wire
from taskq.worker.clerk import store_persistently
from taskq.worker.outcome import Outcome

if TYPE_CHECKING:
    from taskq.app import TaskQ

#: What goes with a run that is kept.
T = TypeVar("T")

#: Frames of these rooms at a traceback's start say nothing about the task.
_OURS = tuple(str(Path(__file__).parents[1] / room) for room in ("worker", "client"))
#: So much of a traceback's end travels in a dead letter.
_TAIL = 8 * 1024
#: Seconds for which the first of several results may be on its way unasked-for.
_PATIENCE = 0.001


@dataclass(slots=True)
class Ending:
    """How a run ended: the outcome, the state to store with its value, and what to say of it."""

    outcome: Outcome
    state: str
    value: Any
    traceback: str | None = None
    reason: str = ""

    @property
    def evidence(self) -> tuple[str, str, str] | None:
        """Exception type, text and the end of its traceback, for a dead letter."""
        if not isinstance(self.value, BaseException):
            return None
        return type(self.value).__qualname__, str(self.value), (self.traceback or "")[-_TAIL:]


def failure(error: BaseException) -> Ending:
    """The ending of a run that raised *error*; the traceback begins in the task's own code."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None and _is_ours(at.tb_frame.f_code.co_filename):
        at = at.tb_next
    text = "".join(traceback.format_exception(type(error), error, at))
    return Ending(Outcome.FAILURE, states.FAILURE, error, text, str(error))


class Recorder(Generic[T]):
    """Keeps endings in the result store of *app*, for one thread."""

    def __init__(self, app: "TaskQ") -> None:
        self._app = app
        self._pipeline: Pipeline | None = None
        self._begun: list[tuple[Request, Ending, T]] = []
        self._begun_at = 0.0

    def wants(self, task: Task[Any, Any], request: Request) -> bool:
        """Whether anybody wants the result: the call decides, then the task."""
        ignored = task.ignore_result if request.ignore_result is None else request.ignore_result
        return not ignored

    def record_if_wanted(self, task: Task[Any, Any], request: Request, ending: Ending) -> Ending:
        """As `record`, where the result is wanted, or a failure is kept in any case."""
        if ending.outcome in (Outcome.IGNORE, Outcome.REJECT_REQUEUE):
            return ending
        failed = ending.state in states.PROPAGATE_STATES
        if self.wants(task, request) or (
            failed and self._app.conf.task_store_errors_even_if_ignored
        ):
            return self.record(request, ending)
        return ending

    def record(self, request: Request, ending: Ending) -> Ending:
        """Store *ending*; the same, or another where that could not be done.

        Nothing that was begun may be unsettled.
        """
        result = _result(request, ending)
        try:
            if not self._is_stored(result, request.reply_to):
                store_persistently(self._app, result, request.reply_to)
        except EncodeError as error:
            # What was returned cannot be kept: that is how the task fails.
            return self.record(request, failure(error))
        except BackendUnavailable as error:
            log.event("result-lost", name=request.task, id=request.id, reason=str(error))
            return Ending(Outcome.UNSTORED, ending.state, error, None, str(error))
        return ending

    def _is_stored(self, result: Result, reply_to: str | None) -> bool:
        """Whether the pipeline, which is the quickest way, could store *result*."""
        pipeline = self._opened()
        try:
            pipeline.store(result, reply_to=reply_to)
            pipeline.settle()
        except BackendUnavailable:
            return False
        return True

    def _opened(self) -> Pipeline:
        if self._pipeline is None:
            self._pipeline = self._app.backend.pipeline()
        return self._pipeline

    # -- several together ----------------------------------------------------------------------

    def begin(self, request: Request, ending: Ending, what: T) -> bool:
        """Begin to store *ending*, of a run that succeeded; False if it cannot be stored.

        *what* comes back from `settle`.
        """
        if not self._begun:
            self._begun_at = clock.monotonic()
        try:
            self._opened().store(_result(request, ending), reply_to=request.reply_to)
        except (EncodeError, BackendUnavailable):
            return False
        self._begun.append((request, ending, what))
        return True

    @property
    def has_begun(self) -> bool:
        """Whether anything that was begun is not settled."""
        return bool(self._begun)

    @property
    def is_due(self) -> bool:
        """Whether something was begun so long ago that it should be settled now."""
        return bool(self._begun) and clock.monotonic() - self._begun_at > _PATIENCE

    def settle(self) -> list[tuple[Request, Ending, T]]:
        """Wait until all that was begun is stored: each run, and how it ended in the end."""
        begun, self._begun = self._begun, []
        if begun:
            try:
                self._opened().settle()
            except BackendUnavailable:
                return [(run, self.record(run, ending), what) for run, ending, what in begun]
        return begun


def _result(request: Request, ending: Ending) -> Result:
    state, value = ending.state, ending.value
    if state == states.REJECTED:
        state = states.FAILURE
    if isinstance(value, Retry) and ending.outcome is Outcome.RETRY:
        # Not the Retry that was raised: readers elsewhere know only the plain class.
        value = value.exc or Retry(value.message)
    if isinstance(value, BaseException):
        value = exception_to_wire(value)
    assert request.id is not None
    return Result(
        task_id=request.id,
        state=state,
        value=value,
        traceback=ending.traceback,
        date_done=clock.utc().isoformat() if state in states.READY_STATES else None,
        parent_id=request.parent_id,
        group_id=request.group,
    )


def _is_ours(file: str) -> bool:
    return file.startswith(_OURS)
