"""Row 9: whether work waits while somebody is free to do it."""

import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from benchmarks.contenders import Celery, Contender, Setup, Taskq
from benchmarks.lab import Lab, Site
from benchmarks.processes import Program
from benchmarks.table import Figures, Row, Rule, Side, own

_SHORT, _LONG = 0.001, 2.0
_SHORTS, _ROUNDS = 400, 20

#: Few enough that a worker that takes more than it can run leaves nothing for another.
_SECOND, _SECONDS, _SECOND_ROUNDS = 1.0, 8, 5

MIXED = "longest idle s, one long task"
SHARED = "longest idle s, two workers"


class Run(NamedTuple):
    """A task that ran: in which *child*, and from when until when."""

    child: str
    begun: float
    ended: float


def longest_idle(runs: Sequence[Run], sent: float, children: int) -> float:
    """The longest time, after *sent*, for which a child was free while a task waited.

    A task waits from *sent*, when all are in the queue, until it begins.
    """
    mine: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.begun):
        mine[run.child].append(run)
    last_begun = max(run.begun for run in runs)
    longest = max(0.0, last_begun - sent) if len(mine) < children else 0.0
    for own_runs in mine.values():
        frees = [sent, *(run.ended for run in own_runs)]
        begins = [*(run.begun for run in own_runs), last_begun]
        for free, begun in zip(frees, begins, strict=True):
            longest = max(longest, min(begun, last_begun) - max(free, sent))
    return longest


def _fairness(contender: Contender, setup: Setup, lab: Lab) -> Figures:
    return {MIXED: _one_worker(contender, setup, lab), SHARED: _two_workers(contender, setup, lab)}


def _one_worker(contender: Contender, setup: Setup, lab: Lab) -> float:
    """Rounds of short tasks with a long one among them, after one that is the worker's start."""
    generator = random.Random(9)
    long, short = ["stay", "long", lab.seconds(_LONG)], ["stay", "short", _SHORT]
    calls = [long] + [short] * lab.count(_SHORTS, 50)
    longest = []
    with lab.site(contender, setup) as site, site.worker() as worker:
        for number in range(lab.count(_ROUNDS, 1) + 1):
            sent = _send(site, generator.sample(calls, len(calls)))
            longest.append(longest_idle(_runs(site, number, len(calls), worker), sent, 2))
    return max(longest[1:])


def _two_workers(contender: Contender, setup: Setup, lab: Lab) -> float:
    """Rounds in which a second worker starts when the first one has a queue before it."""
    calls: list[list[object]] = [["stay", "second", lab.seconds(_SECOND)]] * _SECONDS
    longest = []
    with lab.site(contender, replace(setup, children=1)) as site, site.worker() as first:
        for number in range(lab.count(_SECOND_ROUNDS, 1)):
            _send(site, calls)
            with site.worker("-n", f"second-{number}@%h", "-l", "info") as second:
                second.wait_for_line(" ready")
                free = time.time()
                runs = _runs(site, number, len(calls), first, second)
            longest.append(longest_idle(runs, free, 2))
    return max(longest)


def _send(site: Site, calls: list[list[object]]) -> float:
    return site.drive("send_list", calls=calls)["sent"]


def _runs(site: Site, number: int, count: int, *workers: Program) -> list[Run]:
    """The runs of round *number*, the first being 0, of *count* tasks each, when all have ended."""
    lines = site.lines(count * (number + 1), *workers)[count * number :]
    return [Run(line[1], float(line[2]), float(line[3])) for line in map(str.split, lines)]


#: As Celery's documentation has it where tasks are long: each child reserves one.
_ONE_AHEAD = Setup(prefetch=1)

ROWS = (
    Row(
        "9",
        "fairness",
        f"one {_LONG:g} s task and {_SHORTS} of 1 ms, 2 children, shuffled, {_ROUNDS} rounds; "
        f"and {_SECONDS} tasks of 1 s for two workers",
        [
            Side(each.name, partial(_fairness, each, setup), each, setup)
            for each, setup in ((Taskq(), Setup()), (Celery(), _ONE_AHEAD))
        ],
        [
            Rule("s that a child was free while a task waited", own(MIXED), 0.1, True),
            Rule("s that a worker was free while a task waited", own(SHARED), 0.1, True),
        ],
        "The longest time, over all rounds, for which a child had nothing to do although a task "
        "that had been sent was not begun. Of the two workers, with a child each, the second "
        "starts when the first has the whole queue before it; its time counts from its being "
        "ready.",
    ),
)
