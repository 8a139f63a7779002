"""Rows 3, 4 and 6: how fast calls get into the queue."""

import statistics
import subprocess
from dataclasses import replace
from functools import partial

import pika

from benchmarks.contenders import QUEUE, Celery, Contender, Dramatiq, Setup, Taskiq, Taskq
from benchmarks.lab import Lab, Site
from benchmarks.table import Figures, Row, Rule, Side, own, times

_CALLS = 5_000
_MANY = 50_000
_THREADS = 500

RATE = "calls/s"
MEDIAN = "p50 ms"

_CONFIRMED = Setup(confirms=True)


def _one_by_one(contender: Contender, setup: Setup, lab: Lab) -> Figures:
    with lab.site(contender, setup) as site:
        figures = site.drive("calls", count=lab.count(_CALLS, 200))
        return {RATE: figures["rate"], MEDIAN: figures["p50"] * 1000}


def _bare(lab: Lab) -> Figures:
    """The very message that taskq sends, published by the bare client."""
    assert lab.bare is not None, "there is no C compiler (cc) for the bare client"
    with lab.site(Taskq()) as site:
        site.fill(1)
        command = [
            *(lab.bare, "confirm", str(lab.rabbit.port), site.place.vhost, QUEUE),
            *(str(lab.count(_CALLS, 200)), *_message(site)),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = list(map(float, done.stdout.split()))
        return {RATE: len(seconds) / sum(seconds), MEDIAN: statistics.median(seconds) * 1000}


def _message(site: Site) -> tuple[str, str]:
    """The files with the properties and the body of the message in the queue."""
    with pika.BlockingConnection(pika.URLParameters(site.place.amqp)) as connection:
        _, properties, body = connection.channel().basic_get(QUEUE, auto_ack=True)
    files = site.place.folder / "properties", site.place.folder / "body"
    files[0].write_bytes(b"".join(properties.encode()))
    files[1].write_bytes(body)
    return str(files[0]), str(files[1])


def _send_many(lab: Lab) -> Figures:
    count = lab.count(_MANY)
    with lab.site(Taskq()) as site:
        return {RATE: count / site.fill(count)["seconds"]}


def _threads(lab: Lab) -> Figures:
    with lab.site(Taskq()) as site:
        alone = site.drive("calls", count=lab.count(2_000, 200))["rate"]
        many = site.drive("calls", count=lab.count(20_000, _THREADS), threads=_THREADS)["rate"]
        return {f"{RATE}, 1 thread": alone, f"{RATE}, {_THREADS} threads": many}


def _side(contender: Contender, setup: Setup) -> Side:
    return Side(contender.name, partial(_one_by_one, contender, setup), contender, setup)


ROWS = (
    Row(
        "3",
        "delay() one by one",
        "delay() one by one, confirmed, one thread, quorum queue",
        [
            *(_side(each, _CONFIRMED) for each in (Taskq(), Celery(), Dramatiq(), Taskiq())),
            Side("bare C client", _bare),
        ],
        [
            Rule("times the bare client's round trip", times(MEDIAN, "bare C client"), 1.5, True),
            Rule("times celery's rate", times(RATE, "celery"), 1),
            Rule("times dramatiq's rate", times(RATE, "dramatiq"), 1),
        ],
        "The bare client publishes the message that taskq sent, and waits for its confirm, on the "
        "same queue. Round trips are compared by their medians.",
    ),
    Row(
        "4",
        "send_many",
        f"send_many of {_MANY:,}, confirmed; celery's delay() one by one, unconfirmed",
        [
            Side("taskq", _send_many, Taskq(), Setup()),
            _side(Celery(), replace(_CONFIRMED, confirms=False)),
        ],
        [
            Rule("calls/s", own(RATE), 15_000),
            Rule("times celery", times(RATE, "celery"), 8),
        ],
        "taskq's time is that of send_many, the making of the calls included.",
    ),
    Row(
        "6",
        "500 threads",
        f"delay() in {_THREADS} threads of one process, confirmed, quorum queue",
        [Side("taskq", _threads, Taskq(), Setup())],
        [
            Rule(
                "times the rate of one thread",
                own(f"{RATE}, {_THREADS} threads", f"{RATE}, 1 thread"),
                4,
            )
        ],
    ),
)
