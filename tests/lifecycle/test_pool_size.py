"""A worker gets more children, or less, while it works."""

from pathlib import Path

from tests.support.ledger import Ledger
from tests.support.process import WorkerProcess
from tests.support.steering import Steer
from tests.support.wait import wait_until


def wait_for_children(worker: WorkerProcess, count: int) -> None:
    wait_until(lambda: len(worker.children()) == count, f"{count} children")


def test_a_pool_that_grows_runs_more_at_once(steer: Steer, ledger: Ledger, tmp_path: Path) -> None:
    worker = steer("-c", "1")
    gate = tmp_path / "gate"
    held = [worker.send("tasks.act", "hold", str(gate)) for _ in range(3)]
    ledger.wait_for(1)

    assert {"ok": "pool will grow"} == worker.tell("pool_grow", n=2)

    ledger.wait_for(3)
    assert 3 == worker.tell("stats")["pool"]["max-concurrency"]
    gate.touch()
    assert [None] * 3 == [each.get(timeout=30) for each in held]


def test_a_pool_that_shrinks_finishes_what_runs(
    steer: Steer, ledger: Ledger, tmp_path: Path
) -> None:
    worker = steer("-c", "2")
    gate = tmp_path / "gate"
    held = [worker.send("tasks.act", "hold", str(gate)) for _ in range(2)]
    ledger.wait_for(2)

    assert {"ok": "pool will shrink"} == worker.tell("pool_shrink")
    assert 2 == len(worker.process.children())
    gate.touch()

    assert [None] * 2 == [each.get(timeout=30) for each in held]
    wait_for_children(worker.process, 1)
    assert 5 == worker.send("tasks.add", 2, 3).get(timeout=30)
    assert "child-died" not in [event["event"] for event in worker.process.events]


def test_those_go_first_that_have_nothing_to_do(
    steer: Steer, ledger: Ledger, tmp_path: Path
) -> None:
    worker = steer("-c", "3")
    gate = tmp_path / "gate"
    held = worker.send("tasks.act", "hold", str(gate))
    ledger.wait_for(1)
    busy = worker.tell("active")[0]["worker_pid"]

    worker.tell("pool_shrink", n=2)

    wait_until(lambda: worker.process.children() == [busy], "only the busy child")
    gate.touch()
    assert held.get(timeout=30) is None


def test_a_place_is_filled_although_who_left_it_still_works(
    steer: Steer, ledger: Ledger, tmp_path: Path
) -> None:
    worker = steer("-c", "2")
    gate = tmp_path / "gate"
    held = [worker.send("tasks.act", "hold", str(gate)) for _ in range(2)]
    ledger.wait_for(2)

    worker.tell("pool_shrink")
    worker.tell("pool_grow")

    assert 5 == worker.send("tasks.add", 2, 3).get(timeout=30)
    gate.touch()
    assert [None] * 2 == [each.get(timeout=30) for each in held]
    wait_for_children(worker.process, 2)


def test_one_child_stays(steer: Steer) -> None:
    worker = steer("-c", "2")

    refusal = worker.tell("pool_shrink", n=2)["error"]

    assert "there would be 0 children; 1 to" in refusal
    assert 5 == worker.send("tasks.add", 2, 3).get(timeout=30)


def test_a_solo_worker_stays_alone(steer: Steer) -> None:
    worker = steer("--pool", "solo")

    assert "a solo worker has one child" in worker.tell("pool_grow")["error"]
