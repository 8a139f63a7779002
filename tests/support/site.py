"""A place where tasks are sent and run: a broker of its own, looked into without taskq's workers.

Tests that take `site` run once on the embedded broker and once on RabbitMQ, and mean the same.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from taskq import TaskQ
from taskq.broker import open_broker
from taskq.broker.base import Broker, BrokerOptions, Delivery, Queue, Route
from taskq.loop import Loop
from taskq.url import split
from taskq.wire.message import Message
from tests.support.wait import wait_until


@dataclass
class Site:
    """One broker; *env* points a worker at it."""

    url: str
    apps: list[TaskQ] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {"TASKQ_BROKER_URL": self.url}

    def app(self, **settings: Any) -> TaskQ:
        """A producer's app, that has none of the tasks' code."""
        app = TaskQ("producer", broker=self.url, **settings)
        self.apps.append(app)
        return app

    @contextlib.contextmanager
    def broker(self) -> Iterator[Broker]:
        broker = open_broker(BrokerOptions(urls=split(self.url), name="look"))
        try:
            yield broker
        finally:
            broker.close()

    def count(self, queue: str) -> int:
        """How many messages are ready in *queue*."""
        with self.broker() as broker:
            return broker.count(queue)

    def publish(self, message: Message, queue: str) -> None:
        """Put *message* into *queue* as it is, whatever it is."""
        with self.broker() as broker:
            loop = Loop()
            outlet = broker.outlet(loop)
            answers: list[object] = []
            outlet.publish(message, Route("", queue, (Queue(queue),)), answers.append)
            wait_until(lambda: loop.turn(0.05) or answers, "the confirm")
            outlet.close()
            loop.close()
            assert [None] == answers

    def take(self, queue: str, count: int) -> list[Message]:
        """Take *count* messages out of *queue*, waiting until they are there."""
        kind = "dead" if queue.endswith(".dead") else "work"
        taken: list[Message] = []
        with self.broker() as broker:
            loop = Loop()

            def on_delivery(delivery: Delivery) -> None:
                taken.append(delivery.message)
                intake.ack(delivery)

            intake = broker.intake(
                loop, on_delivery=on_delivery, on_ready=lambda: None, on_lost=lambda _: None
            )
            intake.consume([Queue(queue, kind=kind)], 1000)  # type: ignore[arg-type]
            wait_until(
                lambda: loop.turn(0.05) or len(taken) >= count,
                f"{count} messages in {queue} (there are {len(taken)})",
            )
            intake.close()
            loop.close()
        return taken


@pytest.fixture(params=["sqlite", "amqp"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """The embedded broker, then RabbitMQ."""
    if request.param == "sqlite":
        site = Site(f"sqlite:///{tmp_path}/taskq.db")
    else:
        site = Site(request.getfixturevalue("rabbit").url)
    yield site
    for app in site.apps:
        app.close()
