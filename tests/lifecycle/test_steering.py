"""What a worker shows of itself, and what else it does when it is told to."""

import json
import time
from pathlib import Path

from taskq.events import Receiver
from tests.support.ledger import Ledger
from tests.support.process import APP, StartWorker
from tests.support.site import Site
from tests.support.steering import Steer, Steered
from tests.support.wait import wait_until

CODE = """
import time
from pathlib import Path
from taskq import TaskQ

app = TaskQ("steered")

@app.task(name="version", queue="q1", rate_limit="100/s")
def version():
    return {number}

@app.task(name="hold")
def hold(gate, ballast):
    while not Path(gate).exists():
        time.sleep(0.01)
"""


# -- what it shows ---------------------------------------------------------------------------------


def test_stats_tell_what_it_does(steer: Steer, ledger: Ledger, tmp_path: Path) -> None:
    worker = steer("-c", "2", "--max-tasks-per-child", "1000")
    gate = tmp_path / "gate"
    worker.send("tasks.add", 1, 2).get(timeout=30)
    held = worker.send("tasks.act", "hold", str(gate))
    ledger.wait_for(1)

    told = worker.tell("stats")

    assert {"tasks.add": 1} == told["total"]
    assert worker.process.pid == told["pid"]
    assert told["uptime"] >= 0
    assert told["clock"].isdigit()
    assert sorted(worker.process.children()) == sorted(told["pool"]["processes"])
    assert 1000 == told["pool"]["max-tasks-per-child"]
    assert told["rusage"]["utime"] > 0
    assert "amqp" == told["broker"]["transport"] or "sqlite" == told["broker"]["transport"]
    ours = told["taskq"]
    assert 1 == ours["held"]
    assert ours["held_bytes"] > 0
    [busy] = [child for child in ours["children"] if child["id"] is not None]
    assert (held.id, "tasks.act", 1) == (busy["id"], busy["name"], busy["in_hand"])
    assert busy["memory"] > 1024 * 1024
    assert abs(busy["since"] - time.time()) < 3600
    gate.touch()


def test_no_password_is_told(steer: Steer) -> None:
    worker = steer("-c", "1", env={"TASKQ_RESULT_BACKEND": "redis://:hidden@127.0.0.1:1/0"})

    told = [worker.tell(command) for command in ("stats", "conf", "report")]

    assert "hidden" not in json.dumps(told)
    assert "redis://:***@127.0.0.1:1/0" == told[1]["result_backend"]
    assert "***@127.0.0.1:1/0" in told[2]["ok"]


def test_conf_tells_what_was_set_or_all(steer: Steer) -> None:
    worker = steer("-c", "1", env={"TASKQ_MAX_CRASHES": "7"})

    assert {"broker_url", "max_crashes"} == worker.tell("conf").keys()
    assert 7 == worker.tell("conf")["max_crashes"]
    assert 5.0 == worker.tell("conf", with_defaults=True)["result_backend_timeout"]


def test_tasks_are_found_where_they_are(steer: Steer, ledger: Ledger, tmp_path: Path) -> None:
    worker = steer("-c", "1", "--prefetch", "2")
    gate = tmp_path / "gate"
    running = worker.send("tasks.act", "hold", str(gate))
    waiting = worker.send("tasks.act", "ok", [1, "two"], retries=None)
    ledger.wait_for(1)
    wait_until(lambda: worker.tell("reserved"), "the task that waits")

    [active], [reserved] = worker.tell("active"), worker.tell("reserved", safe=True)
    found = worker.tell("query_task", ids=[running.id, waiting.id, "unknown"])

    assert (running.id, "tasks.act") == (active["id"], active["name"])
    assert (["hold", str(gate)], {}) == (active["args"], active["kwargs"])
    assert worker.process.children() == [active["worker_pid"]]
    assert active["time_start"] <= time.time()
    assert not active["acknowledged"]
    assert "q1" == active["delivery_info"]["routing_key"]
    assert (waiting.id, "('ok', [1, 'two'])") == (reserved["id"], reserved["args"])
    assert reserved["time_start"] is None
    assert {running.id: "active", waiting.id: "reserved"} == {
        task_id: state for task_id, (state, _) in found.items()
    }
    gate.touch()


def test_a_large_argument_is_shown_as_text(steer: Steer, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(CODE.format(number=1))
    worker = steer("-c", "1", folder=tmp_path)
    gate = tmp_path / "gate"
    worker.send("hold", str(gate), "x" * 5000)

    [active] = wait_until(lambda: worker.tell("active"), "the task that runs")

    assert active["args"].startswith(f"('{gate}', 'xxx")
    assert len(active["args"]) < 5000
    gate.touch()


def test_registered_tasks_tell_what_their_authors_chose(steer: Steer, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(CODE.format(number=1))
    worker = steer("-c", "1", folder=tmp_path)

    assert ["hold", "version [rate_limit=100/s]"] == worker.tell("registered")
    asked = ["queue", "rate_limit", "priority"]
    assert ["hold", "version [queue=q1 rate_limit=100/s]"] == worker.tell(
        "registered", taskinfoitems=asked
    )
    worker.tell("rate_limit", task_name="version", rate_limit="5/m")
    assert ["hold", "version [rate_limit=5/m]"] == worker.tell("registered")


# -- what it does ----------------------------------------------------------------------------------


def test_a_restarted_pool_runs_new_code(steer: Steer, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(CODE.format(number=1))
    worker = steer("-c", "2", folder=tmp_path, env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert 1 == worker.send("version").get(timeout=30)

    (tmp_path / "tasks.py").write_text(CODE.format(number=2))
    assert {"ok": "reload started"} == worker.tell("pool_restart")
    worker.process.wait_for("worker-reloaded")

    wait_until(lambda: worker.send("version").get(timeout=30) == 2, "the new code")


def test_task_events_begin_and_cease_on_demand(steer: Steer) -> None:
    worker = steer("-c", "1")
    heard: list[dict[str, object]] = []
    receiver = Receiver(worker.app, {"task-succeeded": heard.append})
    try:
        receiver.open(timeout=30)
        _run_unseen(worker)
        assert {"ok": "task events enabled"} == worker.tell("enable_events")
        assert {"ok": "task events already enabled"} == worker.tell("enable_events")

        told = worker.send("tasks.add", 2, 3)
        told.get(timeout=30)
        _hear(receiver, heard, 1)
        assert {"ok": "task events disabled"} == worker.tell("disable_events")
        _run_unseen(worker)
        worker.tell("enable_events")
        last = worker.send("tasks.add", 4, 4)
        _hear(receiver, heard, 2)
    finally:
        receiver.close()

    assert [(told.id, "5"), (last.id, "8")] == [(each["uuid"], each["result"]) for each in heard]


def _run_unseen(worker: Steered) -> None:
    worker.send("tasks.add", 1, 1).get(timeout=30)
    wait_until(lambda: worker.tell("stats")["taskq"]["held"] == 0, "the end of it")


def _hear(receiver: Receiver, heard: list[dict[str, object]], count: int) -> None:
    def enough() -> bool:
        receiver.capture(timeout=0.1)
        return len(heard) >= count

    wait_until(enough, f"{count} events")


def test_a_heartbeat_comes_on_demand(steer: Steer) -> None:
    worker = steer("-c", "1", env={"TASKQ_WORKER_HEARTBEAT": "0"})
    heard: list[dict[str, object]] = []
    receiver = Receiver(worker.app, {"worker-heartbeat": heard.append})
    try:
        receiver.open(timeout=30)
        assert worker.tell("heartbeat") is None
        _hear(receiver, heard, 1)
    finally:
        receiver.close()

    assert worker.node == heard[0]["hostname"]


def test_a_drained_worker_finishes_what_it_holds_and_takes_nothing_more(
    steer: Steer, ledger: Ledger, tmp_path: Path, site: Site
) -> None:
    worker = steer("-c", "1")
    gate = tmp_path / "gate"
    held = worker.send("tasks.act", "hold", str(gate))
    ledger.wait_for(1)

    assert "ok" in worker.tell("drain")
    later = worker.send("tasks.add", 2, 3)
    gate.touch()

    assert held.get(timeout=30) is None
    wait_until(lambda: worker.tell("stats")["taskq"]["held"] == 0, "an empty worker")
    assert worker.tell("stats")["taskq"]["draining"]
    assert 1 == site.count("q1")
    assert "ok" in worker.tell("undrain")
    assert 5 == later.get(timeout=30)


def test_queues_come_and_go(steer: Steer) -> None:
    worker = steer("-c", "1")

    worker.tell("add_consumer", queue="q2")
    assert ["q1", "q2"] == [queue["name"] for queue in worker.tell("active_queues")]
    assert 5 == worker.app.send_task("tasks.add", args=(2, 3), queue="q2").get(timeout=30)

    worker.tell("cancel_consumer", queue="q2")
    assert ["q1"] == [queue["name"] for queue in worker.tell("active_queues")]
    assert "RabbitMQ's own" in worker.tell("add_consumer", queue="amq.mine")["error"]


def test_a_shutdown_finishes_what_runs(steer: Steer, ledger: Ledger, tmp_path: Path) -> None:
    worker = steer("-c", "1")
    gate = tmp_path / "gate"
    held = worker.send("tasks.act", "hold", str(gate))
    ledger.wait_for(1)

    for _ in range(2):  # being told twice is no reason to hurry
        worker.app.control.shutdown(destination=[worker.node])
    worker.process.wait_for("worker-stopping")
    gate.touch()

    assert held.get(timeout=30) is None
    assert 0 == worker.process.wait()


def test_a_worker_without_remote_control_works_and_is_silent(
    site: Site, worker_process: StartWorker
) -> None:
    off = {"TASKQ_WORKER_ENABLE_REMOTE_CONTROL": "false"}
    process = worker_process(APP, "-Q", "q1", "-c", "1", "-n", "deaf@here", env=site.env | off)
    process.wait_for("worker-ready")
    worker = Steered(process, site.app(), "deaf@here")

    assert 5 == worker.send("tasks.add", 2, 3).get(timeout=30)
    assert worker.app.control.inspect(["deaf@here"], timeout=0.5).ping() is None


def test_a_worker_is_ready_while_its_only_queue_is_paused(steer: Steer) -> None:
    first = steer("-c", "1")
    first.tell("pause", queue="q1")
    later = first.send("tasks.add", 2, 3)
    assert 0 == first.process.stop()

    second = steer("-c", "1")

    assert ["q1"] == second.tell("stats")["taskq"]["paused"]
    second.tell("resume", queue="q1")
    assert 5 == later.get(timeout=30)
