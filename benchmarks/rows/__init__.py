"""The benchmarks themselves, one file for each family of rows."""

from benchmarks.rows import (
    answers,
    calls,
    delays,
    drains,
    embedded,
    fairness,
    parents,
    payloads,
    schedule,
    starting,
)
from benchmarks.table import Row

_FAMILIES = (
    drains,
    calls,
    answers,
    fairness,
    starting,
    embedded,
    payloads,
    parents,
    delays,
    schedule,
)

#: In the order of the table.
ROWS: tuple[Row, ...] = tuple(
    sorted((row for family in _FAMILIES for row in family.ROWS), key=lambda row: int(row.name))
)
