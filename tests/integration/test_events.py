"""Events on real brokers: taskq's told to Celery's tools, Celery's heard by taskq."""

import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.events.state import State as CelerysState

from taskq import TaskQ
from taskq.events import Receiver, State
from tests.support.ledger import Ledger
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.program import leashed
from tests.support.rabbit import Rabbit
from tests.support.site import Site
from tests.support.wait import wait_until

Event = dict[str, Any]

#: A Celery app for its own worker; the broker's URL is in the environment.
CELERY_APP = """
import os
from celery import Celery

app = Celery("foreign", broker=os.environ["BROKER"], backend="rpc://")
app.conf.update(worker_send_task_events=True, task_default_queue="foreign")

@app.task(name="foreign.add")
def add(x, y):
    return x + y

@app.task(name="foreign.fail")
def fail():
    raise ValueError("no")
"""


class Monitor:
    """Real Celery's receiver of events, in a thread of its own."""

    def __init__(self, url: str) -> None:
        self.events: list[Event] = []
        self.state = CelerysState()
        self._app = Celery("monitor", broker=url, set_as_current=False)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(30), "Celery's receiver hears nothing"

    def _run(self) -> None:
        with self._app.connection_for_read() as connection:
            self._receiver = self._app.events.Receiver(connection, handlers={"*": self._on_event})
            self._receiver.on_consume_ready = lambda *_, **__: self._ready.set()
            self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def _on_event(self, event: Event) -> None:
        self.state.event(event)
        self.events.append(event)

    def of(self, kind: str, task_id: str | None = None) -> list[Event]:
        """The events of that *kind* so far, of one task or of all."""
        events = [event for event in self.events if event["type"] == kind]
        return [event for event in events if task_id in (None, event.get("uuid"))]

    def wait_for(self, kind: str, task_id: str | None = None) -> Event:
        """The first event of that *kind*, as soon as it is there."""
        return wait_until(lambda: self.of(kind, task_id), f"{kind} of {task_id}")[0]

    def close(self) -> None:
        self._receiver.should_stop = True
        self._thread.join(30)
        self._app.close()


@pytest.fixture
def monitor(rabbit: Rabbit) -> Iterator[Monitor]:
    monitor = Monitor(rabbit.url)
    yield monitor
    monitor.close()


def start(site: Site | Rabbit, worker_process: StartWorker, *arguments: str) -> WorkerProcess:
    worker = worker_process(
        APP, "-Q", "q1", "-c", "2", "-n", "w1", *arguments, env={"TASKQ_BROKER_URL": site.url}
    )
    worker.wait_for("worker-ready")
    return worker


@pytest.fixture
def app(rabbit: Rabbit) -> Iterator[TaskQ]:
    with TaskQ("producer", broker=rabbit.url, task_send_sent_event=True) as app:
        yield app


def test_celerys_receiver_follows_a_task_through_a_taskq_worker(
    app: TaskQ, rabbit: Rabbit, monitor: Monitor, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = start(rabbit, worker_process, "-E")

    result = app.send_task("tasks.record", args=(7,), queue="q1")
    assert 7 == result.get(timeout=30)
    monitor.wait_for("task-succeeded", result.id)

    sent, received, started, succeeded = (
        monitor.wait_for(f"task-{subject}", result.id)
        for subject in ("sent", "received", "started", "succeeded")
    )
    assert ("tasks.record", "q1", "", "q1") == tuple(
        sent[name] for name in ("name", "queue", "exchange", "routing_key")
    )
    assert ("tasks.record", "(7,)", "{}", 0) == tuple(
        received[name] for name in ("name", "args", "kwargs", "retries")
    )
    assert received["root_id"] == result.id
    assert received["pid"] == started["pid"] == succeeded["pid"] == worker.pid
    assert received["clock"] < started["clock"] < succeeded["clock"]
    assert "7" == succeeded["result"]
    assert succeeded["runtime"] >= 0
    task = monitor.state.tasks[result.id]
    assert ("SUCCESS", "tasks.record") == (task.state, task.name)


def test_celerys_receiver_sees_how_tasks_fail(
    app: TaskQ, rabbit: Rabbit, monitor: Monitor, worker_process: StartWorker, ledger: Ledger
) -> None:
    start(rabbit, worker_process, "-E")

    send = {
        word: app.send_task("tasks.act", args=(word,), queue="q1")
        for word in ("fail", "reject", "kill")
    }
    again = app.send_task("tasks.act", args=("retry", 1), queue="q1")
    unknown = app.send_task("tasks.nobody", queue="q1")
    late = app.send_task("tasks.record", args=(1,), queue="q1", expires=-1)

    failed = monitor.wait_for("task-failed", send["fail"].id)
    assert "RuntimeError(None)" == failed["exception"]
    assert "Traceback" in failed["traceback"]
    assert monitor.wait_for("task-rejected", send["reject"].id)["requeue"] is False
    assert "WorkerLost" in monitor.wait_for("task-failed", send["kill"].id)["exception"]
    monitor.wait_for("task-retried", again.id)
    monitor.wait_for("task-succeeded", again.id)
    assert "NotRegistered" in monitor.wait_for("task-failed", unknown.id)["exception"]
    assert monitor.wait_for("task-revoked", late.id)["expired"] is True


def test_celerys_receiver_hears_of_revoked_and_terminated_tasks(
    app: TaskQ, rabbit: Rabbit, monitor: Monitor, worker_process: StartWorker, ledger: Ledger
) -> None:
    start(rabbit, worker_process, "-E")
    running = app.send_task("tasks.act", args=("sleep", 600), queue="q1")
    ledger.wait_for(1)

    running.revoke(terminate=True)
    app.AsyncResult("never").revoke()
    # What is sent now might come before a command that nobody has obeyed yet.
    wait_until(lambda: "never" in str(app.control.inspect().revoked()), "the revoke to be known")
    never = app.send_task("tasks.record", args=(1,), queue="q1", task_id="never")

    told = [monitor.wait_for("task-revoked", each.id) for each in (running, never)]
    assert [(True, 15, False), (False, None, False)] == [
        (each["terminated"], each["signum"], each["expired"]) for each in told
    ]


def test_celerys_state_knows_a_taskq_worker_while_it_lives(
    rabbit: Rabbit, monitor: Monitor, worker_process: StartWorker
) -> None:
    worker = start(rabbit, worker_process)
    online = monitor.wait_for("worker-online")
    monitor.wait_for("worker-heartbeat")
    name = online["hostname"]
    alive = monitor.state.workers[name].alive
    worker.stop()
    monitor.wait_for("worker-offline")

    assert name.startswith("w1@")
    assert (2.0, 0, 0, worker.pid) == tuple(
        online[field] for field in ("freq", "active", "processed", "pid")
    )
    assert ("taskq", 3) == (online["sw_ident"], len(online["loadavg"]))
    assert alive
    assert not monitor.state.workers[name].alive
    assert not monitor.of("task-received")


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_receivers_of_taskq_hear_the_same_on_every_broker(
    site: Site, worker_process: StartWorker, ledger: Ledger, pool: str
) -> None:
    state, kinds = State(), defaultdict(list)
    app = site.app(task_send_sent_event=True)

    def on_event(event: Event) -> None:
        state.event(event)
        kinds[event["type"]].append(event)
        if event["type"] == "task-succeeded":
            receiver.stop()

    with Receiver(app, {"*": on_event}) as receiver:
        receiver.open()
        start(site, worker_process, "-E", "--pool", pool)
        hear(receiver, lambda: kinds["worker-heartbeat"])
        result = app.send_task("tasks.record", args=(7,), queue="q1")
        hear(receiver, lambda: kinds["task-succeeded"])

    task = state.tasks[result.id]
    (worker,) = state.workers.values()
    assert ("SUCCESS", "tasks.record", "(7,)", "7") == (
        task.state,
        task.name,
        task.args,
        task.result,
    )
    assert task.hostname == worker.hostname
    assert worker.is_alive(worker.heard)
    assert [result.id] == [event["uuid"] for event in kinds["task-sent"]]


def delete_exchange(rabbit: Rabbit) -> None:
    with rabbit.channel() as channel:
        channel.exchange_delete("celeryev")


def bind_a_queue_that_nobody_reads(rabbit: Rabbit) -> None:
    with rabbit.channel() as channel:
        channel.exchange_declare("celeryev", "topic", durable=True)
        channel.queue_declare("unread", durable=True)
        channel.queue_bind("unread", "celeryev", "#")


def declare_as_another(rabbit: Rabbit) -> None:
    with rabbit.channel() as channel:
        channel.exchange_delete("celeryev")
        channel.exchange_declare("celeryev", "fanout", durable=False)


def fill_a_queue_that_refuses(rabbit: Rabbit) -> None:
    with rabbit.channel() as channel:
        channel.exchange_declare("celeryev", "topic", durable=True)
        limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare("full", durable=True, arguments=limits)
        channel.queue_bind("full", "celeryev", "#")


@pytest.mark.parametrize(
    "trouble",
    [
        delete_exchange,
        bind_a_queue_that_nobody_reads,
        declare_as_another,
        fill_a_queue_that_refuses,
    ],
)
def test_no_trouble_with_events_loses_a_task(
    app: TaskQ,
    rabbit: Rabbit,
    worker_process: StartWorker,
    ledger: Ledger,
    trouble: Callable[[Rabbit], None],
) -> None:
    start(rabbit, worker_process, "-E")
    ids = [app.send_task("tasks.record", args=(0,), queue="q1").id for _ in range(50)]
    ledger.wait_for(50)

    trouble(rabbit)
    ids += [app.send_task("tasks.record", args=(n,), queue="q1").id for n in range(300)]
    ledger.wait_for(350, timeout=60)

    assert sorted(ids) == sorted(ledger.ids())
    wait_until(lambda: rabbit.count("q1") == 0, "an empty queue")


def test_events_flow_again_after_their_exchange_was_deleted(
    app: TaskQ, rabbit: Rabbit, worker_process: StartWorker, ledger: Ledger
) -> None:
    start(rabbit, worker_process, "-E")
    app.send_task("tasks.record", args=(1,), queue="q1").get(timeout=30)
    delete_exchange(rabbit)

    heard: list[Event] = []
    with Receiver(app, {"task-succeeded": heard.append}) as receiver:
        receiver.open()
        ids = set()

        def again() -> object:
            ids.add(app.send_task("tasks.record", args=(2,), queue="q1").id)
            receiver.capture(timeout=0.5)
            return ids & {event["uuid"] for event in heard}

        wait_until(again, "events")


def test_a_task_that_sends_tasks_tells_of_each(
    rabbit: Rabbit, app: TaskQ, monitor: Monitor, worker_process: StartWorker, ledger: Ledger
) -> None:
    env = {"TASKQ_BROKER_URL": rabbit.url, "TASKQ_TASK_SEND_SENT_EVENT": "true"}
    worker = worker_process(APP, "-Q", "q1", "-c", "1", env=env)
    worker.wait_for("worker-ready")

    ids = app.send_task("tasks.spread", args=(3, "q1"), queue="q1").get(timeout=30)

    for task_id in ids:
        sent = monitor.wait_for("task-sent", task_id)
        assert sent["hostname"].startswith("gen")
        assert sent["pid"] != worker.pid


def hear(receiver: Receiver, condition: Callable[[], object]) -> None:
    """Capture events until *condition* holds."""
    wait_until(lambda: receiver.capture(timeout=0.1) or condition(), "events")


@pytest.fixture
def celery_worker(rabbit: Rabbit, tmp_path: Path) -> Iterator[str]:
    """A worker of real Celery's that consumes from `foreign`; its node name."""
    (tmp_path / "foreign.py").write_text(CELERY_APP)
    log = tmp_path / "celery.log"
    command = (
        *(sys.executable, "-m", "celery", "-A", "foreign", "worker", "-c", "1"),
        *("-n", "celery@here", "-Q", "foreign", "-l", "info"),
    )
    with log.open("w") as output:
        process = subprocess.Popen(
            leashed(*command),
            cwd=tmp_path,
            env={**os.environ, "BROKER": rabbit.url, "PYTHONPATH": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: " ready." in log.read_text(), "Celery's worker", timeout=60)
        yield "celery@here"
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()


def test_taskqs_receiver_follows_a_task_through_celerys_worker(
    app: TaskQ, rabbit: Rabbit, celery_worker: str
) -> None:
    state = State()
    with Receiver(app, {"*": state.event}) as receiver:
        receiver.open()
        good = app.send_task("foreign.add", args=(2, 3), queue="foreign")
        bad = app.send_task("foreign.fail", queue="foreign")
        ids = {good.id, bad.id}
        hear(
            receiver,
            lambda: (
                {task.uuid for task in state.tasks.values() if task.is_ready and task.name} == ids
            ),
        )
        hear(receiver, lambda: state.workers[celery_worker].sw_ident)
        now = state.workers[celery_worker].heard

    added, failed = state.tasks[good.id], state.tasks[bad.id]
    assert ("SUCCESS", "5", celery_worker) == (added.state, added.result, added.hostname)
    assert ("FAILURE", "ValueError('no')") == (failed.state, failed.exception)
    assert [celery_worker] == [worker.hostname for worker in state.alive_workers(now)]
    assert "py-celery" == state.workers[celery_worker].sw_ident
    assert 0 == receiver.unreadable
