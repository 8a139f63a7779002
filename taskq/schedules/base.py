"""What every schedule is: a value that tells the next due time; who acts on it is beat's business.

Moments are seconds since the epoch, but for the methods that Celery has as well: those take and
return datetimes and timedeltas.
"""

import copy
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self
from zoneinfo import ZoneInfo

from taskq import clock
from taskq.schedules.walltime import zone_named


class State(NamedTuple):
    """Whether something is due, and in how many seconds to ask again (None: never)."""

    is_due: bool
    next: float | None


class Schedule:
    """When something is due; a value, which is never changed.

    Derive from it and write `following` to make a schedule of your own.  *nowfun* is what `is_due`
    and `remaining_estimate` take for now; beat has a clock of its own.  *timezone* is the IANA name
    of the zone whose clocks count; without one that of the app rules, else UTC.
    """

    def __init__(
        self,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        *,
        timezone: str | None = None,
    ) -> None:
        if timezone is not None:
            zone_named(timezone)
        self.nowfun = nowfun
        self.app = app
        self.timezone = timezone

    @property
    def zone(self) -> ZoneInfo:
        """The zone whose clocks count."""
        name = self.timezone or (self.app.conf.timezone if self.app is not None else None)
        return zone_named(name or "UTC")

    # -- for beat ------------------------------------------------------------------------------

    @property
    def steady(self) -> bool:
        """Whether it counts the time that passes, and so goes on when a clock is set back."""
        return False

    def following(self, after: float, anchor: float = 0.0) -> float | None:
        """The first due time later than *after*, None if there is none.

        It depends on nothing but its arguments, so that every host finds the same.  Intervals
        count from *anchor*, which others ignore.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method `following`")

    def within(self, timezone: str | None) -> Self:
        """This schedule by the clocks of *timezone*, unless it has a zone of its own."""
        if timezone is None or self.timezone is not None:
            return self
        zone_named(timezone)
        other = copy.copy(self)
        other.timezone = timezone
        return other

    def plain(self) -> dict[str, Any]:
        """The schedule as JSON knows it, which `notation.read_schedule` reads."""
        raise NotImplementedError(f"{self!r} cannot be kept in a store: it has no method `plain`")

    def _facts(self) -> tuple[Any, ...]:
        """What makes it equal to another of its class."""
        return (id(self),)

    # -- for people ----------------------------------------------------------------------------

    def upcoming(self, after: datetime) -> Iterator[datetime]:
        """The due times later than *after* in their order, by the clocks of its zone."""
        moment = self.following(aware(after).timestamp())
        while moment is not None:
            yield datetime.fromtimestamp(moment, self.zone)
            moment = self.following(moment)

    # -- as Celery has them --------------------------------------------------------------------

    def now(self) -> datetime:
        """What *nowfun* says, else the time."""
        return aware((self.nowfun or clock.utc)())

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """How long until it is due after a run at *last_run_at*; negative if it was due already.

        A datetime without zone is in UTC.
        """
        due = self._due_after(aware(last_run_at))
        if due is None:
            return timedelta.max
        return datetime.fromtimestamp(due, UTC) - self.now()

    def is_due(self, last_run_at: datetime) -> State:
        """Whether it is due now after a run at *last_run_at*, and in how many seconds to ask again.

        A datetime without zone is in UTC.
        """
        remaining = self.remaining_estimate(last_run_at)
        is_due = remaining <= timedelta(0)
        if is_due:
            remaining = self.remaining_estimate(self.now())
        return State(is_due, None if remaining == timedelta.max else remaining.total_seconds())

    def _due_after(self, last: datetime) -> float | None:
        """When it is due after a run at *last*."""
        return self.following(last.timestamp())

    # -- as a value ----------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if type(other) is type(self) and isinstance(other, Schedule):
            return self._facts() == other._facts()
        return NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self._facts()))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "app": None}


def aware(moment: datetime) -> datetime:
    """*moment* with a zone: UTC if it has none."""
    return moment.replace(tzinfo=UTC) if moment.utcoffset() is None else moment
