"""How fast things happen, over the last seconds: pure, the time is told by who looks."""

import math
from collections import deque

#: So many seconds back one looks.
WINDOW = 10.0


class Rate:
    """How many events a second there were; each is counted by `add`."""

    __slots__ = ("_since", "_slots")

    def __init__(self, since: float) -> None:
        self._since = since
        #: Second -> events in it, the latest last.
        self._slots: deque[list[float]] = deque()

    def add(self, now: float) -> None:
        """One more event."""
        second = now // 1
        if self._slots and self._slots[-1][0] >= second:
            self._slots[-1][1] += 1
        else:
            self._slots.append([second, 1])
            self._forget(now)

    def a_second(self, now: float) -> float:
        """Events a second until *now*; since the beginning where that is later than the window."""
        self._forget(now)
        seconds = min(WINDOW, max(1.0, now - self._since))
        return sum(count for _, count in self._slots) / seconds

    def _forget(self, now: float) -> None:
        while self._slots and self._slots[0][0] < now - WINDOW:
            self._slots.popleft()


class Rise:
    """How fast a number grows that is looked at now and then."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def see(self, value: float, now: float) -> None:
        """It is *value* by now."""
        self._seen.append((now, value))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW:
            self._seen.popleft()

    def a_second(self) -> float | None:
        """Its growth a second between the first and the last look; None before the second."""
        if len(self._seen) < 2:
            return None
        (first, was), (last, is_) = self._seen[0], self._seen[-1]
        return (is_ - was) / (last - first) if last > first else None


def percentile(values: list[float], part: float) -> float | None:
    """The least of *values* that a *part* of them, over 0, does not exceed; None of none."""
    if not values:
        return None
    return sorted(values)[math.ceil(len(values) * part) - 1]
