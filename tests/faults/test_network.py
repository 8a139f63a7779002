"""The network between RabbitMQ and a worker, or a producer, does all that networks do."""

from collections.abc import Callable

import pytest

from tests.faults.arena import AT_ONCE, COUNT, WINDOW, Arena, MakeArena
from tests.support.proxy import Proxy
from tests.support.rabbit import Rabbit
from tests.support.site import Site
from tests.support.wait import wait_until


def cut(proxy: Proxy, _arena: Arena) -> None:
    proxy.cut()
    proxy.mend()


def half_close(proxy: Proxy, _arena: Arena) -> None:
    proxy.half_close()


def stall(proxy: Proxy, _arena: Arena) -> None:
    """No byte for so long that the heartbeats are missed."""
    taken = proxy.taken
    proxy.stall()
    wait_until(lambda: proxy.taken > taken, "the silent connection to be given up")
    proxy.resume()


def cut_before_the_answer(proxy: Proxy, _arena: Arena) -> None:
    """What is published arrives, the confirm does not."""
    proxy.deafen()
    wait_until(lambda: proxy.holding, "an answer of the broker")
    proxy.drop()
    proxy.resume()


def slow(proxy: Proxy, arena: Arena) -> None:
    before = len(set(arena.ledger.ids()))
    proxy.slow(50_000)
    arena.done(before + 20)
    proxy.slow(None)


FAULTS: list[Callable[[Proxy, Arena], None]] = [
    cut,
    half_close,
    stall,
    cut_before_the_answer,
    slow,
]

#: Seconds between heartbeats, so that silence is noticed while the test waits.
HEARTBEAT = {"TASKQ_BROKER_HEARTBEAT": "1"}


@pytest.mark.parametrize("side", ["worker", "producer"])
def test_no_confirmed_task_is_lost_by_the_network(
    side: str, arena_on: MakeArena, rabbit: Rabbit, rabbit_through_proxy: Proxy
) -> None:
    arena = arena_on(Site(rabbit.url))
    beyond = rabbit_through_proxy.url
    arena.worker(url=beyond if side == "worker" else None, **HEARTBEAT)
    arena.flood(pause=0.01, url=beyond if side == "producer" else None, **HEARTBEAT)

    for number, fault in enumerate(FAULTS, start=1):
        arena.done(number * COUNT // (len(FAULTS) + 2))
        print(fault.__name__)
        fault(rabbit_through_proxy, arena)

    in_flight = WINDOW if side == "worker" else AT_ONCE
    arena.balance(repeats=len(FAULTS) * in_flight)
