"""RabbitMQ goes away and comes back, with its data, while tasks are sent and run."""

from tests.faults.arena import AT_ONCE, COUNT, SCALE, WINDOW, MakeArena
from tests.support.rabbit import Rabbit
from tests.support.site import Site


def test_no_confirmed_task_is_lost_when_the_broker_is_stopped_and_killed(
    arena_on: MakeArena, own_rabbit: Rabbit
) -> None:
    arena = arena_on(Site(own_rabbit.url))
    worker = arena.worker()
    # It does not wait for as long as the broker is away: some calls are refused, some unknown.
    flood = arena.flood(pause=0.05, TASKQ_PUBLISH_TIMEOUT="1")

    faults = 2 * SCALE
    for fault in range(faults):
        arena.done((fault + 1) * COUNT // (2 * faults))  # the rest is refused, at worst
        if fault % 2:
            own_rabbit.node.stop()
        else:
            own_rabbit.node.kill()
        own_rabbit.node.start()

    # What the worker held, and what was sent and not yet confirmed.
    arena.balance(repeats=faults * (WINDOW + AT_ONCE))
    assert worker.wait_for("connection-lost", role="intake")
    assert flood.ids("refused")
