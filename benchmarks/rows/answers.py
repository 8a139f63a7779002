"""Rows 5 and 8: calls whose results are awaited, and tasks that send tasks."""

from contextlib import closing
from functools import partial
from typing import Literal

import redis

from benchmarks.apps.work import SPREAD
from benchmarks.contenders import Celery, Contender, Setup, Taskq
from benchmarks.lab import Lab
from benchmarks.table import Figures, Row, Rule, Side, times
from benchmarks.watch import drain_time

_ASKED = 2_000
_PARENTS = 2_000

RATE = "tasks/s"

_STORES: tuple[Literal["rpc", "redis"], ...] = ("rpc", "redis")


def _asks(contender: Contender, lab: Lab) -> Figures:
    found: dict[str, float] = {}
    for store in _STORES:
        with lab.site(contender, Setup(results=store)) as site, site.worker():
            figures = site.drive("asks", count=lab.count(_ASKED, 50), warm=lab.count(200, 20))
        found |= {f"{store} {name} ms": value * 1000 for name, value in figures.items()}
    return found


def _spread(contender: Contender, setup: Setup, lab: Lab) -> Figures:
    """Tasks that send others: all of them count, and all of their results have to be there."""
    parents = lab.count(_PARENTS)
    tasks = parents * (1 + SPREAD)
    with lab.site(contender, setup) as site:
        site.fill(parents, "spread")
        with closing(site.watch()) as watch, site.worker() as worker:
            seconds = drain_time(watch.wait(worker))
            with redis.Redis.from_url(site.place.redis) as client:
                stored = client.dbsize()
        assert stored == tasks, f"{stored} results of {tasks} tasks of {contender.name}"
        return {RATE: tasks / seconds}


_SPREADING = Setup(results="redis")

ROWS = (
    Row(
        "5",
        "call to result",
        "call to result, one at a time, worker idle, quorum queue, acks late",
        [
            Side(each.name, partial(_asks, each), each, Setup(results="rpc"))
            for each in (Taskq(), Celery())
        ],
        [
            Rule(f"of celery's {p}, {store}", times(f"{store} {p} ms", "celery"), bound, True)
            for store in _STORES
            for p, bound in (("p50", 0.4), ("p99", 0.5))
        ],
        "Once with results by rpc and once by Redis, worker and caller on the same two cores.",
    ),
    Row(
        "8",
        "subtasks",
        f"{_PARENTS:,} tasks that send {SPREAD} subtasks each, all results to Redis",
        [
            Side(each.name, partial(_spread, each, _SPREADING), each, _SPREADING)
            for each in (Taskq(), Celery())
        ],
        [Rule("times celery", times(RATE, "celery"), 5)],
        "From the first acknowledgement until nothing is left; every result has to be in Redis.",
    ),
)
