"""Row 13: what a task costs the worker's parent, with few children and with many."""

from benchmarks.contenders import Setup, Taskq
from benchmarks.lab import Lab
from benchmarks.table import Figures, Row, Rule, Side, own

#: Children, and how many tasks they share: seconds of work each.
_CHILDREN = {2: 4_000, 8: 12_000, 32: 30_000}

#: Run first, and not counted.
_WARM = 500


def _cost(children: int) -> str:
    return f"parent's us a task, {children} children"


def _costs(lab: Lab) -> Figures:
    found = {}
    for children, full in _CHILDREN.items():
        count = lab.count(full, 200)
        warm = lab.count(_WARM)
        with lab.site(Taskq(), Setup(children=children)) as site, site.worker() as worker:
            site.drive("fill", count=warm, task="doze")
            site.recorded(warm, worker)
            lab.pause(0.5)
            before = worker.parent_cpu()
            site.drive("fill", count=count, task="doze")
            site.recorded(warm + count, worker)
            lab.pause(0.5)
            found[_cost(children)] = (worker.parent_cpu() - before) / count * 1e6
    return found


ROWS = (
    Row(
        "13",
        "parent",
        "the parent's processor time for a task that sleeps for 5 ms, with 2, 8 and 32 children",
        [Side("taskq", _costs, Taskq(), Setup())],
        [Rule("times the cost with 2, with 32", own(_cost(32), _cost(2)), 1.25, True)],
        "Messages come while the worker runs.",
    ),
)
