"""Row 11: without a server, tasks in a SQLite file."""

from functools import partial

from benchmarks.contenders import Contender, Huey, Setup, TaskqSqlite
from benchmarks.lab import Lab
from benchmarks.table import Figures, Row, Rule, Side, times

_COUNT = 10_000

ENQUEUE, DRAIN = "calls/s", "tasks/s"


def _embedded(contender: Contender, lab: Lab) -> Figures:
    count = lab.count(_COUNT, 200)
    with lab.site(contender) as site:
        rate = site.drive("calls", count=count)["rate"]
    with lab.site(contender) as site:
        site.drive("fill", count=count, task="count")
        with site.worker() as worker:
            return {ENQUEUE: rate, DRAIN: site.recorded(count, worker)}


ROWS = (
    Row(
        "11",
        "SQLite",
        f"SQLite: {_COUNT:,} calls one by one, {_COUNT:,} tasks with 2 children",
        [
            Side(each.name, partial(_embedded, each), each, Setup())
            for each in (TaskqSqlite(), Huey())
        ],
        [
            Rule("times huey's calls/s", times(ENQUEUE, "huey"), 3),
            Rule("times huey's tasks/s", times(DRAIN, "huey"), 3),
        ],
        "Each storage at its defaults, which differ: taskq commits with `synchronous=NORMAL`, "
        "which survives the death of any process but not always a loss of power; huey with FULL, "
        "and it forgets a task when a worker takes it, where taskq remembers it until it is done.",
    ),
)
