"""taskq: background work on RabbitMQ, or on one SQLite file; the public names and nothing else."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from taskq import hooks
from taskq.errors import (
    BackendUnavailable,
    BrokerUnavailable,
    ConfigurationError,
    EncodeError,
    Ignore,
    InvalidArguments,
    MaxRetriesExceededError,
    PublishError,
    PublishFailed,
    PublishRefused,
    PublishUnconfirmed,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    TaskAlreadyRegistered,
    TaskNotRegistered,
    TaskqError,
    TaskRevokedError,
    TimeLimitExceeded,
    TimeoutError,
    Undeliverable,
    WorkerLostError,
)

if TYPE_CHECKING:
    from taskq.app import TaskQ, shared_task
    from taskq.client.options import Signature
    from taskq.client.result import AsyncResult, EagerResult
    from taskq.client.task import Task
    from taskq.schedules import clocked, crontab, schedule

__all__ = [
    "AsyncResult",
    "BackendUnavailable",
    "BrokerUnavailable",
    "ConfigurationError",
    "EagerResult",
    "EncodeError",
    "Ignore",
    "InvalidArguments",
    "MaxRetriesExceededError",
    "PublishError",
    "PublishFailed",
    "PublishRefused",
    "PublishUnconfirmed",
    "Reject",
    "Retry",
    "Signature",
    "SoftTimeLimitExceeded",
    "Task",
    "TaskAlreadyRegistered",
    "TaskNotRegistered",
    "TaskQ",
    "TaskRevokedError",
    "TaskqError",
    "TimeLimitExceeded",
    "TimeoutError",
    "Undeliverable",
    "WorkerLostError",
    "clocked",
    "crontab",
    "hooks",
    "schedule",
    "shared_task",
]


#: The only place that says it.
__version__ = "0.1.0"

#: Where the other names live.  They are imported when they are first asked for: the parent of a
#: worker needs none of them, and would be twice as large.
_HOMES = {
    "AsyncResult": "taskq.client.result",
    "EagerResult": "taskq.client.result",
    "Signature": "taskq.client.options",
    "Task": "taskq.client.task",
    "TaskQ": "taskq.app",
    "clocked": "taskq.schedules",
    "crontab": "taskq.schedules",
    "schedule": "taskq.schedules",
    "shared_task": "taskq.app",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        globals()[name] = found = getattr(import_module(_HOMES[name]), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
