"""Tasks that take longer than RabbitMQ leaves a message unacknowledged, on a node in a hurry.

The node's `consumer_timeout` is 4 seconds and it looks every second, where a real one waits for
half an hour; the worker knows that by its setting.
"""

import signal
from collections.abc import Iterator

import pytest

from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.rabbit import RabbitNode
from tests.support.site import Site

PATIENCE = 4
#: Seconds; the broker would have lost patience twice.
LONG = 2.5 * PATIENCE


@pytest.fixture(scope="module")
def hasty_node() -> Iterator[RabbitNode]:
    node = RabbitNode(config=f"consumer_timeout = {PATIENCE * 1000}\n")
    try:
        node.start()
        node.ctl("eval", "application:set_env(rabbit, channel_tick_interval, 1000).")
        yield node
    finally:
        node.close()


@pytest.fixture
def hasty(hasty_node: RabbitNode) -> Iterator[Site]:
    site = Site(hasty_node.url(hasty_node.fresh_vhost()))
    yield site
    for app in site.apps:
        app.close()


def start(site: Site, worker_process: StartWorker, patience: float = PATIENCE) -> WorkerProcess:
    env = site.env | {"TASKQ_BROKER_CONSUMER_TIMEOUT": str(patience)}
    worker = worker_process(APP, "-Q", "q1", "-c", "1", env=env)
    worker.wait_for("worker-ready")
    return worker


def test_a_task_longer_than_the_brokers_patience_runs_once(
    hasty: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = start(hasty, worker_process)
    app = hasty.app()

    long = app.send_task("tasks.act", args=("sleep", LONG), queue="q1")
    behind = [app.send_task("tasks.record", args=(n,), queue="q1") for n in range(3)]

    assert long.get(timeout=60) is None
    assert [0, 1, 2] == [each.get(timeout=60) for each in behind]
    names = [event["event"] for event in worker.events]
    assert "task-claimed" in names
    assert "connection-lost" not in names
    assert 0 == worker.stop()
    assert 0 == hasty.count("q1")
    assert_conserved([long.id, *(each.id for each in behind)], ledger, once=True)


def test_without_claims_the_broker_would_have_taken_it_back(
    hasty: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = start(hasty, worker_process, patience=1800)

    hasty.app().send_task("tasks.act", args=("sleep", LONG), queue="q1")

    assert "Timeout value used" in worker.wait_for("connection-lost", timeout=60)["reason"]
    ledger.wait_for(1)
    worker.stop(signal.SIGQUIT)


def test_when_its_worker_is_killed_a_claimed_task_goes_home_and_runs_elsewhere(
    hasty: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    first = start(hasty, worker_process)
    app = hasty.app()
    long = app.send_task("tasks.act", args=("sleep", LONG), queue="q1")
    first.wait_for("task-claimed", id=long.id)

    first.kill()
    start(hasty, worker_process)

    assert long.get(timeout=60) is None
    assert [long.id] * 2 == ledger.ids()
    assert_conserved([long.id], ledger)


def test_when_its_worker_is_only_cut_off_a_claimed_task_goes_on_and_runs_once(
    hasty: Site, hasty_node: RabbitNode, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = start(hasty, worker_process)
    long = hasty.app().send_task("tasks.act", args=("sleep", LONG), queue="q1")
    worker.wait_for("task-claimed", id=long.id)
    worker.wait_for("task-claimed", id=long.id)  # the first claim is held by now

    hasty_node.ctl("close_all_connections", "--global", "for a test")
    worker.wait_for("connection-lost")

    assert long.get(timeout=60) is None
    assert 0 == worker.stop()
    assert 0 == hasty.count("q1")
    assert_conserved([long.id], ledger, once=True)
