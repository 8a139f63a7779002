"""No-ops without end, over connections that are cut again and again: nothing grows."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.arena import AT_ONCE, PATIENCE, SCALE, WINDOW, MakeArena
from tests.support.proxy import Proxy
from tests.support.rabbit import Rabbit
from tests.support.site import Site
from tests.support.wait import wait_until

#: A million tasks and a hundred reconnects in `make test-long`.
COUNT, RECONNECTS = 10_000 * SCALE**2, 10 * SCALE

#: A process may grow by so many KiB in three tenths of the tasks, for reasons of the allocator.
#: What leaks grows by more in every three tenths: in `make test-long` that is one byte a task.
NOISE = 256


class Weight(NamedTuple):
    """What a process holds: KiB of memory that is its own or its parent's, and open files."""

    memory: int
    files: int


def weigh(pid: int) -> Weight:
    """The memory is counted whether it is shared or not, for a fork shares less and less of it."""
    status = Path(f"/proc/{pid}/status").read_text()
    memory = sum(int(size) for size in re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+)", status, re.M))
    return Weight(memory, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.timeout(300 * SCALE**2)
def test_no_process_of_a_worker_grows_with_its_tasks_and_reconnects(
    arena_on: MakeArena, rabbit: Rabbit, rabbit_through_proxy: Proxy
) -> None:
    arena = arena_on(Site(rabbit.url))
    beyond = rabbit_through_proxy.url
    worker = arena.worker(url=beyond)
    arena.flood(count=COUNT, seconds=0, url=beyond)

    samples: list[dict[int, Weight]] = []
    for reconnect in range(1, RECONNECTS + 1):
        runs = reconnect * COUNT // (RECONNECTS + 1)
        wait_until(lambda runs=runs: arena.ledger.runs() >= runs, f"{runs} tasks", timeout=PATIENCE)
        if reconnect * 10 // RECONNECTS in (3, 6, 9) and reconnect * 10 % RECONNECTS == 0:
            samples.append({pid: weigh(pid) for pid in worker.family()})
        rabbit_through_proxy.drop()

    arena.balance(repeats=RECONNECTS * (WINDOW + AT_ONCE))
    warm, later, last = samples
    assert {*warm} == {*later} == {*last}, "a process died"
    assert 4 == len(warm)  # parent, nursery and two children
    for pid in warm:
        print(pid, warm[pid], later[pid], last[pid])
        grown, again = later[pid].memory - warm[pid].memory, last[pid].memory - later[pid].memory
        assert min(grown, again) <= NOISE
        opened, more = later[pid].files - warm[pid].files, last[pid].files - later[pid].files
        assert min(opened, more) <= 1  # a task that is caught writing has the ledger open
