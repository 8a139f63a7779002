"""How schedules and entries are written down: in settings, in a store, on a command line.

An entry is a mapping: Celery's of `beat_schedule`, with more that may be said.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from taskq.errors import ConfigurationError
from taskq.schedules.base import Schedule
from taskq.schedules.cron import crontab
from taskq.schedules.entry import Entry
from taskq.schedules.interval import schedule
from taskq.schedules.moment import clocked
from taskq.schedules.walltime import zone_named

#: An id is the name and 28 more characters, and AMQP has room for 255 bytes of it.
_LONGEST_NAME = 200


def read_schedule(given: object, *, relative: bool = False) -> Schedule:
    """The schedule that *given* means.

    Seconds or a timedelta are an interval (*relative* or not), text is a crontab of five fields or
    a word such as `@daily`, a mapping is what `Schedule.plain` made.  ValueError or TypeError for
    anything else.
    """
    if isinstance(given, Schedule):
        return given
    if isinstance(given, int | float | timedelta) and not isinstance(given, bool):
        return schedule(given, relative)
    if isinstance(given, str):
        return crontab.from_string(given)
    if isinstance(given, Mapping):
        said = dict(given)
        if "every" in said:
            return schedule(said.pop("every"), **{"relative": relative, **said})
        if "crontab" in said:
            return crontab.from_string(said.pop("crontab"), **said)
        if "clocked" in said:
            return clocked(said.pop("clocked"), **said)
    if type(given).__module__.startswith(("celery.", "django_celery_beat.")):
        raise TypeError(
            f"schedule={given!r} is Celery's: import crontab, schedule and clocked from taskq"
        )
    raise TypeError(
        f"schedule={given!r}: give seconds, a timedelta, five fields such as '30 7 * * 1', "
        "crontab(...), schedule(...) or clocked(...)"
    )


def read_entry(name: str, given: object, *, timezone: str | None = None) -> Entry:
    """The entry *name* that the mapping *given* describes, in an app whose zone is *timezone*.

    ConfigurationError names the entry and says what is wrong with it.
    """
    try:
        return _entry(name, given, timezone)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the entry {name!r} of the schedule: {error}") from error


def _entry(name: str, given: object, timezone: str | None) -> Entry:
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError("give it a name of printable characters")
    if len(name.encode()) > _LONGEST_NAME:
        raise ValueError(f"its name takes more than {_LONGEST_NAME} bytes")
    if not isinstance(given, Mapping):
        raise TypeError(f"{given!r} is no mapping with 'task' and 'schedule'")
    for key in given:
        if key not in _KNOWN:
            near = difflib.get_close_matches(str(key), _KNOWN, 1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"there is no {key!r} in an entry{meant}")
    for key in ("task", "schedule"):
        if given.get(key) is None:
            raise ValueError(f"it has no {key!r}")
    zone = given.get("timezone") or timezone
    found: dict[str, Any] = {
        key: read(key, given[key], zone)
        for key, read in _READERS.items()
        if given.get(key) is not None
    }
    options = found.get("options", {})
    if isinstance(options.get("expires"), int | float | timedelta):
        if "expires" in found:
            raise ValueError("'expires' is there and in its 'options': say it once")
        found["expires"] = _some_time("expires", options.pop("expires"))
    schedule = read_schedule(given["schedule"], relative=bool(given.get("relative")))
    entry = Entry(name=name, schedule=schedule.within(zone), **found)
    if entry.start is not None and entry.end is not None and entry.end < entry.start:
        raise ValueError("it ends before it starts")
    return entry


# -- the fields ------------------------------------------------------------------------------------


def _name(key: str, value: object, _: str | None) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{key}={value!r}: give the name of a task")
    return value


def _sequence(key: str, value: object, _: str | None) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{key}={value!r}: give a list or a tuple")
    return tuple(value)


def _mapping(key: str, value: object, _: str | None) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"{key}={value!r}: give a mapping whose keys are text")
    return dict(value)


def _moment(key: str, value: object, zone: str | None) -> float | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    match value:
        case datetime() if value.utcoffset() is None:
            return value.replace(tzinfo=zone_named(zone or "UTC")).timestamp()
        case datetime():
            return value.timestamp()
        case int() | float() if math.isfinite(value) and not isinstance(value, bool):
            return float(value)
    raise TypeError(f"{key}: give a datetime, or text such as 2030-12-31T23:59:00Z")


def _seconds(key: str, value: object, _: str | None = None) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise TypeError(f"{key}={value!r}: give seconds or a timedelta")
    return float(value)


def _some_time(key: str, value: object, _: str | None = None) -> float:
    found = _seconds(key, value)
    if found == 0:
        raise ValueError(f"{key} is 0: give more time")
    return found


def _count(key: str, value: object, _: str | None) -> int:
    if not isinstance(value, int) or value < 1:
        raise TypeError(f"{key}={value!r}: give a whole number from 1")
    return value


def _switch(key: str, value: object, _: str | None) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{key}={value!r}: give True or False")
    return value


def _one_of(*words: str) -> Callable[[str, object, str | None], object]:
    def read(key: str, value: object, _: str | None) -> object:
        if value not in words:
            raise ValueError(f"{key}={value!r}: give one of {', '.join(map(repr, words))}")
        return value

    return read


#: Each field of an entry, but for the name and the schedule, with what reads it.
_READERS: Mapping[str, Callable[[str, Any, str | None], Any]] = {
    "task": _name,
    "args": _sequence,
    "kwargs": _mapping,
    "options": _mapping,
    "start": _moment,
    "end": _moment,
    "since": _moment,
    "jitter": _seconds,
    "expires": _some_time,
    "missed": _one_of("skip", "once", "all"),
    "missed_limit": _count,
    "overlap": _one_of("allow", "skip"),
    "enabled": _switch,
}

_KNOWN = {*_READERS, "schedule", "relative", "timezone"}
