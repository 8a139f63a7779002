"""`crontab`: due at times of the day and on days of the year, as cron's table names them.

The search goes from one matching day to the next and never minute by minute, so that a 29 February
is found as fast as the next minute.
"""

from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from taskq.schedules import walltime
from taskq.schedules.base import Schedule
from taskq.schedules.field import (
    DAY_OF_MONTH,
    DAY_OF_WEEK,
    HOUR,
    MINUTE,
    MONTH_OF_YEAR,
    Cronspec,
)

#: What cron's short words stand for.
NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

#: The days of each month in a leap year.
_LONGEST_MONTHS = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class crontab(Schedule):  # noqa: N801  # Celery's name
    """Due when minute, hour, day of the week, day of the month and month all match.

    A field is a number, an iterable of numbers, or text: `*`, `5`, `mon`, `1-5`, `fri-mon`, `*/15`,
    `8-18/2`, and several of these with commas between.  A step counts the members of its range, so
    that `*/7` of the days of a month are the 1st, 8th, 15th, 22nd and 29th; Sunday is 0.

    *dst* says what becomes of times that a change of clocks leaves out or shows twice.  "once":
    each is due once, later by as much as was left out, and the first time; but when every hour is
    listed, the hour that comes twice is due twice, so that no gap is in the row.  "clock": due
    whenever clocks show it: not at all, and twice.

    ValueError or TypeError for a field that is none, and for days that never come.
    """

    def __init__(
        self,
        minute: Cronspec | None = "*",
        hour: Cronspec | None = "*",
        day_of_week: Cronspec | None = "*",
        day_of_month: Cronspec | None = "*",
        month_of_year: Cronspec | None = "*",
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        *,
        timezone: str | None = None,
        dst: Literal["once", "clock"] = "once",
    ) -> None:
        super().__init__(nowfun, app, timezone=timezone)
        minute_text, self._minutes = MINUTE.read(minute)
        hour_text, self._hours = HOUR.read(hour)
        week_text, self._weekdays = DAY_OF_WEEK.read(day_of_week)
        day_text, self._days = DAY_OF_MONTH.read(day_of_month)
        month_text, self._months = MONTH_OF_YEAR.read(month_of_year)
        #: The five fields as a line of cron's table has them.
        self.text = f"{minute_text} {hour_text} {day_text} {month_text} {week_text}"
        if not any(self._days[0] <= _LONGEST_MONTHS[month] for month in self._months):
            raise ValueError(
                f"crontab {self.text!r}: day {day_text} is never in month {month_text}"
            )
        if dst not in ("once", "clock"):
            raise ValueError(f"dst={dst!r}: give 'once' or 'clock'")
        self.dst = dst

    @classmethod
    def from_string(cls, crontab: str, **options: Any) -> Self:
        """From five fields (minute, hour, day of month, month, day of week), `@daily` or the like.

        *options* are *timezone* and *dst*.  Days must match both fields, as everywhere here; cron
        itself takes either.
        """
        fields = NICKNAMES.get(crontab.strip().lower(), crontab).split()
        if len(fields) != 5:
            known = ", ".join(NICKNAMES)
            raise ValueError(
                f"crontab {crontab!r} has {len(fields)} fields: give five (minute, hour, day of "
                f"month, month, day of week) or one of {known}"
            )
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year, **options)

    # -- as Celery has them: the numbers of each field -----------------------------------------

    @property
    def minute(self) -> frozenset[int]:
        """The minutes of an hour."""
        return frozenset(self._minutes)

    @property
    def hour(self) -> frozenset[int]:
        """The hours of a day."""
        return frozenset(self._hours)

    @property
    def day_of_week(self) -> frozenset[int]:
        """The days of a week; Sunday is 0."""
        return frozenset(self._weekdays)

    @property
    def day_of_month(self) -> frozenset[int]:
        """The days of a month."""
        return frozenset(self._days)

    @property
    def month_of_year(self) -> frozenset[int]:
        """The months of a year."""
        return frozenset(self._months)

    # -- the next due time ---------------------------------------------------------------------

    def following(self, after: float, anchor: float = 0.0) -> float | None:
        once = self.dst == "once"
        return walltime.following(
            after, self.zone, self, shift=once, repeat=not once or len(self._hours) == 24
        )

    def first(self, start: datetime, end: datetime) -> datetime | None:
        """The first time from *start* on and before *end* that matches, by a clock of no zone."""
        if start.second:
            start += timedelta(seconds=60 - start.second)
        found = self._later_that_day(start) or self._on_a_later_day(start, end)
        return found if found is not None and found < end else None

    def _later_that_day(self, start: datetime) -> datetime | None:
        if (
            start.month not in self._months
            or start.day not in self._days
            or start.isoweekday() % 7 not in self._weekdays
        ):
            return None
        if start.hour in self._hours:
            position = bisect_left(self._minutes, start.minute)
            if position < len(self._minutes):
                return start.replace(minute=self._minutes[position])
        position = bisect_right(self._hours, start.hour)
        if position < len(self._hours):
            return start.replace(hour=self._hours[position], minute=self._minutes[0])
        return None

    def _on_a_later_day(self, start: datetime, end: datetime) -> datetime | None:
        """The first matching time of the first matching day after that of *start*."""
        today = start.year, start.month, start.day
        for year in range(start.year, end.year + 1):
            for month in self._months:
                if (year, month) < today[:2] or (year, month) > (end.year, end.month):
                    continue
                before_first, length = monthrange(year, month)  # Monday is 0
                for day in self._days:
                    if day > length:
                        break
                    if (before_first + day) % 7 in self._weekdays and (year, month, day) > today:
                        return datetime(year, month, day, self._hours[0], self._minutes[0])
        return None

    # -- as a value ----------------------------------------------------------------------------

    def plain(self) -> dict[str, Any]:
        zone = {} if self.timezone is None else {"timezone": self.timezone}
        return {"crontab": self.text, **zone, **({} if self.dst == "once" else {"dst": self.dst})}

    def _facts(self) -> tuple[Any, ...]:
        days = self._weekdays, self._days, self._months
        return (self._minutes, self._hours, *days, self.timezone, self.dst)

    def __repr__(self) -> str:
        zone = f" {self.timezone}" if self.timezone else ""
        return f"<crontab {self.text}{zone}>"
