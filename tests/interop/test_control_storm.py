"""A storm of commands, half of them malformed, ends no worker and loses no task."""

import random
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from taskq import TaskQ
from tests.interop.storm import REPLIES, REQUESTS, malformed, sound
from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.rabbit import Rabbit
from tests.support.wait import wait_until

COMMANDS = 10_000

#: So many are sent before the replies to them are waited for.
GUST = 200

NODES = ("w1@here", "w2@here", "w3@here")


@pytest.fixture
def workers(worker_process: StartWorker, rabbit: Rabbit) -> list[WorkerProcess]:
    return start(worker_process, rabbit, *NODES)


def start(worker_process: StartWorker, rabbit: Rabbit, *nodes: str) -> list[WorkerProcess]:
    env = {"TASKQ_BROKER_URL": rabbit.url}
    workers = [worker_process(APP, "-Q", "q1", "-c", "2", "-n", node, env=env) for node in nodes]
    for worker in workers:
        worker.wait_for("worker-ready", timeout=60)
    return workers


class Load:
    """Tasks that are sent one after the other, as fast as they are confirmed, until closed."""

    def __init__(self, url: str, most: int) -> None:
        self.sent: list[str] = []
        self._app = TaskQ("load", broker=url)
        self._most = most
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set() and len(self.sent) < self._most:
            result = self._app.send_task("tasks.record", (1,), queue="q1", ignore_result=True)
            self.sent.append(result.id)

    def close(self) -> None:
        self._over.set()
        self._thread.join(60)
        self._app.close()


@pytest.fixture
def load(rabbit: Rabbit, workers: list[WorkerProcess]) -> Iterator[Load]:
    load = Load(rabbit.url, most=20 * COMMANDS)
    yield load
    load.close()


@pytest.mark.timeout(900)
def test_a_storm_of_commands_ends_no_worker_and_loses_no_task(
    rabbit: Rabbit,
    workers: list[WorkerProcess],
    worker_process: StartWorker,
    load: Load,
    ledger: Ledger,
) -> None:
    chance = random.Random(6)
    children = {pid for worker in workers for pid in worker.children()}
    owed: set[str] = set()
    replies: Counter[str] = Counter()
    with rabbit.channel() as channel:
        channel.exchange_declare(REPLIES, "direct", durable=False)
        key = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(key, REPLIES, key)
        channel.basic_consume(
            key, lambda *got: replies.update([got[2].headers["ticket"]]), auto_ack=True
        )
        for number in range(COMMANDS):
            blow = (malformed if number % 2 else sound)(chance, key)
            channel.basic_publish(REQUESTS, "", blow.body, blow.properties)
            if blow.ticket is not None:
                owed.add(blow.ticket)
            if number % GUST == GUST - 1:
                wait_until(
                    lambda: (
                        channel.connection.process_data_events(0.1)
                        or all(replies[ticket] == len(workers) for ticket in owed)
                    ),
                    f"each worker to reply to {len(owed)} commands, up to number {number}",
                    timeout=120,
                )
                owed.clear()
    load.close()
    ledger.wait_for(len(load.sent), timeout=120)

    assert children == {pid for worker in workers for pid in worker.children()}
    for worker in workers:
        assert worker.is_running
        told = Counter(event["event"] for event in worker.events)
        assert not told["control-failed"], worker.log()
        assert "Traceback" not in worker.log()
    assert_conserved(load.sent, ledger, once=True)
    start(worker_process, rabbit, "late@here")  # which plays the log of it all
    with TaskQ("operator", broker=rabbit.url) as app:
        answers = app.control.inspect([*NODES, "late@here"], timeout=30).ping()
    assert answers == {node: {"ok": "pong"} for node in (*NODES, "late@here")}
