"""Every exception that taskq raises, as one tree; who raises which is for their docstrings.

::

    TaskqError
    ├── ConfigurationError           a setting, URL or option is wrong
    ├── TaskNotRegistered            a name that no task here has (Celery: NotRegistered)
    ├── TaskAlreadyRegistered        two functions want one name
    ├── BrokerUnavailable            no connection within the time allowed
    ├── QueueError                   what an operator asked of a queue cannot be done
    ├── BackendUnavailable           the result store did not answer
    ├── PublishError
    │   ├── PublishRefused           certainly not queued
    │   │   └── Undeliverable        ... nor would it be if it were sent again
    │   └── PublishUnconfirmed       may be queued; the same id is safe to send again
    ├── EncodeError                  a value that would not come back equal
    ├── MessageMalformed             received bytes that are no task
    │   └── ContentDisallowed        ... of a content type that accept_content does not list
    ├── TimeoutError                 a result did not arrive in time
    └── TaskFailure                  how a task can end without an exception of its own
        ├── MaxRetriesExceededError
        ├── WorkerLostError
        ├── TimeLimitExceeded
        ├── SoftTimeLimitExceeded
        ├── TaskRevokedError
        ├── PublishFailed            what the task sent was refused
        └── InvalidArguments         arguments or result do not fit the annotations

    TaskRequest                      not errors: a running task asks for something
    ├── Retry
    ├── Reject
    └── Ignore

A message has three parts: what happened, to what (task, id, queue, broker with the password
masked), and what to do.
"""

import builtins
from datetime import datetime


class TaskqError(Exception):
    """The root of everything that taskq raises as an error."""


class ConfigurationError(TaskqError):
    """A setting, URL or option cannot be used; the message names it and the remedy."""


class TaskNotRegistered(TaskqError, KeyError):
    """No task of this name is registered here."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class TaskAlreadyRegistered(TaskqError):
    """Two different functions were registered under one task name."""


class BrokerUnavailable(TaskqError):
    """No connection to any broker URL could be made within the time allowed."""


class QueueError(TaskqError):
    """What was asked of a queue cannot be done: there is none, it is in use, it is not empty."""


class BackendUnavailable(TaskqError):
    """The result store could not be reached, or failed, within the time allowed."""


class PublishError(TaskqError):
    """A message was not confirmed by the broker."""


class PublishRefused(PublishError):
    """The message is certainly not queued: unroutable, rejected, or never handed to the broker."""


class Undeliverable(PublishRefused):
    """Sending the same message again is in vain: it leads to no queue, or no broker can take it."""


class PublishUnconfirmed(PublishError):
    """The message may or may not be queued; sending it again with the same id is safe."""


class EncodeError(TaskqError, ValueError):
    """A value cannot be serialised so that it comes back equal."""


class MessageMalformed(TaskqError):
    """A received message is not a task: *reason* is one short phrase for its dead letter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ContentDisallowed(MessageMalformed):
    """A received message has a content type outside `accept_content`."""


class TimeoutError(TaskqError, builtins.TimeoutError):  # noqa: A001
    """A result did not arrive within the time that the caller gave."""


class TaskFailure(TaskqError):
    """How a task can end without an exception of its own."""


class MaxRetriesExceededError(TaskFailure):
    """The task asked for a retry and had none left."""


class WorkerLostError(TaskFailure):
    """The process that ran the task died."""


class TimeLimitExceeded(TaskFailure):
    """The hard time limit passed and the child was killed."""


class SoftTimeLimitExceeded(TaskFailure):
    """Raised inside a task whose soft time limit passed; it may be caught."""


class TaskRevokedError(TaskFailure):
    """The task was revoked or expired before it ran."""


class PublishFailed(TaskFailure):
    """A message that the task sent was refused, so the task counts as failed."""


class InvalidArguments(TaskFailure, ValueError):
    """Arguments or result of a `pydantic=True` task do not fit its annotations."""


class TaskRequest(Exception):
    """What a running task asks of its worker by raising; not an error."""


class Retry(TaskRequest):
    """Run this task again later, as `Task.retry` would, for as long as it has retries left.

    *when* is seconds from now or a datetime; None: as the task's options say.  *exc* is what it
    fails with when no retries are left.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | None = None,
        when: float | datetime | None = None,
    ) -> None:
        super().__init__(message or (repr(exc) if exc else "retry"))
        self.message = message
        self.exc = exc
        self.when = when


class Reject(TaskRequest):
    """Reject the message: back to its queue with *requeue*, else to the dead-letter queue."""

    def __init__(self, reason: str | None = None, requeue: bool = False) -> None:
        super().__init__(reason or "rejected by the task")
        self.reason = reason
        self.requeue = requeue


class Ignore(TaskRequest):
    """Acknowledge the message and store nothing."""
