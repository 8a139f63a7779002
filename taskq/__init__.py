"""taskq: background work on RabbitMQ, or on one SQLite file; the public names and nothing else."""

from typing import TYPE_CHECKING, Any

from taskq import hooks, schedules
from taskq.app import TaskQ, shared_task
from taskq.client.options import Signature
from taskq.client.result import AsyncResult, EagerResult
from taskq.client.task import Task
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


def __getattr__(name: str) -> Any:
    if name == "__version__":  # looked up only when it is asked for, because that reads files
        from importlib.metadata import version

        return version("taskq")
    if name in ("clocked", "crontab", "schedule"):  # not everybody has a schedule
        return getattr(schedules, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
