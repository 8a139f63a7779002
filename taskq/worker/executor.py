"""One job from frame to outcome; `run` reads as the life of a job.

The child's side of the road: decode, call, confirm, store, tell.  What then becomes of the message
is the parent's decision (`outcome`), and how a task is called is the task's own (`Task.invoke`).
"""

import os
import reprlib
import traceback
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from taskq import clock, hooks, log, states
from taskq.client.context import Request, running
from taskq.client.endings import is_told, tell
from taskq.client.task import Task
from taskq.errors import (
    BackendUnavailable,
    Ignore,
    MessageMalformed,
    PublishFailed,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    TaskRevokedError,
)
from taskq.wire.codec import serializer
from taskq.wire.headers import TaskHeaders, read_headers
from taskq.wire.message import Message
from taskq.wire.result import Result
from taskq.wire.task import open_body
from taskq.worker import slate
from taskq.worker.frames import Frame
from taskq.worker.outcome import Outcome
from taskq.worker.recorder import Ending, Recorder, failure
from taskq.worker.relay import Relay

if TYPE_CHECKING:
    from taskq.app import TaskQ

#: So many exceptions of one failure are looked at to shorten its traceback.
_CAUSES = 100


class Told(NamedTuple):
    """What the parent is told of a job that has ended."""

    job: int
    outcome: Outcome
    #: Seconds in the function.
    runtime: float
    reason: str = ""
    #: Exception type, text and the end of its traceback.
    evidence: tuple[str, str, str] | None = None
    #: What it came to, as text, if somebody wants to read that.
    shown: str | None = None


class _Run(NamedTuple):
    """A run that has returned, and whose result is on its way."""

    job: int
    task: Task[Any, Any]
    runtime: float


class Terminated(SystemExit):
    """The child was told to end: no task's failure, so no task's ending is told."""


class Executor:
    """Runs jobs one after another, on the child's main thread."""

    def __init__(self, app: "TaskQ", relay: Relay, page: slate.Slate, *, node: str) -> None:
        self._app = app
        self._relay = relay
        self._slate = page
        self._node = node
        #: The job whose function runs, 0 outside of it: what `warn` may strike.
        self._inside = 0
        self._accept = tuple(app.conf.accept_content)
        self._max_payload = app.conf.task_max_payload
        log.limit(app.conf.repr_max_length)
        #: Whether somebody wants to read what tasks return.
        self.shows = False
        self._recorder = Recorder[_Run](app)
        self._shown = reprlib.Repr()
        self._shown.maxother = self._shown.maxstring = app.conf.repr_max_length

    def run(self, frame: Frame, *, more: bool = False) -> list[Told]:
        """Run the job in *frame*; what is to be told, of this job and of others before it.

        If there are *more* to run, nothing may be told for a moment: see `settle`.
        """
        _word, number, queue, exchange, routing_key, redelivered, raw, body = frame
        self._relay.job = number
        self._relay.unconfirmed = False
        message = Message(raw, body)
        headers = read_headers(message)
        runtime = 0.0
        try:
            task = self._app.registry[headers.task]
            opened = open_body(message, self._accept, self._max_payload)
        except (MessageMalformed, KeyError) as error:
            told = self.settle()
            ending = self._refuse(headers, message, error)
        else:
            labels = message.labels
            request = Request.of(
                headers,
                opened.args,
                opened.kwargs,
                {
                    "exchange": exchange,
                    "routing_key": routing_key,
                    "queue": queue,
                    "priority": labels.priority,
                    "redelivered": redelivered,
                },
                self._node,
                labels,
                serializer(labels.content_type),
            )
            with running(request):
                ending, runtime = self._perform(task, request, headers, number)
                is_heard = is_told(task)
                may_wait = more and not is_heard and self._may_wait(task, request, ending)
                if may_wait and self._recorder.begin(request, ending, _Run(number, task, runtime)):
                    self._relay.job = 0
                    return self.settle() if self._recorder.is_due else []
                told = self.settle() if self.owes else []
                # Where nothing comes between, the result goes to the parent with the DONE.
                self._relay.gathers = not (more or is_heard) and ending.outcome is Outcome.SUCCESS
                ending = self._finish(task, request, ending, runtime, is_heard)
                self._relay.gathers = False
        self._relay.job = 0
        told.append(self._told(number, ending, runtime))
        return told

    def _told(self, number: int, ending: Ending, runtime: float) -> Told:
        shown = self._brief(ending.value) if self.shows else None
        if ending.outcome is Outcome.SUCCESS:
            return Told(number, Outcome.SUCCESS, runtime, "", None, shown)
        reason = log.brief(ending.reason)
        return Told(number, ending.outcome, runtime, reason, ending.evidence, shown)

    def _brief(self, value: Any) -> str:
        """What a task returned or raised, as text for monitors."""
        if isinstance(value, Retry) and value.exc is not None:
            value = value.exc
        return log.brief(self._shown.repr(value))

    # -- before ------------------------------------------------------------------------------

    def _refuse(self, headers: TaskHeaders, message: Message, error: Exception) -> Ending:
        """The message is no call that can run here: store that it failed, run nothing."""
        ending = Ending(Outcome.MALFORMED, states.FAILURE, error, None, str(error))
        request = Request.of(headers, (), {}, {}, self._node, message.labels, None)
        if not headers.ignore_result:
            ending = self._recorder.record(request, ending)
        return ending

    # -- the call ----------------------------------------------------------------------------

    def _perform(
        self, task: Task[Any, Any], request: Request, headers: TaskHeaders, number: int
    ) -> tuple[Ending, float]:
        """Call the task's function; what came of it, and after how many seconds."""
        if headers.expires is not None and headers.expires <= clock.wall():
            revoked = TaskRevokedError("expired")
            return Ending(Outcome.REVOKED, states.REVOKED, revoked, None, "expired"), 0.0
        if self._recorder.wants(task, request) and task.track_started:
            self._track_start(request)
        assert request.id is not None
        if hooks.task_prerun:
            hooks.task_prerun.send(
                task=task, task_id=request.id, args=request.args, kwargs=request.kwargs
            )
        started = clock.monotonic()
        self._slate.write(number, slate.IN_USER_CODE, started)
        self._inside = number
        try:
            value = task.invoke(request.args, request.kwargs)
            ending = Ending(Outcome.SUCCESS, states.SUCCESS, value)
        except Retry as retry:
            ending = Ending(Outcome.RETRY, states.RETRY, retry, traceback.format_exc())
        except Ignore as ignore:
            ending = Ending(Outcome.IGNORE, states.IGNORED, ignore)
        except Reject as reject:
            outcome = Outcome.REJECT_REQUEUE if reject.requeue else Outcome.REJECT
            ending = Ending(outcome, states.REJECTED, reject, None, str(reject))
        except Terminated:
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            ending = failure(error)
        finally:
            self._inside = 0
            self._slate.write(number, slate.AROUND, started)
        return ending, clock.monotonic() - started

    def warn(self) -> None:
        """Raise SoftTimeLimitExceeded where the task is, if the parent says so on the slate.

        Called by a signal handler on the main thread.  A signal that comes too late, when the next
        task runs already, finds another job's number there.
        """
        if self._inside and self._slate.is_warned(self._inside):
            self._inside = 0
            raise SoftTimeLimitExceeded

    def _track_start(self, request: Request) -> None:
        assert request.id is not None
        started = {"pid": os.getpid(), "hostname": self._node}
        try:
            self._app.backend.store(
                Result(request.id, states.STARTED, started), reply_to=request.reply_to
            )
        except BackendUnavailable as error:  # the task itself does not depend on it
            log.event("result-lost", name=request.task, id=request.id, reason=str(error))

    # -- after, for several together ---------------------------------------------------------

    def _may_wait(self, task: Task[Any, Any], request: Request, ending: Ending) -> bool:
        """Whether this run, of which no hook hears, may end when others have begun.

        What was acked early would be lost with the child meanwhile, and what was sent is confirmed
        before the result is stored.
        """
        return (
            ending.outcome is Outcome.SUCCESS
            and task.acks_late
            and not self._relay.unconfirmed
            and self._recorder.wants(task, request)
        )

    @property
    def owes(self) -> bool:
        """Whether there are runs to be told of by `settle`."""
        return self._recorder.has_begun

    def settle(self) -> list[Told]:
        """Wait for the store to have the results of all runs that are not told of; tell of them."""
        told = []
        for request, ending, run in self._recorder.settle():
            if ending.outcome is not Outcome.SUCCESS or log.audible("task-succeeded"):
                self._log(run.task, request, ending, run.runtime)
            told.append(self._told(run.job, ending, run.runtime))
        return told

    # -- after -------------------------------------------------------------------------------

    def _finish(
        self,
        task: Task[Any, Any],
        request: Request,
        ending: Ending,
        runtime: float,
        is_heard: bool,
    ) -> Ending:
        """Confirm what the run sent, store how it ended, then tell those who want to know."""
        if ending.outcome is Outcome.RETRY:
            ending = self._send_again(task, request, ending)
        refusal = self._relay.flush()
        if refusal is not None:
            ending = failure(PublishFailed(f"what {request.task} sent was refused: {refusal}"))
        if ending.outcome not in (Outcome.RETRY, Outcome.UNSTORED):
            ending = self._recorder.record_if_wanted(task, request, ending)
        silent = ending.outcome is Outcome.SUCCESS and not is_heard
        if ending.outcome is not Outcome.UNSTORED and not silent:
            tell(
                task,
                request,
                ending.state,
                ending.value,
                traceback=ending.traceback,
                runtime=runtime,
            )
        if ending.outcome is not Outcome.SUCCESS or log.audible("task-succeeded"):
            self._log(task, request, ending, runtime)
        return ending

    def _send_again(self, task: Task[Any, Any], request: Request, ending: Ending) -> Ending:
        # Stored before it is sent: the next try may run elsewhere and end, and that must stay.
        stored = self._recorder.record_if_wanted(task, request, ending)
        if stored is not ending:
            return stored
        try:
            task.send_again(request, ending.value)
        except Exception as error:  # whatever keeps it from being sent is how the task fails
            return failure(error)
        ending.reason = str(ending.value)
        return ending

    def _log(self, task: Task[Any, Any], request: Request, ending: Ending, runtime: float) -> None:
        who: dict[str, Any] = {"name": request.shadow or request.task, "id": request.id}
        match ending.outcome:
            case Outcome.SUCCESS:
                shown = log.brief(self._shown.repr(ending.value))
                log.event("task-succeeded", **who, runtime=runtime, result=shown)
            case Outcome.FAILURE if isinstance(ending.value, tuple(task.throws)):
                shown = log.brief(repr(ending.value))
                log.event("task-failed-expected", **who, exception=shown)
            case Outcome.FAILURE:
                log.event(
                    "task-failed",
                    **who,
                    exception=log.brief(repr(ending.value)),
                    traceback=_brief_traceback(ending),
                )
            case Outcome.RETRY:
                delay = _seconds_until(ending.value.when, self._app.conf.timezone)
                log.event("task-retried", **who, delay=delay, reason=log.brief(ending.reason))
            case Outcome.IGNORE:
                log.event("task-ignored", **who)
            case Outcome.REJECT | Outcome.REJECT_REQUEUE:
                log.event("task-rejected", **who, reason=log.brief(ending.reason))
            case Outcome.REVOKED:
                log.event("task-revoked", **who, reason=ending.reason)


def _brief_traceback(ending: Ending) -> str:
    """The traceback for the log: what exceptions say in it may quote an argument."""
    text = (ending.traceback or "").rstrip()
    for error in _involved(ending.value):
        for said in (str(error), *getattr(error, "__notes__", ())):
            text = text.replace(said, log.brief(said))
    return text


def _involved(error: BaseException) -> Iterator[BaseException]:
    """*error*, the exceptions that led to it, and the members of groups among them."""
    found: list[BaseException | None] = [error]
    for _ in range(_CAUSES):
        if not found:
            return
        each = found.pop()
        if each is not None:
            yield each
            found += [each.__cause__ or each.__context__]
            found += each.exceptions if isinstance(each, BaseExceptionGroup) else ()


def _seconds_until(when: float | datetime, zone: str | None) -> float:
    """*when* as seconds from now; a moment that names no zone is in *zone*, None for UTC."""
    if isinstance(when, datetime):
        aware = when if when.tzinfo else when.replace(tzinfo=ZoneInfo(zone or "UTC"))
        return round(max(0.0, aware.timestamp() - clock.wall()), 3)
    return when
