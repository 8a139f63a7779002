"""What workers and tasks come to, told to monitors as it happens, in Celery's words.

`sender` tells, `receiver` hears, `state` draws the whole picture from what was heard; how events
look on the wire is `wire.event`'s business, who sends which is the worker's and the producer's.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskq.events.receiver import Receiver
    from taskq.events.state import State, Task, Worker

__all__ = ["Receiver", "State", "Task", "Worker"]

#: Where they live.  Imported when asked for: who only sends events needs neither these nor an app.
_HOMES = {
    "Receiver": "taskq.events.receiver",
    "State": "taskq.events.state",
    "Task": "taskq.events.state",
    "Worker": "taskq.events.state",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        globals()[name] = found = getattr(import_module(_HOMES[name]), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
