"""`Entry`: one line of the schedule, which says what is sent when; and `Occurrence`, one due time.

How they are written down, and what may be wrong with that, is in `notation`.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal

from taskq.schedules.base import Schedule

_MICROSECOND = 1e-6

Missed = Literal["skip", "once", "all"]
Overlap = Literal["allow", "skip"]


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One due time of an entry.

    It is *due* by the schedule and to be sent *at* that moment, or a little later with jitter.
    Whoever works it out finds the same *id*.
    """

    entry: "Entry" = field(repr=False)
    due: float
    at: float

    @property
    def id(self) -> str:
        """The id of the task that is sent: the entry's name, `@` and the due time in UTC."""
        return _id(self.entry.name, self.due)

    @property
    def expires(self) -> float | None:
        """When it is too late to run it, None if it never is."""
        return None if self.entry.expires is None else self.due + self.entry.expires

    def options(self) -> dict[str, Any]:
        """The options of the call: the entry's, this id, and headers that name where it is from."""
        options = dict(self.entry.options)
        if self.expires is not None:
            options["expires"] = datetime.fromtimestamp(self.expires, UTC)
        origin = {"celery_beat_task": True, "periodic_task_name": self.entry.name}
        headers = {**origin, **(options.get("headers") or {})}
        return {**options, "task_id": self.id, "headers": headers}


@dataclass(frozen=True, slots=True)
class Entry:
    """What is sent when.  *options* are those of `apply_async`; moments are seconds."""

    name: str
    task: str
    schedule: Schedule
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    #: Nothing is due before *start* or after *end*; an interval counts from its start.
    start: float | None = None
    end: float | None = None
    #: Each run is sent up to so many seconds after its due time, to spread what is due at once.
    jitter: float = 0.0
    #: Seconds after the due time when it is too late to run.
    expires: float | None = None
    #: What becomes of runs that were due while no beat was there: none, the last, or the last
    #: *missed_limit* of them are made up for.
    missed: Missed = "once"
    missed_limit: int = 100
    #: Whether it is sent while its last run waits or runs.
    overlap: Overlap = "allow"
    enabled: bool = True
    #: What was due before this moment does not count: the entry was not there, or not enabled.
    since: float | None = None

    def plain(self) -> dict[str, Any]:
        """The entry as JSON knows it (if it knows the arguments), which `read_entry` reads."""
        found: dict[str, Any] = {"task": self.task, "schedule": self.schedule.plain()}
        for each in fields(self)[3:]:
            value = getattr(self, each.name)
            default = {} if each.default is MISSING else each.default
            if value != default:
                found[each.name] = list(value) if isinstance(value, tuple) else value
        return found

    # -- when ----------------------------------------------------------------------------------

    def following(self, after: float) -> Occurrence | None:
        """The first occurrence to be sent later than *after*; None if there is none."""
        if self.jitter:
            # What was due by then may still wait for its moment, but not beyond the next due time.
            last = last_within(self._due, after - self.jitter, after)
            if last is not None and (occurrence := self._occurrence(last)).at > after:
                return occurrence
        due = self._due(after)
        return None if due is None else self._occurrence(due)

    def latest(self, after: float, until: float) -> Occurrence | None:
        """The last occurrence to be sent later than *after* and not later than *until*."""
        due = last_within(self._due, after - self.jitter, until)
        while due is not None:
            occurrence = self._occurrence(due)
            if occurrence.at <= until:
                return occurrence if occurrence.at > after else None
            due = last_within(self._due, after - self.jitter, due - _MICROSECOND)
        return None

    def upcoming(self, after: float) -> Iterator[Occurrence]:
        """The occurrences to be sent later than *after*, in their order."""
        occurrence = self.following(after)
        while occurrence is not None:
            yield occurrence
            occurrence = self.following(occurrence.at)

    def _due(self, after: float) -> float | None:
        if self.start is not None and after < self.start:
            after = self.start - _MICROSECOND
        due = self.schedule.following(after, self._anchor)
        return None if due is None or (self.end is not None and due > self.end) else due

    @property
    def _anchor(self) -> float:
        """Where an interval's grid begins: at random by its name, so that not all begin at once."""
        return zlib.crc32(self.name.encode()) / 1000 if self.start is None else self.start

    def _occurrence(self, due: float) -> Occurrence:
        if not self.jitter:
            return Occurrence(self, due, due)
        following = self._due(due)
        room = self.jitter if following is None else min(self.jitter, following - due)
        # Of a thousand parts, so that rounding never takes it to the next due time.
        draw = zlib.crc32(_id(self.name, due).encode()) % 1000 / 1000
        return Occurrence(self, due, due + room * draw)


def last_within(
    following: Callable[[float], float | None], after: float, until: float
) -> float | None:
    """The last of the times that *following* walks through, later than *after*, up to *until*.

    Halves what is left again and again, so that a year of minutes takes no longer than an hour.
    """
    found, high = None, until
    ahead = following(after)
    while ahead is not None and ahead <= until:
        found = ahead
        middle = found + (high - found) / 2
        beyond = following(middle)
        if beyond is not None and beyond <= until:
            ahead = beyond
        else:
            high = middle
            ahead = following(found)
    return found


def _id(name: str, due: float) -> str:
    return f"{name}@{datetime.fromtimestamp(due, UTC).replace(tzinfo=None).isoformat()}Z"
