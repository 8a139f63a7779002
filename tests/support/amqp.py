"""An AmqpBroker on a loop that the test turns, and what came of its publishes and deliveries."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from taskq.broker.amqp import AmqpBroker, AmqpIntake, AmqpOutlet, AmqpReplies
from taskq.broker.base import BrokerOptions, Delivery, Queue, Route
from taskq.errors import PublishError
from taskq.loop import Loop
from taskq.wire.message import Message, Properties
from tests.support.rabbit import Rabbit

Truth = TypeVar("Truth")


def message(name: str, body: bytes = b"", **properties: Any) -> Message:
    """A persistent message that is told from others by its correlation id *name*."""
    return Message.of(Properties(correlation_id=name, delivery_mode=2, **properties), body)


def name_of(delivery: Delivery) -> str:
    return str(delivery.message.properties.correlation_id)


def to(queue: str, **options: Any) -> Route:
    """The route to *queue*, which is declared first."""
    return Route("", queue, (Queue(queue, **options),))


class Bench:
    """One broker, one loop; everything opened here is closed with it."""

    def __init__(self, url: str, **options: Any) -> None:
        self.loop = Loop()
        self.broker = AmqpBroker(BrokerOptions((url,), name="test", **options))
        #: What became of each message, by name: None for confirmed.
        self.done: dict[str, PublishError | None] = {}
        self._open: list[AmqpOutlet | AmqpIntake | AmqpReplies] = []

    def until(self, condition: Callable[[], Truth], what: str, timeout: float = 30.0) -> Truth:
        """Turn the loop until *condition* is true; AssertionError after *timeout* seconds."""
        deadline = time.monotonic() + timeout
        while not (answer := condition()):
            assert time.monotonic() < deadline, f"waited {timeout:g} s in vain for {what}"
            self.loop.turn(0.2)
        return answer

    def outlet(self) -> AmqpOutlet:
        outlet = self.broker.outlet(self.loop)
        self._open.append(outlet)
        return outlet

    def send(self, outlet: AmqpOutlet, route: Route, *names: str, **options: Any) -> None:
        """Publish a message for each of *names*; `done` will tell what became of it."""
        for name in names:
            self.send_message(outlet, route, message(name), **options)

    def send_message(self, outlet: AmqpOutlet, route: Route, sent: Message, **options: Any) -> None:
        name = str(sent.properties.correlation_id)
        outlet.publish(sent, route, lambda error: self._note(name, error), **options)

    def _note(self, name: str, error: PublishError | None) -> None:
        assert name not in self.done, f"{name} was reported twice"
        self.done[name] = error

    def settle(self, count: int, timeout: float = 30.0) -> None:
        """Wait until *count* publishes have an end."""
        self.until(lambda: len(self.done) >= count, f"{count} publishes to end", timeout)

    def confirm(self, *names: str) -> None:
        """Wait for *names*, which must all be confirmed."""
        self.until(lambda: self.done.keys() >= set(names), f"{names} to be confirmed")
        assert dict.fromkeys(names) == {name: self.done[name] for name in names}

    def intake(self, *queues: Queue, window: int = 10) -> "Hands":
        hands = Hands(self)
        self._open.append(hands.intake)
        hands.intake.consume(queues, window)
        return hands

    def replies(self, queue: Queue, got: list[Message]) -> AmqpReplies:
        replies = self.broker.replies(self.loop, queue, got.append)
        self._open.append(replies)
        return replies

    def close(self) -> None:
        for hold in self._open:
            hold.close()
        self.loop.close()


class Hands:
    """An intake, and what it delivered."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.got: list[Delivery] = []
        self.ready = 0
        self.lost: list[str] = []
        #: Called with each delivery, before it is found in `got`.
        self.on_delivery: Callable[[Delivery], None] = lambda _delivery: None
        self.intake = bench.broker.intake(
            bench.loop, on_delivery=self._take, on_ready=self._be_ready, on_lost=self.lost.append
        )

    def _take(self, delivery: Delivery) -> None:
        self.on_delivery(delivery)
        self.got.append(delivery)

    def _be_ready(self) -> None:
        self.ready += 1

    def names(self) -> list[str]:
        return [name_of(delivery) for delivery in self.got]

    def wait(self, count: int = 1, timeout: float = 30.0) -> list[Delivery]:
        """Wait for *count* deliveries in all."""
        self.bench.until(lambda: len(self.got) >= count, f"{count} deliveries", timeout)
        return self.got

    def wait_ready(self, times: int = 1) -> None:
        self.bench.until(lambda: self.ready >= times, f"being ready {times} times")


@pytest.fixture
def bench(rabbit: Rabbit) -> Iterator[Bench]:
    """A broker on the test's own vhost."""
    bench = Bench(rabbit.url)
    yield bench
    bench.close()
