"""Row 14: tasks that are to run later, which wait in the broker and not in the worker."""

import random

from benchmarks.contenders import Setup, Taskq
from benchmarks.lab import Lab, Site
from benchmarks.processes import Program
from benchmarks.table import Figures, Row, Rule, Side, own

_WAITING = 100_000
_WAIT = 3600.0

#: Tasks whose lateness is measured: so many, sent one each pause, due after so many seconds and
#: up to so many more.
_DUE, _PAUSE, _SHORTEST, _SPAN = 1_000, 0.02, 0.5, 20.0
_FIRST = 20

BEFORE, AFTER = "memory MiB before", "memory MiB after"
MEDIAN, LATE = "p50 ms late", "p99 ms late"


def _delays(lab: Lab) -> Figures:
    with lab.site(Taskq()) as site, site.worker() as worker:
        # The first ones make the queues that delays need, and warm up.
        _lateness(site, worker, lab, 0, _FIRST)
        lab.pause(5.0)
        before = worker.memory()
        site.drive("fill_later", count=lab.count(_WAITING, 100), delay=_WAIT)
        lab.pause(5.0)
        after = worker.memory()
        late = sorted(_lateness(site, worker, lab, _FIRST, lab.count(_DUE, 20)))
        return {
            BEFORE: before,
            AFTER: after,
            MEDIAN: late[len(late) // 2] * 1000,
            LATE: late[min(len(late) * 99 // 100, len(late) - 1)] * 1000,
        }


def _lateness(site: Site, worker: Program, lab: Lab, before: int, count: int) -> list[float]:
    """Seconds that each of *count* tasks began after its due time; *before* ran already."""
    generator = random.Random(count)
    seconds = [generator.uniform(_SHORTEST, _SHORTEST + lab.seconds(_SPAN)) for _ in range(count)]
    site.drive("later", seconds=seconds, every=_PAUSE)
    return list(map(float, site.lines(before + count, worker)[before:]))


ROWS = (
    Row(
        "14",
        "delays",
        f"{_WAITING:,} delayed tasks wait; {_DUE:,} are due one by one within {_SPAN:g} s",
        [Side("taskq", _delays, Taskq(), Setup())],
        [
            Rule("times the worker's memory before", own(AFTER, BEFORE), 1.05, True),
            Rule("ms late, p99, on an idle worker", own(LATE), 100, True),
        ],
        "A task's lateness counts from its due time, by the clock of the machine that both its "
        "caller and its worker run on.",
    ),
)
