"""When things are due: schedules as values, and the entries that they belong to.

Nothing here sends, sleeps or keeps anything; that is beat's business.  Most programs have no
schedule, so a name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskq.schedules.base import Schedule, State
    from taskq.schedules.cron import crontab
    from taskq.schedules.entry import Entry, Occurrence
    from taskq.schedules.interval import schedule
    from taskq.schedules.moment import clocked
    from taskq.schedules.notation import read_entry, read_schedule
    from taskq.schedules.walltime import zone_named

__all__ = [
    "Entry",
    "Occurrence",
    "Schedule",
    "State",
    "clocked",
    "crontab",
    "read_entry",
    "read_schedule",
    "schedule",
    "zone_named",
]

_HOMES = {
    "Schedule": "base",
    "State": "base",
    "crontab": "cron",
    "Entry": "entry",
    "Occurrence": "entry",
    "schedule": "interval",
    "clocked": "moment",
    "read_entry": "notation",
    "read_schedule": "notation",
    "zone_named": "walltime",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
