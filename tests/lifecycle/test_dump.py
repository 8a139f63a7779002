"""Python stacks of children that go on with what they do."""

import os
import signal
from pathlib import Path

import pytest

from tests.support.ledger import Ledger
from tests.support.steering import Steer, Steered
from tests.support.wait import wait_until

CODE = """
import threading, time
from pathlib import Path
from taskq import TaskQ

app = TaskQ("deep")

@app.task(name="crowd")
def crowd(gate, threads):
    def descend(depth):
        if depth:
            return descend(depth - 1)
        while not Path(gate).exists():
            time.sleep(0.05)
    members = [threading.Thread(target=descend, args=(60,)) for _ in range(threads)]
    for member in members:
        member.start()
    Path(gate + ".begun").touch()
    for member in members:
        member.join()
    return "done"
"""


def children(worker: Steered, name: str) -> list[str]:
    """The process ids of children that run the task *name*."""
    return [str(job["worker_pid"]) for job in worker.tell("active") if job["name"] == name]


def test_every_child_tells_its_stack_and_goes_on(
    steer: Steer, ledger: Ledger, tmp_path: Path
) -> None:
    worker = steer("-c", "2")
    gate = tmp_path / "gate"
    held = worker.send("tasks.act", "hold", str(gate))
    ledger.wait_for(1)

    stacks = worker.tell("dump")

    assert {str(pid) for pid in worker.process.children()} == stacks.keys()
    [busy] = children(worker, "tasks.act")
    assert "tasks.py" in stacks[busy]
    assert " in act\n" in stacks[busy]
    assert stacks[busy].endswith("in _run_module_as_main\n")
    assert stacks == worker.tell("dump")
    gate.touch()
    assert held.get(timeout=30) is None


def test_a_child_that_holds_the_interpreter_lock_tells_it_too(steer: Steer, ledger: Ledger) -> None:
    worker = steer("-c", "1")
    worker.send("tasks.deaf", True, time_limit=600)
    ledger.wait_for(1)

    [stack] = worker.tell("dump").values()

    assert " in deaf\n" in stack
    assert 1 == worker.process.stop(signal.SIGQUIT)


@pytest.mark.parametrize("threads", [1, 30])
def test_all_threads_are_told_to_their_ends(steer: Steer, tmp_path: Path, threads: int) -> None:
    (tmp_path / "tasks.py").write_text(CODE)
    gate = tmp_path / "gate"
    worker = steer("-c", "1", folder=tmp_path)
    crowd = worker.send("crowd", str(gate), threads)
    wait_until(Path(f"{gate}.begun").exists, "all threads")

    [stack] = worker.tell("dump").values()

    assert threads + 1 == stack.count("hread 0x")
    assert stack.endswith("in _run_module_as_main\n")
    gate.touch()
    assert "done" == crowd.get(timeout=30)


def test_a_child_that_does_not_answer_is_told_of(steer: Steer) -> None:
    worker = steer("-c", "2")
    for _ in range(2):
        worker.process.wait_for("child-ready")
    frozen, other = worker.process.children()
    os.kill(frozen, signal.SIGSTOP)
    try:
        stacks = worker.tell("dump")
    finally:
        os.kill(frozen, signal.SIGCONT)

    assert "no answer within 2 s" == stacks[str(frozen)]
    assert "in main\n" in stacks[str(other)]


def test_those_who_ask_at_once_are_told_the_same(steer: Steer) -> None:
    worker = steer("-c", "1")
    [child] = worker.process.children()
    control = worker.app.control
    os.kill(child, signal.SIGSTOP)
    try:
        control.broadcast("dump", destination=[worker.node])
        stacks = worker.tell("dump")
    finally:
        os.kill(child, signal.SIGCONT)

    assert {str(child): "no answer within 2 s"} == stacks


def test_a_solo_worker_tells_its_own(steer: Steer) -> None:
    worker = steer("--pool", "solo")

    [(pid, stack)] = worker.tell("dump").items()

    assert str(worker.process.pid) == pid
    assert "in dump\n" in stack
