"""SIGKILL for children, for the nursery and for whole workers, while tasks run and are sent."""

import os
import random
import signal
from contextlib import suppress

from taskq.worker.dispatcher import DEPTH
from tests.faults.arena import COUNT, WINDOW, Arena

#: A process is killed each time so many more tasks are done.
CHILD_KILLED_EACH, WORKER_KILLED_EACH = 50, 200


def test_no_task_is_lost_when_children_are_killed_at_random(arena: Arena) -> None:
    worker = arena.worker()
    flood = arena.flood()

    kills = 0
    for done in range(CHILD_KILLED_EACH, COUNT - CHILD_KILLED_EACH, CHILD_KILLED_EACH):
        arena.done(done)
        if children := worker.children():
            with suppress(ProcessLookupError):
                os.kill(random.choice(children), signal.SIGKILL)
                kills += 1

    # Only what the dead child had in its hands runs again.
    arena.balance(repeats=kills * DEPTH)
    assert COUNT == len(flood.ids("confirmed"))


def test_no_task_is_lost_when_workers_and_nurseries_are_killed_again_and_again(
    arena: Arena,
) -> None:
    worker = arena.worker()
    flood = arena.flood()

    kills = 0
    for done in range(WORKER_KILLED_EACH, COUNT, WORKER_KILLED_EACH):
        arena.done(done)
        kills += 1
        if kills % 2:
            worker.kill()
            worker = arena.worker()
        else:
            worker.kill_nursery()

    # All that a worker had not settled comes again; what was never begun is not run twice.
    arena.balance(repeats=kills * WINDOW)
    assert COUNT == len(flood.ids("confirmed"))
