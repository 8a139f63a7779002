"""What clocks on the wall show: offsets of a zone, and when a pattern of times comes next.

A zone is a row of *stretches* with one offset each.  Where clocks are put forward, the times in the
gap are shown by no clock: what was due then is due as long after midnight as ever, by the clock as
it was (02:30 at 03:30).  Where they are put back, an hour is shown twice: what was due then is due
the first time.  Both can be had otherwise; whoever asks says so.
"""

import math
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1)

_SECOND = timedelta(seconds=1)
_DAY = 86_400

#: Clocks may be put forward by a whole day (Samoa in 2011), and a little more is asked for.
_LONGEST_CHANGE = 2 * _DAY

#: Years in which anything that comes at all has come: a 29 February on a Monday may be 40 away.
_HORIZON = 41
_LAST_YEAR = 9998


class Pattern(Protocol):
    """Times on a clock that are due, whole seconds."""

    def first(self, start: datetime, end: datetime) -> datetime | None:
        """The first due time from *start* on and before *end*; both, as it, have no zone."""


class Stretch(NamedTuple):
    """A time with one offset, from *start* to *end*; *before* it the offset was another."""

    start: int
    end: int
    offset: int
    before: int


def zone_named(name: str) -> ZoneInfo:
    """The zone of the IANA *name*; ValueError if there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError) as error:
        raise ValueError(f"no time zone is called {name!r}") from error


def following(
    after: float, zone: ZoneInfo, pattern: Pattern, *, shift: bool, repeat: bool
) -> float | None:
    """The first moment later than *after* at which *pattern* is due, None if there is none.

    *shift* lets times in a gap be due later, *repeat* those that are shown twice be due twice.
    """
    second = math.floor(after) + 1
    this_year = _wall(second).year
    for year in range(this_year, min(this_year + _HORIZON, _LAST_YEAR) + 1):
        for stretch in stretches(zone, year):
            if stretch.end > second:
                found = _first_in(stretch, second, pattern, shift, repeat)
                if found is not None:
                    return float(found)
                second = stretch.end
    return None


def _first_in(
    stretch: Stretch, second: int, pattern: Pattern, shift: bool, repeat: bool
) -> int | None:
    """The first due moment in *stretch* from *second* on."""
    begin, end, offset, before = stretch
    second = max(second, begin)
    forward = offset - before
    fresh = second if repeat else max(second, begin - forward)
    found = _due(pattern, fresh, end, offset)
    if shift and forward > 0:
        # Just after the gap, a clock that nobody has put forward shows the times in it.
        gap = _due(pattern, second, min(begin + forward, end), before)
        if gap is not None and (found is None or gap < found):
            return gap
    return found


def _due(pattern: Pattern, start: int, end: int, offset: int) -> int | None:
    if start >= end:
        return None
    shown = pattern.first(_wall(start + offset), _wall(end + offset))
    return None if shown is None else seconds(shown) - offset


@lru_cache(maxsize=4096)
def stretches(zone: ZoneInfo, year: int) -> tuple[Stretch, ...]:
    """The stretches that *year* (in UTC) has a part of, cut off where others cannot matter."""
    start, end = seconds(datetime(year, 1, 1)), seconds(datetime(year + 1, 1, 1))
    since = position = start - _LONGEST_CHANGE
    before = offset = _offset(zone, since)
    found = []
    while position < end:
        ahead = min(position + _DAY, end)
        if _offset(zone, ahead) == offset:
            position = ahead
            continue
        change = _change(zone, position, ahead)
        found.append(Stretch(since, change, offset, before))
        since = position = change
        before, offset = offset, _offset(zone, change)
    found.append(Stretch(since, end, offset, before))
    return tuple(stretch for stretch in found if stretch.end > start)


def _change(zone: ZoneInfo, low: int, high: int) -> int:
    """The first second after *low* with another offset, which *high* has."""
    offset = _offset(zone, low)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) == offset:
            low = middle
        else:
            high = middle
    return high


def _offset(zone: ZoneInfo, second: int) -> int:
    offset = datetime.fromtimestamp(second, zone).utcoffset() or timedelta(0)
    return offset // _SECOND


def _wall(second: int) -> datetime:
    return EPOCH + timedelta(seconds=second)


def seconds(shown: datetime) -> int:
    """Whole seconds from the epoch to *shown*, as if that were in UTC."""
    return (shown - EPOCH) // _SECOND
