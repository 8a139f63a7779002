"""Storing the outcomes that the parent decided: lost, expired, unregistered, malformed.

A result store may block for as long as it is away, which the parent's one thread must not; so it
asks an extra child, forked on first need.  Settling the message waits for its word.
"""

from typing import TYPE_CHECKING, Any

from taskq import clock, states
from taskq.errors import BackendUnavailable, TaskqError
from taskq.wire.result import Result
from taskq.worker.frames import STORE, Frame
from taskq.worker.relay import Relay

if TYPE_CHECKING:
    from taskq.app import TaskQ

#: Where Celery's readers find the exceptions that stand for these endings.
_MODULES = {
    "WorkerLostError": "billiard.exceptions",
    "TimeLimitExceeded": "billiard.exceptions",
}


def request(
    number: int, task_id: str, state: str, exception: str, text: str, headers: Any
) -> Frame:
    """The frame that asks the clerk to store how task *task_id* ended.

    *headers* are the properties of its message, for the fields that a result takes over.
    """
    value = {
        "exc_type": exception,
        "exc_message": [text],
        "exc_module": _MODULES.get(exception, "celery.exceptions"),
    }
    return [
        STORE,
        number,
        task_id,
        state,
        value,
        _text(headers.headers.get("parent_id")),
        _text(headers.headers.get("group")),
        headers.reply_to,
    ]


def store(app: "TaskQ", relay: Relay, frame: Frame) -> str | None:
    """Store what `request` asked for; None when it is stored, else why it is not."""
    _word, number, task_id, state, value, parent_id, group_id, reply_to = frame
    done = clock.utc().isoformat() if state in states.READY_STATES else None
    result = Result(task_id, state, value, None, done, None, parent_id, group_id)
    relay.job = number
    try:
        store_persistently(app, result, reply_to)
    except (TaskqError, OSError) as error:
        return str(error)
    finally:
        relay.job = 0
    return None


def store_persistently(app: "TaskQ", result: Result, reply_to: str | None) -> None:
    """Store *result*, trying for `result_store_retry` seconds while the store is away.

    Raises BackendUnavailable when that is spent, or EncodeError at once.
    """
    deadline = clock.monotonic() + app.conf.result_store_retry
    pause = 0.1
    while True:
        try:
            app.backend.store(result, reply_to=reply_to)
            return
        except BackendUnavailable:
            if clock.monotonic() + pause > deadline:
                raise
        clock.sleep(pause)
        pause = min(5.0, pause * 2)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
