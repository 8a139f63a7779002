"""The only place that reads the time, so that everything else can be told it.

*wall* is for moments that other machines understand (an eta, an expiry); *monotonic* is for
durations and deadlines inside one machine.
"""

import time
from datetime import UTC, datetime

wall = time.time
monotonic = time.monotonic
sleep = time.sleep


def utc(moment: float | None = None) -> datetime:
    """The UTC datetime of *moment* (seconds since the epoch), or of now."""
    return datetime.fromtimestamp(wall() if moment is None else moment, UTC)


def hours_west() -> float:
    """How far local time is behind UTC just now, in hours: -2.0 in a summer of Berlin."""
    return -time.localtime().tm_gmtoff / 3600
