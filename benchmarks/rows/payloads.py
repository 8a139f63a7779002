"""Row 12: large arguments."""

from contextlib import closing
from functools import partial

from benchmarks.contenders import Celery, Contender, Setup, Taskq
from benchmarks.lab import Lab
from benchmarks.processes import MIB
from benchmarks.table import Figures, Medians, Row, Rule, Side, times
from benchmarks.watch import drain_time

KIB = 1024

#: Size of the argument, and how many tasks are drained.
_SIZES = {
    "1 KiB": (KIB, 20_000),
    "64 KiB": (64 * KIB, 4_000),
    "1 MiB": (MIB, 400),
    "12 MiB": (12 * MIB, 160),
}

_SMALLEST, _LARGEST = "1 KiB", "12 MiB"

#: Four messages ahead for each of two children.
_AHEAD = 4
_SETUP = Setup(prefetch=_AHEAD)
_HELD = _SETUP.children * _AHEAD

_PEAK = "parent's peak MiB"


def _payloads(contender: Contender, lab: Lab) -> Figures:
    found = {}
    for name, (size, full) in _SIZES.items():
        count = lab.count(full, 2)
        with lab.site(contender, _SETUP) as site:
            site.fill(count, "swallow", size)
            with closing(site.watch()) as watch, site.worker() as worker:
                seconds = drain_time(watch.wait(worker))
                found[f"{_PEAK}, {name}"] = worker.peak()
        found[f"MB/s, {name}"] = count * size / seconds / 1e6
    return {name: found[name] for name in sorted(found, key=lambda name: name.startswith(_PEAK))}


def _copies(medians: Medians) -> float:
    """How many times the parent's memory grew by what it holds, over that with small messages."""
    taskq = medians["taskq"]
    grown = taskq[f"{_PEAK}, {_LARGEST}"] - taskq[f"{_PEAK}, {_SMALLEST}"]
    return grown * MIB / (_HELD * _SIZES[_LARGEST][0])


ROWS = (
    Row(
        "12",
        "payloads",
        "drain tasks with arguments of 1 KiB, 64 KiB, 1 MiB and 12 MiB, 2 children",
        [Side(each.name, partial(_payloads, each), each, _SETUP) for each in (Taskq(), Celery())],
        [
            *(
                Rule(f"times celery's MB/s, {name}", times(f"MB/s, {name}", "celery"), 1)
                for name in _SIZES
            ),
            Rule("times what the parent holds, in its memory", _copies, 1.5, True),
        ],
        f"Both take {_AHEAD} messages ahead for each child. The last line is the growth of the "
        f"parent's largest resident size, from 1 KiB to 12 MiB, over the {_HELD} messages that it "
        "may hold: with a second copy of each it would be 2.",
    ),
)
