"""Nodes of a RabbitMQ cluster are killed and come back, while tasks are sent and run."""

from contextlib import closing
from itertools import count

import pytest

from taskq.broker.base import Route
from tests.faults.arena import AT_ONCE, COUNT, PATIENCE, SCALE, WINDOW, MakeArena
from tests.support.amqp import Bench, to
from tests.support.rabbit import RabbitCluster
from tests.support.site import Site
from tests.support.wait import wait_until


@pytest.mark.timeout(300 * SCALE)
def test_no_confirmed_task_is_lost_when_the_leader_of_its_queue_is_killed(
    arena_on: MakeArena, rabbit_cluster: RabbitCluster
) -> None:
    """Of the worker, the producer and the leader, a kill hits one, two or all of them."""
    cluster = rabbit_cluster
    arena = arena_on(Site(cluster.url()))
    workers = [arena.worker(url=cluster.url(first)) for first in (0, 1)]
    arena.flood(pause=0.05, url=cluster.url(2), TASKQ_PUBLISH_TIMEOUT=str(PATIENCE))

    faults = 2 * SCALE
    for fault in range(1, faults + 1):
        arena.done(fault * COUNT // (2 * faults))
        leader = cluster.leader("q1")
        print(f"kill {leader.name}")
        leader.kill()
        done = len(set(arena.ledger.ids()))
        arena.done(min(COUNT, done + 2 * WINDOW))  # two of three are enough
        leader.start()
        wait_until(lambda: cluster.is_whole("q1"), "all members of q1", timeout=PATIENCE)

    # What the workers held, and what was sent and not yet confirmed.
    arena.balance(repeats=faults * (2 * WINDOW + AT_ONCE))
    assert any(event["event"] == "connection-lost" for each in workers for event in each.events)


@pytest.mark.timeout(300)
def test_who_publishes_while_a_leader_is_chosen_is_not_refused_for_ever(
    rabbit_cluster: RabbitCluster,
) -> None:
    """RabbitMQ 3.10 rejects all that the channel of such a publish ever sends to the queue."""
    first, _, last = rabbit_cluster.nodes
    with closing(Bench(last.url())) as there:
        there.send(there.outlet(), to("q2"), "who declares it leads it")
        there.confirm("who declares it leads it")

    with closing(Bench(first.url())) as here:
        outlet = here.outlet()
        here.send(outlet, to("q3"), "connected")
        here.confirm("connected")
        last.kill()
        names = (f"message {number}" for number in count())

        def is_taken() -> bool:
            name = next(names)
            here.send(outlet, Route("", "q2"), name)
            here.until(lambda: name in here.done, f"the end of {name}")
            return here.done[name] is None

        wait_until(is_taken, "a message to be confirmed", timeout=PATIENCE)
        more = [f"another {number}" for number in range(100)]
        here.send(outlet, Route("", "q2"), *more)
        here.confirm(*more)
