"""Row 10: what a worker costs before it has done anything."""

import os
import statistics
import subprocess
import sys
import time
from functools import partial

from benchmarks import peers
from benchmarks.contenders import Celery, Contender, Setup, Taskq
from benchmarks.lab import Lab, Site
from benchmarks.table import Figures, Row, Rule, Side, own, times

#: Run by a worker before its memory is weighed.
_TASKS = 1_000
_IDLE = 20.0
_STARTS = 5
_IMPORTS = 7

READY, IMPORT, IDLE, MEMORY = "ready s", "import ms", "idle % of a core", "memory MiB"

_LINES = {
    "taskq": 'from taskq import TaskQ; TaskQ("x").conf.timezone',
    "celery": 'from celery import Celery; Celery("x").conf.timezone',
}


def _start(contender: Contender, setup: Setup, lab: Lab) -> Figures:
    with lab.site(contender, setup) as site:
        _ready(site)  # makes the queues
        ready = statistics.median(_ready(site) for _ in range(lab.count(_STARTS, 1)))
        with site.worker() as worker:
            site.drive("fill", count=lab.count(_TASKS), task="count")
            site.recorded(lab.count(_TASKS), worker)
            lab.pause(2.0)
            memory, cpu, begun = worker.memory(), worker.cpu(), time.perf_counter()
            lab.pause(_IDLE)
            idle = (worker.cpu() - cpu) / (time.perf_counter() - begun)
    return {READY: ready, IMPORT: _import(contender), IDLE: idle * 100, MEMORY: memory}


def _ready(site: Site) -> float:
    """Seconds from a worker's start to its own word that it is ready."""
    begun = time.perf_counter()
    with site.worker("-l", "info") as worker:
        worker.wait_for_line(" ready")
        return time.perf_counter() - begun


def _import(contender: Contender) -> float:
    """Milliseconds that a fresh interpreter takes for the contender's line."""
    python = peers.program("python") if contender.peer else sys.executable
    taken = []
    for _ in range(_IMPORTS):
        begun = time.perf_counter()
        subprocess.run([python, "-c", _LINES[contender.name]], check=True, env=os.environ)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


ROWS = (
    Row(
        "10",
        "worker at rest",
        "worker -c 2: start to ready, its app's import, idle for 20 s, memory",
        [
            Side(each.name, partial(_start, each, Setup()), each, Setup())
            for each in (Taskq(), Celery())
        ],
        [
            Rule("s from start to ready, queues there", own(READY), 0.5, True),
            Rule("times celery's import line", times(IMPORT, "celery"), 1.2, True),
            Rule("% of a core while idle", own(IDLE), 0.5, True),
            Rule("times celery's memory", times(MEMORY, "celery"), 1, True),
        ],
        f"Import: `{_LINES['taskq']}` and the same of Celery, each in a fresh interpreter. Memory: "
        f"proportional set size of all processes, after {_TASKS:,} tasks.",
    ),
)
