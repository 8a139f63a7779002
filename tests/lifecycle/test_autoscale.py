"""A worker with --autoscale has as many children as there is work for."""

from pathlib import Path

from tests.support.ledger import Ledger
from tests.support.steering import Steer
from tests.support.wait import wait_until


def test_children_come_when_jobs_wait(steer: Steer, ledger: Ledger, tmp_path: Path) -> None:
    worker = steer("--autoscale", "3,1")
    assert 1 == len(worker.process.children())
    gate = tmp_path / "gate"

    held = [worker.send("tasks.act", "hold", str(gate)) for _ in range(5)]

    ledger.wait_for(3)
    told = worker.tell("stats")
    assert {"max": 3, "min": 1, "current": 3, "qty": 3} == told["autoscaler"]
    assert 3 == told["pool"]["max-concurrency"] == len(worker.process.children())
    gate.touch()
    assert [None] * 5 == [each.get(timeout=30) for each in held]


def test_its_bounds_are_changed_while_it_works(steer: Steer) -> None:
    worker = steer("--autoscale", "5,1")

    assert {"ok": "autoscale now max=5 min=2"} == worker.tell("autoscale", min=2)
    wait_until(lambda: len(worker.process.children()) == 2, "two children")
    assert {"ok": "autoscale now max=1 min=1"} == worker.tell("autoscale", max=1, min=0)
    wait_until(lambda: len(worker.process.children()) == 1, "one child")
    assert "max=1 is less than min=9" in worker.tell("autoscale", min=9)["error"]


def test_who_scales_itself_is_not_grown_by_others(steer: Steer) -> None:
    worker = steer("--autoscale", "5,1")

    for command in ("pool_grow", "pool_shrink"):
        assert "not supported with autoscale" in worker.tell(command)["error"]


def test_who_does_not_scale_itself_says_so(steer: Steer) -> None:
    worker = steer("-c", "1")

    assert "autoscale is not on" in worker.tell("autoscale", max=5)["error"]
