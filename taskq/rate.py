"""How often a task may begin, as people write it; keeping to it is the worker's business."""

import math

#: Seconds in each unit of a rate.
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
#: Slower and faster rates are nothing anybody means: one in ten years, and past what clocks tell.
_SLOWEST, _FASTEST = 3e-9, 1e9


def parse_rate(rate: str | float | None) -> float | None:
    """Runs a second that *rate* allows: "10/s", "100/m", "5/h", or a number of them each second.

    None, "" and 0 mean that there is no limit, and give None.  ValueError for anything else.
    """
    if rate is None or rate == "":
        return None
    number, _, unit = str(rate).strip().partition("/")
    try:
        found = float(number) / _UNITS[unit.strip() or "s"]
    except (ValueError, KeyError):
        found = math.nan
    if found == 0:
        return None
    if isinstance(rate, bool) or not _SLOWEST <= found <= _FASTEST:
        raise ValueError(
            f"Invalid rate limit string: {rate!r:.80}; use a number with /s, /m or /h behind it, "
            "as '10/s'"
        )
    return found
