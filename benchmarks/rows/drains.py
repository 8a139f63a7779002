"""Rows 1, 2, 7 and 16: how fast a full queue becomes empty."""

import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial

from benchmarks.contenders import QUEUE, Celery, Contender, Dramatiq, Rq, Setup, Taskiq, Taskq
from benchmarks.lab import Lab, Site
from benchmarks.processes import Program
from benchmarks.table import Figures, Row, Rule, Side, own, times, times_best
from benchmarks.watch import drain_time

_COUNT = 50_000

#: What the consumers that are only loops take ahead, and how many they acknowledge together.
_LOOP_PREFETCH, _LOOP_BATCH = "1000", "50"

#: RQ is not on RabbitMQ, and slow: fewer tasks tell its rate.
_RQ_COUNT = 5_000

#: As Celery's documentation has it for short tasks ("64, or 128"); the same for all peers.
_PREFETCH = 64

RATE = "tasks/s"
MEMORY = "worker MiB"
_LEFT = "of the rate is left"


def drain(site: Site, worker: Callable[[], Program]) -> float:
    """Start *worker* at the full queue; the seconds from the first ack to the last."""
    with closing(site.watch()) as watch, worker() as running:
        return drain_time(watch.wait(running))


def _library(contender: Contender, setup: Setup, lab: Lab) -> Figures:
    count = lab.count(_COUNT)
    with lab.site(contender, setup) as site:
        site.fill(count)
        return {RATE: count / drain(site, site.worker)}


def _loop(setup: Setup, command: Callable[[Site, str], list[str]], lab: Lab) -> Figures:
    """A loop on the very queue, with the very messages, that taskq's worker has."""
    count = min(_COUNT, 10 * lab.count(_COUNT))  # a few would be gone between two looks
    with lab.site(Taskq(), setup) as site:
        site.fill(count)
        words = command(site, str(count))
        return {RATE: count / drain(site, lambda: site.program(*words))}


def bare(site: Site, count: str) -> list[str]:
    """The command of the C client that takes *count* messages."""
    assert site.lab.bare is not None, "there is no C compiler (cc) for the bare client"
    port = str(site.lab.rabbit.port)
    return [
        *(site.lab.bare, "consume", port, site.place.vhost, QUEUE, count),
        *(_LOOP_BATCH, _LOOP_PREFETCH),
    ]


def _pika(site: Site, count: str) -> list[str]:
    return [
        *(sys.executable, "pika_loop.py", site.place.amqp, QUEUE, count),
        *(_LOOP_BATCH, _LOOP_PREFETCH),
    ]


def _rq(lab: Lab) -> Figures:
    count = lab.count(_RQ_COUNT)
    with lab.site(Rq()) as site:
        site.drive("fill", count=count, task="count")
        with site.worker() as worker:
            return {RATE: site.recorded(count, worker)}


def _sides(setup: Setup) -> list[Side]:
    peers_setup = Setup(setup.queue_type, prefetch=_PREFETCH)
    libraries = [
        (Taskq(), setup),
        *((peer, peers_setup) for peer in (Celery(), Dramatiq(), Taskiq())),
    ]
    return [
        *(Side(each.name, partial(_library, each, its), each, its) for each, its in libraries),
        Side("C loop", partial(_loop, setup, bare)),
        Side("pika loop", partial(_loop, setup, _pika)),
    ]


def _events(contender: Contender, lab: Lab, prefetch: int | None = None) -> Figures:
    """The rate without events, and what is left of it with them."""
    rates = [
        _library(contender, Setup(prefetch=prefetch, events=events), lab)[RATE]
        for events in (False, True)
    ]
    return {RATE: rates[0], f"{RATE} with events": rates[1], _LEFT: rates[1] / rates[0]}


def _waiting_million(lab: Lab) -> Figures:
    """The rate of row 1 and that with a million messages waiting, and the worker's memory then."""
    few, many = lab.count(_COUNT), lab.count(1_000_000)
    with lab.site(Taskq()) as site:
        site.fill(few)
        usual = few / drain(site, site.worker)
    with lab.site(Taskq()) as site:
        site.fill(many)
        memory: list[float] = []
        with closing(site.watch()) as watch, site.worker() as worker:
            while not watch.over:
                worker.check()
                memory.append(worker.memory())
                lab.pause(1.0)
            seconds = drain_time(watch.wait(worker))
    # The first quarter is start and warming up.
    settled = memory[len(memory) // 4 :]
    return {
        RATE: many / seconds,
        f"{RATE} usually": usual,
        f"{MEMORY} first": settled[0],
        f"{MEMORY} most": max(settled),
    }


_PEERS = ("celery", "dramatiq", "taskiq")

ROWS = (
    Row(
        "1",
        "drain, quorum queue",
        f"drain {_COUNT:,} no-ops, quorum queue, acks late, 2 children, no results",
        [*_sides(Setup()), Side("rq", _rq, Rq(), Setup())],
        [
            Rule("times celery", times(RATE, "celery"), 15),
            Rule("times the best peer on RabbitMQ", times_best(RATE, _PEERS), 6),
            Rule("of the loop in C", times(RATE, "C loop"), 0.2),
        ],
        "From the first acknowledgement to the last, as the broker counts them, so that no start "
        "is in it. The loops take 1,000 messages ahead and acknowledge fifty at a time. RQ, on "
        f"Redis, runs {_RQ_COUNT:,}, and its tasks count themselves.",
    ),
    Row(
        "2",
        "drain, classic queue",
        f"drain {_COUNT:,} no-ops, classic durable queue, acks late, 2 children, no results",
        _sides(Setup("classic")),
        [
            Rule("times celery", times(RATE, "celery"), 6),
            Rule("times the best peer on RabbitMQ", times_best(RATE, _PEERS), 3),
        ],
        "As row 1.",
    ),
    Row(
        "7",
        "a million waiting",
        "drain 1,000,000 no-ops that wait in a quorum queue",
        [Side("taskq", _waiting_million, Taskq(), Setup())],
        [
            Rule(f"of the rate with {_COUNT:,}", own(RATE, f"{RATE} usually"), 0.9),
            Rule(
                "times the memory it had at first",
                own(f"{MEMORY} most", f"{MEMORY} first"),
                1.1,
                at_most=True,
            ),
        ],
        "Memory is that of all processes of the worker, in proportional set size, looked at each "
        "second after the first quarter.",
    ),
    Row(
        "16",
        "events",
        f"drain {_COUNT:,} no-ops, quorum queue, with task events and without",
        [
            Side("taskq", partial(_events, Taskq()), Taskq(), Setup(events=True)),
            Side(
                "celery",
                partial(_events, Celery(), prefetch=_PREFETCH),
                Celery(),
                Setup(prefetch=_PREFETCH, events=True),
            ),
        ],
        [
            Rule("of the rate is left with events", own(_LEFT), 0.8),
            Rule("times what is left of celery's", times(_LEFT, "celery"), 1),
        ],
        "Three events for each task go to an exchange at which nobody listens; a monitor would "
        "take its own share of the two cores on both sides.",
    ),
)
