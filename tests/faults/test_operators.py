"""An operator closes connections and deletes the queue, while tasks are sent and run."""

from tests.faults.arena import AT_ONCE, COUNT, SCALE, WINDOW, MakeArena
from tests.support.rabbit import Rabbit
from tests.support.site import Site


def test_no_confirmed_task_is_lost_when_an_operator_closes_all_connections(
    arena_on: MakeArena, rabbit: Rabbit
) -> None:
    arena = arena_on(Site(rabbit.url))
    arena.worker()
    arena.flood(pause=0.01)

    faults = 3 * SCALE
    for fault in range(1, faults + 1):
        arena.done(fault * COUNT // (faults + 2))
        rabbit.ctl("close_all_connections", "--vhost", rabbit.vhost, "a new certificate")

    arena.balance(repeats=faults * (WINDOW + AT_ONCE))


def test_a_deleted_queue_is_declared_again_and_only_its_backlog_is_gone(
    arena_on: MakeArena, rabbit: Rabbit
) -> None:
    """The producer declares it again, so soon that RabbitMQ may tell no consumer of it."""
    arena = arena_on(Site(rabbit.url))
    arena.worker()
    arena.flood(seconds=0.002, pause=0.005)

    deleted = 0
    for fault in range(1, SCALE + 1):
        arena.done(fault * COUNT // (SCALE + 4) - deleted)
        with rabbit.channel() as channel:
            # The count is taken a moment before: what is confirmed meanwhile goes, too.
            deleted += channel.queue_delete("q1").method.message_count + AT_ONCE

    arena.balance(repeats=SCALE * WINDOW, deleted=deleted)
