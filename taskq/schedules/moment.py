"""`clocked`: due once, at a moment that is known beforehand."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from taskq.schedules.base import Schedule, State


class clocked(Schedule):  # noqa: N801  # the name that Celery's users know
    """Due once, at *clocked_time*: a datetime, or text in ISO form.

    Without an offset it is what the clocks of *timezone* show: the first time, if they show it
    twice, and as much later as was left out, if they never do.
    """

    def __init__(
        self,
        clocked_time: datetime | str,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        *,
        timezone: str | None = None,
    ) -> None:
        super().__init__(nowfun, app, timezone=timezone)
        try:
            self.clocked_time = (
                clocked_time
                if isinstance(clocked_time, datetime)
                else datetime.fromisoformat(clocked_time)
            )
        except (TypeError, ValueError):
            raise ValueError(
                f"clocked_time={clocked_time!r}: give a datetime, or text such as "
                "2030-12-31T23:59:00Z"
            ) from None

    @property
    def moment(self) -> float:
        """When it is due."""
        time = self.clocked_time
        return (time.replace(tzinfo=self.zone) if time.utcoffset() is None else time).timestamp()

    def following(self, after: float, anchor: float = 0.0) -> float | None:
        return self.moment if self.moment > after else None

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """How long until its time, whenever it last ran; negative when that has passed."""
        return datetime.fromtimestamp(self.moment, UTC) - self.now()

    def is_due(self, last_run_at: datetime) -> State:
        """Whether its time has come, and if not, in how many seconds it will."""
        remaining = self.remaining_estimate(last_run_at).total_seconds()
        return State(False, remaining) if remaining > 0 else State(True, None)

    def plain(self) -> dict[str, Any]:
        zone = {} if self.timezone is None else {"timezone": self.timezone}
        return {"clocked": self.clocked_time.isoformat(), **zone}

    def _facts(self) -> tuple[Any, ...]:
        return (self.clocked_time.isoformat(), self.timezone)

    def __repr__(self) -> str:
        zone = f" {self.timezone}" if self.timezone else ""
        return f"<clocked {self.clocked_time.isoformat()}{zone}>"
