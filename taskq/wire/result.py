"""What a result store keeps of a task: Celery's result mapping, and exceptions as data.

To be written: see the contract below.
"""

from dataclasses import dataclass
from typing import Any


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
