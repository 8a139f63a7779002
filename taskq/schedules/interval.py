"""`schedule`: due again and again, after the same time.

A row of due times stands on a grid and not on the last run, so that a restart or another host goes
on where the last one was, with nothing to remember.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from taskq.schedules import walltime
from taskq.schedules.base import Schedule

_MICROSECOND = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)

#: What a relative interval is rounded to, the longest that it has one of.
_UNITS = (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1))

_SHORTEST = timedelta(milliseconds=1)


class schedule(Schedule):  # noqa: N801  # Celery's name
    """Due every *run_every* (seconds or a timedelta), counted in time that passes.

    *relative* makes it due when clocks show a full day, hour or minute, whichever is the longest
    that fits into the interval; of several days (hours, minutes) each second (third ...) one.

    ValueError for an interval of less than a millisecond.
    """

    def __init__(
        self,
        run_every: float | timedelta,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        *,
        timezone: str | None = None,
    ) -> None:
        super().__init__(nowfun, app, timezone=timezone)
        try:
            every = run_every if isinstance(run_every, timedelta) else timedelta(seconds=run_every)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"run_every={run_every!r}: give seconds or a timedelta") from None
        if every < _SHORTEST:
            raise ValueError(f"run_every={run_every!r}: give more time, a millisecond at least")
        self.run_every = every
        self.relative = relative
        self._unit = next((unit for unit in _UNITS if every >= unit), None) if relative else None

    @property
    def seconds(self) -> float:
        """The interval in seconds."""
        return self.run_every.total_seconds()

    @property
    def steady(self) -> bool:
        return self._unit is None

    # -- the next due time ---------------------------------------------------------------------

    def following(self, after: float, anchor: float = 0.0) -> float | None:
        if self._unit is not None:
            daily = self._unit == _UNITS[0]
            return walltime.following(after, self.zone, self, shift=True, repeat=not daily)
        step, origin = self.run_every // _MICROSECOND, round(anchor * 1e6)
        now = round(after * 1e6)
        if now / 1e6 > after:  # rounded up, past a due time maybe
            now -= 1
        return (origin + ((now - origin) // step + 1) * step) / 1e6

    def first(self, start: datetime, end: datetime) -> datetime | None:
        """The first full unit from *start* on and before *end*, by a clock of no zone."""
        unit = self._unit or _SECOND
        step = self.run_every // unit * (unit // _SECOND)
        found = walltime.EPOCH + timedelta(seconds=-(-walltime.seconds(start) // step) * step)
        return found if found < end else None

    def _due_after(self, last: datetime) -> float | None:
        """As Celery reckons: from the last run, rounded down if relative."""
        if self._unit is None:
            return last.timestamp() + self.seconds
        if self._unit == _UNITS[0]:
            day = (last.astimezone(self.zone) + self.run_every).replace(
                hour=0, minute=0, second=0, microsecond=0, fold=0
            )
            return day.timestamp()
        due = (last.astimezone(UTC) + self.run_every).astimezone(self.zone)
        shown = due.replace(tzinfo=None) - walltime.EPOCH
        return (due - shown % self._unit).replace(fold=due.fold).timestamp()

    # -- as a value ----------------------------------------------------------------------------

    def plain(self) -> dict[str, Any]:
        if not self.relative:
            return {"every": self.seconds}
        zone = {} if self.timezone is None else {"timezone": self.timezone}
        return {"every": self.seconds, "relative": True, **zone}

    def _facts(self) -> tuple[Any, ...]:
        return (self.run_every, self.relative, self.timezone if self.relative else None)

    def __repr__(self) -> str:
        return f"<schedule every {self.run_every}{' relative' if self.relative else ''}>"
