"""A stranger who knows nothing but docs/protocol.md sends tasks and hears what came of them.

The stranger is pika alone; that page itself shows Debian's `amqp-publish`, and is run as it stands.
"""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.support.process import APP, StartWorker
from tests.support.rabbit import Rabbit
from tests.support.wait import wait_until

#: Seconds to wait for an answer.
BOUND = 30


class Stranger:
    """A program in another language, as it were, with a queue for its answers."""

    def __init__(self, channel: BlockingChannel) -> None:
        self._channel = channel
        self._channel.confirm_delivery()
        self._answers = channel.queue_declare("", exclusive=True).method.queue

    def send(self, task: str, args: list[Any], *, body: bytes | None = None, **headers: Any) -> str:
        """Call *task*; its id."""
        task_id = str(uuid.uuid4())
        self._channel.basic_publish(
            "",
            "q1",
            body or json.dumps([args, {}, {}]).encode(),
            pika.BasicProperties(
                content_type="application/json",
                content_encoding="utf-8",
                delivery_mode=2,
                reply_to=self._answers,
                headers={"task": task, "id": task_id, **headers},
            ),
            mandatory=True,
        )
        return task_id

    def hear(self) -> dict[str, Any]:
        """The next answer."""
        for _method, properties, body in self._channel.consume(
            self._answers, auto_ack=True, inactivity_timeout=BOUND
        ):
            assert body is not None, f"no answer within {BOUND} s"
            answer: dict[str, Any] = json.loads(body)
            assert answer["task_id"] == properties.correlation_id
            return answer
        raise AssertionError("the answers ended")


@contextmanager
def stranger_at(rabbit: Rabbit) -> Iterator[Stranger]:
    with rabbit.channel() as channel:
        yield Stranger(channel)


@pytest.fixture
def stranger(rabbit: Rabbit, worker_process: StartWorker) -> Iterator[Stranger]:
    """A stranger, and a worker that takes from q1."""
    worker = worker_process(APP, "-Q", "q1", "-c", "2", env={"TASKQ_BROKER_URL": rabbit.url})
    worker.wait_for("worker-ready")
    with stranger_at(rabbit) as stranger:
        yield stranger


def test_a_result_is_told_in_the_words_of_the_page(stranger: Stranger) -> None:
    task_id = stranger.send("tasks.add", [2, 3])

    answer = stranger.hear()

    assert {"task_id", "status", "result", "traceback", "children", "date_done"} == answer.keys()
    assert (task_id, "SUCCESS", 5) == (answer["task_id"], answer["status"], answer["result"])


def test_a_failure_is_told_with_its_exception(stranger: Stranger) -> None:
    stranger.send("tasks.fail", ["no luck"])

    answer = stranger.hear()

    assert "FAILURE" == answer["status"]
    assert {
        "exc_type": "ValueError",
        "exc_message": ["no luck"],
        "exc_module": "builtins",
    } == answer["result"]
    assert "no luck" in answer["traceback"]


def test_an_eta_is_waited_for(stranger: Stranger) -> None:
    eta = datetime.now(UTC) + timedelta(seconds=1)
    stranger.send("tasks.add", [2, 3], eta=eta.isoformat())

    answer = stranger.hear()

    assert "SUCCESS" == answer["status"]
    assert datetime.fromisoformat(answer["date_done"]) >= eta


def test_what_has_expired_is_not_run(stranger: Stranger) -> None:
    stranger.send("tasks.add", [2, 3], expires="2020-01-01T00:00:00")

    assert "REVOKED" == stranger.hear()["status"]


def test_every_envelope_is_understood(stranger: Stranger) -> None:
    values = {
        "datetime": "2026-01-02T03:04:05+00:00",
        "date": "2026-01-02",
        "time": "03:04:05",
        "decimal": "1.10",
        "uuid": {"hex": "00000000000000000000000000000005"},
        "bytes": "text",
        "base64": "/wA=",
        "set": [1],
    }
    envelopes = [{"__type__": name, "__value__": value} for name, value in values.items()]
    stranger.send("tasks.act", ["ok", envelopes])

    assert envelopes == stranger.hear()["result"]


def test_what_breaks_the_rules_is_kept_with_its_reason(stranger: Stranger, rabbit: Rabbit) -> None:
    task_id = stranger.send("tasks.add", [], body=b"[[2, 3], {")

    answer = stranger.hear()
    wait_until(lambda: rabbit.count("q1.dead"), "the dead letter")
    ((properties, body),) = rabbit.drain("q1.dead")

    assert (task_id, "FAILURE") == (answer["task_id"], answer["status"])
    assert b"[[2, 3], {" == body
    assert task_id == properties.headers["id"]
    assert "json" in properties.headers["taskq-dead-reason"]


def test_before_any_worker_the_queue_is_not_there(rabbit: Rabbit) -> None:
    with (
        stranger_at(rabbit) as stranger,
        pytest.raises(pika.exceptions.UnroutableError),
    ):
        stranger.send("tasks.add", [2, 3])
