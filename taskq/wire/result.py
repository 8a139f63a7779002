"""What a result store keeps of a task: Celery's result mapping, and exceptions as data.

Where results are kept is for the backends; the states and their order are in `taskq.states`.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

from taskq import errors
from taskq.errors import EncodeError, MessageMalformed
from taskq.wire import codec


@dataclass(frozen=True, slots=True)
class Result:
    """One state of one task, as a store keeps it.

    *value* is the return value, or the meta mapping of a custom state; for exception states the
    mapping {exc_type, exc_message, exc_module} (see `exception_to_wire`).  *date_done* is ISO 8601
    text with offset, for ready states only.
    """

    task_id: str
    state: str
    value: Any = None
    traceback: str | None = None
    date_done: str | None = None
    children: list[Any] | None = None
    parent_id: str | None = None
    group_id: str | None = None


def encode(result: Result, serializer: str = "json") -> codec.Encoded:
    """*result* as the mapping that Celery's readers know; EncodeError if its value cannot be."""
    fields = {
        "status": result.state,
        "result": result.value,
        "traceback": result.traceback,
        "children": result.children,
        "date_done": result.date_done,
        "task_id": result.task_id,
    }
    if result.group_id is not None:
        fields["group_id"] = result.group_id
    if result.parent_id is not None:
        fields["parent_id"] = result.parent_id
    return codec.dumps(fields, serializer)


def decode(
    body: bytes, content_type: str | None, content_encoding: str | None, accept: Iterable[str]
) -> Result:
    """The result in *body*; ContentDisallowed or MessageMalformed for anything else."""
    fields = codec.loads(body, content_type, content_encoding, accept)
    if not isinstance(fields, dict):
        raise MessageMalformed("a result is not a mapping")
    task_id, state = fields.get("task_id"), fields.get("status")
    if not isinstance(task_id, str) or not isinstance(state, str):
        raise MessageMalformed("a result has no task_id or no status")
    done, children = fields.get("date_done"), fields.get("children")
    return Result(
        task_id=task_id,
        state=state,
        value=fields.get("result"),
        traceback=_text(fields.get("traceback")),
        date_done=done.isoformat() if isinstance(done, datetime) else _text(done),
        children=children if isinstance(children, list) else None,
        parent_id=_text(fields.get("parent_id")),
        group_id=_text(fields.get("group_id")),
    )


# -- exceptions ----------------------------------------------------------------------------------

#: taskq's exceptions that Celery's readers know by a name and module of their own.
_CELERY: dict[type[Exception], tuple[str, str]] = {
    errors.TaskNotRegistered: ("celery.exceptions", "NotRegistered"),
    errors.MessageMalformed: ("celery.exceptions", "InvalidTaskError"),
    errors.TaskRevokedError: ("celery.exceptions", "TaskRevokedError"),
    errors.MaxRetriesExceededError: ("celery.exceptions", "MaxRetriesExceededError"),
    errors.Retry: ("celery.exceptions", "Retry"),
    errors.Reject: ("celery.exceptions", "Reject"),
    errors.Ignore: ("celery.exceptions", "Ignore"),
    errors.WorkerLostError: ("billiard.exceptions", "WorkerLostError"),
    errors.TimeLimitExceeded: ("billiard.exceptions", "TimeLimitExceeded"),
    errors.SoftTimeLimitExceeded: ("billiard.exceptions", "SoftTimeLimitExceeded"),
}

#: The way back; `celery.exceptions` hands out billiard's classes as well.
_TASKQ = {name: kind for kind, (_module, name) in _CELERY.items()}
_CELERY_MODULES = {"celery.exceptions", "billiard.exceptions"}


def exception_to_wire(exception: BaseException) -> dict[str, Any]:
    """*exception* as {exc_type, exc_message, exc_module}, where exc_message lists its arguments.

    An argument that no serializer can carry becomes its repr.
    """
    kind = type(exception)
    module, name = _CELERY.get(cast(type[Exception], kind), (kind.__module__, kind.__qualname__))
    return {
        "exc_type": name,
        "exc_message": [_portable(argument) for argument in exception.args],
        "exc_module": module,
    }


def exception_from_wire(mapping: object) -> Exception:
    """The exception that `exception_to_wire` or Celery made *mapping* of; never raises.

    A class is looked for in modules that are imported already.  One that is not there, or is no
    Exception (a stored SystemExit must not end its reader), or cannot be built of the arguments, is
    stood in for by a new class of the same name.
    """
    if not isinstance(mapping, Mapping) or not isinstance(mapping.get("exc_type"), str):
        return errors.TaskFailure(f"the task failed; all that is stored is {mapping!r:.200}")
    name, module = mapping["exc_type"], mapping.get("exc_module")
    message = mapping.get("exc_message")
    if message is None:
        message = ()
    arguments = tuple(message) if isinstance(message, list | tuple) else (message,)
    kind = _found(module, name) if isinstance(module, str) else None
    if kind is not None:
        try:
            exception = kind(*arguments)
            # A constructor that words its message out of its arguments has done so twice now.
            exception.args = arguments
        except Exception:  # whatever a constructor of the user's does
            pass
        else:
            if isinstance(exception, Exception):
                return exception
    return _stand_in(name, module if isinstance(module, str) else __name__)(*arguments)


def _found(module: str, name: str) -> type[Exception] | None:
    if module in _CELERY_MODULES and name in _TASKQ:
        return _TASKQ[name]
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        # Not getattr: a module's own __getattr__ might import.
        found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


@lru_cache(maxsize=256)
def _stand_in(name: str, module: str) -> type[Exception]:
    # Classes take neither null characters nor halves of surrogate pairs in their names.
    plain = name.rpartition(".")[2].replace("\0", "").encode(errors="replace").decode()
    return type(plain or "Exception", (Exception,), {"__module__": module, "__qualname__": name})


def _portable(argument: Any) -> Any:
    try:
        codec.dumps(argument, "msgpack")  # holds a little less than json
    except EncodeError:
        return _repr(argument)
    return argument


def _repr(value: object) -> str:
    try:
        return repr(value).encode(errors="replace").decode()
    except Exception:  # it is a stranger's, and what it was asked for is only shown
        return f"<{type(value).__name__}>"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
