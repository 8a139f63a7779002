"""The contract of `taskq.broker.base` as tests, for every broker: ours and those of third parties.

Subclass BrokerContract in a pytest module and say how the broker is opened::

    class TestMyBroker(BrokerContract):
        @pytest.fixture
        def open_broker(self):
            return lambda: MyBroker(BrokerOptions(("my://host",)))

What a broker cannot do by its nature it names, with the reason, in `cannot`; those tests are
skipped, where everybody can see it.
"""

import os
import threading
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar

import pytest

from taskq import clock
from taskq.broker.base import Broker, Delivery, Intake, Keeper, Listening, Queue, Route
from taskq.broker.topology import logged
from taskq.errors import ConfigurationError, PublishError, QueueError, Undeliverable
from taskq.loop import Loop
from taskq.wire.message import Message, Properties

#: How long anything may take before a test fails, in seconds.
_BOUND = 20.0

#: A broker may deliver this much too early (seconds): its waiting may go in steps.
_EARLY = 1 / 16

#: So many messages are sent at once where a test wants many.
_MANY = 500

#: Opens one more Broker on the same queues.
OpenBroker = Callable[[], Broker]


def a_message(body: bytes = b"[]", **properties: Any) -> Message:
    """A persistent message with an id of its own."""
    properties.setdefault("message_id", uuid.uuid4().hex)
    return Message.of(Properties(delivery_mode=2, **properties), body)


def a_queue(exchange: str = "", routing_key: str = "", type: str = "direct") -> Queue:
    """A work queue that nobody used before, bound to *exchange* if that is given."""
    return Queue(f"q-{uuid.uuid4().hex}", exchange, type, routing_key)


def straight_to(queue: Queue) -> Route:
    """The route to *queue* through the default exchange."""
    return Route("", queue.name, (queue,))


def dead_letters_of(queue: Queue) -> Queue:
    """The queue where rejected messages of *queue* end."""
    return Queue(f"{queue.name}.dead", kind="dead")


class Hold:
    """An intake, what it delivered, and the most that it ever left unsettled of one queue."""

    def __init__(self, broker: Broker, loop: Loop, queues: Sequence[Queue], window: int) -> None:
        self.deliveries: list[Delivery] = []
        self.arrived_at: list[float] = []
        self.ready = False
        self.most_unsettled = 0
        self.acks_at_once = False
        self._unsettled: Counter[str] = Counter()
        self.intake: Intake = broker.intake(
            loop,
            on_delivery=self._on_delivery,
            on_ready=self._on_ready,
            on_lost=lambda _reason: None,
        )
        self.intake.consume(queues, window)

    def _on_ready(self) -> None:
        self.ready = True

    def _on_delivery(self, delivery: Delivery) -> None:
        self.arrived_at.append(clock.wall())
        self.deliveries.append(delivery)
        self._unsettled[delivery.queue] += 1
        self.most_unsettled = max(self.most_unsettled, self._unsettled[delivery.queue])
        if self.acks_at_once:
            self.ack(delivery)

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge *delivery*."""
        self._unsettled[delivery.queue] -= 1
        self.intake.ack(delivery)

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of all deliveries, in the order of their arrival."""
        return [delivery.message.body for delivery in self.deliveries]


class Bench:
    """A loop, an outlet on it, and intakes as they are asked for; everything waits with a bound."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.loop = Loop()
        self._outlet = broker.outlet(self.loop)
        self._intakes: list[Intake] = []
        self._ears: list[Ear] = []

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Turn the loop until *condition* holds; *what* is for the failure's words."""
        deadline = clock.monotonic() + _BOUND
        while not condition():
            assert clock.monotonic() < deadline, f"waited {_BOUND:g} s in vain for {what}"
            self.loop.turn(0.05)

    def post(self, message: Message, route: Route, **options: Any) -> list[PublishError | None]:
        """Publish; the list returned gets what *done* hears, each time it is called."""
        answers: list[PublishError | None] = []
        self._outlet.publish(message, route, answers.append, **options)
        return answers

    def broadcast(self, message: Message, exchange: str, routing_key: str) -> bool:
        """Broadcast; whether it went out."""
        return self._outlet.broadcast(message, exchange, routing_key)

    def publish(self, message: Message, route: Route, **options: Any) -> PublishError | None:
        """Publish, and return what *done* heard."""
        answers = self.post(message, route, **options)
        self.until(lambda: answers, f"a word about what was sent to {route}")
        return answers[0]

    def send(self, queue: Queue, *bodies: bytes) -> None:
        """Publish a message with each of *bodies* to *queue*, in order."""
        for body in bodies:
            assert self.publish(a_message(body), straight_to(queue)) is None

    def consume(self, *queues: Queue, window: int = 100, broker: Broker | None = None) -> Hold:
        """Consume from *queues*, and return when that has begun."""
        hold = Hold(broker or self.broker, self.loop, queues, window)
        self._intakes.append(hold.intake)
        self.until(lambda: hold.ready, "the intake to be ready")
        return hold

    def receive(self, *queues: Queue, number: int = 1, **options: Any) -> Hold:
        """Consume from *queues*, and return when *number* messages have arrived."""
        hold = self.consume(*queues, **options)
        self.expect(hold, number)
        return hold

    def expect(self, hold: Hold, number: int) -> list[Delivery]:
        """Wait until *hold* has had *number* deliveries in all, and return them."""
        self.until(lambda: len(hold.deliveries) >= number, f"{number} deliveries")
        assert len(hold.deliveries) == number
        return hold.deliveries

    def expect_count(self, queue: Queue, number: int) -> None:
        """Wait until the broker counts *number* ready messages in *queue*."""
        self.until(
            lambda: self.broker.count(queue.name) == number, f"{number} messages in {queue.name}"
        )

    def listen(self, exchange: str, pattern: str = "", queue: str | None = None) -> "Ear":
        """Listen to *exchange*, and return when the ear is open."""
        ear = Ear(self)
        ear.listening = self.broker.listen(
            self.loop,
            exchange,
            pattern,
            on_message=ear.hear,
            on_ready=ear.be_ready,
            queue=queue,
        )
        self._ears.append(ear)
        self.until(lambda: ear.ready, f"an ear for {exchange}")
        return ear

    def play(self, name: str, exchange: str, broker: Broker | None = None) -> list[bytes]:
        """The bodies of what the log *name* plays until it is ready, which it is only once."""
        ear = Ear(self)
        ear.listening = (broker or self.broker).history(
            self.loop, name, exchange, on_message=ear.hear, on_ready=ear.be_ready
        )
        self.until(lambda: ear.ready, f"the end of the log {name}")
        played = ear.bodies.copy()
        for _ in range(5):
            self.loop.turn(0.01)
        ear.listening.close()
        ear.listening.close()
        assert ear.ready == 1
        assert played == ear.bodies
        return played

    def close(self) -> None:
        """Close everything."""
        for ear in self._ears:
            ear.listening.close()
        for intake in self._intakes:
            intake.close()
        self._outlet.close()
        self.loop.close()


class Ear:
    """What was heard or played, and how often it was said to be ready."""

    listening: Listening

    def __init__(self, bench: Bench) -> None:
        self.bodies: list[bytes] = []
        self.ready = 0
        self._bench = bench

    def hear(self, message: Message) -> None:
        """Take *message*."""
        self.bodies.append(message.body)

    def be_ready(self) -> None:
        """Count it."""
        self.ready += 1

    def expect(self, *bodies: bytes) -> None:
        """Wait until just *bodies* were heard, in this order."""
        self._bench.until(lambda: len(self.bodies) >= len(bodies), f"{bodies} to be heard")
        assert list(bodies) == self.bodies


class BrokerContract:
    """What every broker promises; a test's name says which promise it holds."""

    #: Test -> why this broker cannot pass it.
    cannot: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture
    def open_broker(self) -> OpenBroker:
        """How to open the broker; each call makes a Broker of its own on the same queues."""
        raise NotImplementedError(f"{type(self).__name__} must define the fixture open_broker")

    @pytest.fixture(autouse=True)
    def _skip_what_it_cannot(self, request: pytest.FixtureRequest) -> None:
        unknown = [name for name in self.cannot if not hasattr(self, name)]
        assert not unknown, f"{type(self).__name__}.cannot names no test: {unknown}"
        name = request.function.__name__
        if name in self.cannot:
            pytest.skip(self.cannot[name])

    @pytest.fixture
    def broker(self, open_broker: OpenBroker) -> Iterator[Broker]:
        """The broker."""
        broker = open_broker()
        yield broker
        broker.close()

    @pytest.fixture
    def bench(self, broker: Broker) -> Iterator[Bench]:
        """The broker at work."""
        bench = Bench(broker)
        yield bench
        bench.close()

    @pytest.fixture
    def keeper(self, broker: Broker) -> Iterator[Keeper]:
        """A look at its queues from outside."""
        keeper = broker.keeper()
        yield keeper
        keeper.close()

    # -- a message arrives as it was sent ----------------------------------------------------

    def test_a_message_arrives_as_it_was_sent(self, bench: Bench) -> None:
        queue = a_queue()
        sent = a_message(
            b"\0\xff body",
            headers={"task": "t", "id": "1"},
            content_type="application/json",
            content_encoding="utf-8",
            correlation_id="1",
            reply_to="replies",
            timestamp=2**40,
            type="kind",
            app_id="app",
        )

        assert bench.publish(sent, straight_to(queue)) is None
        (delivery,) = bench.receive(queue).deliveries

        assert sent == delivery.message
        assert (queue.name, "", queue.name) == (
            delivery.queue,
            delivery.exchange,
            delivery.routing_key,
        )
        assert not delivery.redelivered
        assert delivery.count == 0

    def test_headers_of_every_type_arrive(self, bench: Bench) -> None:
        queue = a_queue()
        headers: dict[str, Any] = {
            "none": None,
            "boolean": True,
            "small": -1,
            "large": 2**62,
            "float": 0.5,
            "text": "naïve \N{SNOWMAN}",
            "bytes": b"\0\xff",
            "decimal": Decimal("1.25"),
            "datetime": datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC),
            "list": [1, "two", [3.5, None]],
            "mapping": {"a": {"b": {"c": []}}},
        }

        bench.publish(a_message(headers=headers), straight_to(queue))
        (delivery,) = bench.receive(queue).deliveries

        assert headers == delivery.message.headers

    def test_a_large_body_arrives(self, bench: Bench) -> None:
        queue, body = a_queue(), os.urandom(1024 * 1024)

        bench.send(queue, body)

        assert [body] == bench.receive(queue).bodies

    def test_an_empty_body_arrives(self, bench: Bench) -> None:
        queue = a_queue()

        bench.send(queue, b"")

        assert [b""] == bench.receive(queue).bodies

    def test_messages_arrive_in_the_order_they_were_sent(self, bench: Bench) -> None:
        queue, bodies = a_queue(), [b"%d" % number for number in range(50)]
        for body in bodies:
            bench.post(a_message(body), straight_to(queue))
        bench.expect_count(queue, 50)

        hold = bench.receive(queue, number=50, window=50)

        assert bodies == hold.bodies

    def test_a_waiting_intake_hears_of_a_new_message(self, bench: Bench) -> None:
        queue = a_queue()
        hold = bench.consume(queue)

        bench.send(queue, b"news")
        bench.expect(hold, 1)

        assert [b"news"] == hold.bodies

    def test_higher_priorities_arrive_first(self, bench: Bench) -> None:
        queue = Queue(a_queue().name, max_priority=9)
        for priority in (None, 9, 0, 5, 9):
            body = repr(priority).encode()
            bench.publish(a_message(body, priority=priority), straight_to(queue))

        hold = bench.receive(queue, number=5)

        assert [b"9", b"9", b"5"] == hold.bodies[:3]
        assert {b"None", b"0"} == set(hold.bodies[3:])

    # -- publishing --------------------------------------------------------------------------

    def test_done_is_called_once_for_each_message(self, bench: Bench) -> None:
        queue = a_queue()

        answers = [bench.post(a_message(), straight_to(queue)) for _ in range(_MANY)]
        bench.until(lambda: all(answers), f"{_MANY} confirms")
        bench.send(queue, b"one more")

        assert [[None]] * _MANY == answers
        bench.expect_count(queue, _MANY + 1)

    def test_a_message_to_a_queue_that_is_not_there_is_refused(self, bench: Bench) -> None:
        name = a_queue().name

        refused = bench.publish(a_message(), Route("", name))

        assert isinstance(refused, Undeliverable)
        assert name in str(refused)

    def test_a_message_to_an_exchange_that_is_not_there_is_refused(self, bench: Bench) -> None:
        name = f"e-{uuid.uuid4().hex}"

        refused = bench.publish(a_message(), Route(name, "key"))

        assert isinstance(refused, Undeliverable)
        assert name in str(refused)

    def test_a_message_that_no_binding_fits_is_refused(self, bench: Bench) -> None:
        queue = a_queue(f"e-{uuid.uuid4().hex}", "this")

        refused = bench.publish(a_message(), Route(queue.exchange, "that", (queue,)))

        assert isinstance(refused, Undeliverable)

    def test_a_message_that_need_not_arrive_may_fit_no_binding(self, bench: Bench) -> None:
        queue = a_queue(f"e-{uuid.uuid4().hex}", "this")
        route = Route(queue.exchange, "that", (queue,))

        assert bench.publish(a_message(), route, mandatory=False) is None

    def test_a_refused_message_leaves_its_neighbours_alone(self, bench: Bench) -> None:
        queue = a_queue()

        before = bench.post(a_message(), straight_to(queue))
        refused = bench.post(a_message(), Route("", a_queue().name))
        after = bench.post(a_message(), straight_to(queue))
        bench.until(lambda: before and refused and after, "three answers")

        assert ([None], [None]) == (before, after)
        assert isinstance(refused[0], Undeliverable)
        bench.expect_count(queue, 2)

    # -- routing -----------------------------------------------------------------------------

    def test_a_direct_exchange_leads_to_the_queues_of_its_key(self, bench: Bench) -> None:
        name = f"e-{uuid.uuid4().hex}"
        red, also_red, blue = (a_queue(name, key) for key in ("red", "red", "blue"))

        bench.publish(a_message(b"hue"), Route(name, "red", (red, also_red, blue)))
        hold = bench.receive(red, also_red, blue, number=2)

        assert {red.name, also_red.name} == {delivery.queue for delivery in hold.deliveries}
        assert {(name, "red")} == {(d.exchange, d.routing_key) for d in hold.deliveries}
        assert bench.broker.count(blue.name) == 0

    def test_a_topic_exchange_leads_by_words(self, bench: Bench) -> None:
        name = f"e-{uuid.uuid4().hex}"
        one_word, any_words = (a_queue(name, key, "topic") for key in ("log.*", "log.#"))

        for key in ("log", "log.error", "log.error.disk"):
            bench.publish(a_message(key.encode()), Route(name, key, (one_word, any_words)))
        hold = bench.receive(one_word, any_words, number=4)

        assert {
            (one_word.name, b"log.error"),
            (any_words.name, b"log"),
            (any_words.name, b"log.error"),
            (any_words.name, b"log.error.disk"),
        } == {(delivery.queue, delivery.message.body) for delivery in hold.deliveries}

    def test_a_fanout_exchange_leads_to_every_queue(self, bench: Bench) -> None:
        name = f"e-{uuid.uuid4().hex}"
        queues = [a_queue(name, key, "fanout") for key in ("a", "b", "")]

        bench.publish(a_message(), Route(name, "whatever", tuple(queues)))
        hold = bench.receive(*queues, number=3)

        assert {queue.name for queue in queues} == {d.queue for d in hold.deliveries}

    def test_a_queue_that_was_bound_later_gets_what_is_sent_later(
        self, bench: Bench, open_broker: OpenBroker
    ) -> None:
        first = a_queue(f"e-{uuid.uuid4().hex}", type="fanout")
        route = Route(first.exchange, "", (first,))
        later = a_queue(first.exchange, type="fanout")
        bench.publish(a_message(b"1"), route)

        other = open_broker()
        hold = bench.consume(later, broker=other)
        bench.publish(a_message(b"2"), route)
        bench.expect(hold, 1)

        assert [b"2"] == hold.bodies
        hold.intake.close()
        other.close()

    # -- settling ----------------------------------------------------------------------------

    def test_what_was_acked_never_comes_back(self, bench: Bench) -> None:
        queue = a_queue()
        bench.send(queue, b"done", b"not done")
        first = bench.receive(queue, number=2)

        first.ack(first.deliveries[0])
        first.intake.close()

        assert [b"not done"] == bench.receive(queue).bodies

    def test_what_was_not_settled_comes_back_after_close(self, bench: Bench) -> None:
        queue = a_queue()
        bench.send(queue, b"1", b"2", b"3")
        bench.receive(queue, number=3).intake.close()

        hold = bench.receive(queue, number=3)

        assert {b"1", b"2", b"3"} == set(hold.bodies)
        assert all(delivery.redelivered for delivery in hold.deliveries)

    def test_a_requeued_message_comes_again(self, bench: Bench) -> None:
        queue = a_queue()
        bench.send(queue, b"again")
        hold = bench.receive(queue)

        hold.intake.reject(hold.deliveries[0], requeue=True)
        first, second = bench.expect(hold, 2)

        assert second.message.body == first.message.body
        assert second.redelivered

    def test_a_rejected_message_goes_to_the_dead_letters(self, bench: Bench) -> None:
        queue = a_queue()
        bench.publish(a_message(b"bad", headers={"task": "t"}), straight_to(queue))
        hold = bench.receive(queue)

        hold.intake.reject(hold.deliveries[0], requeue=False)
        (dead,) = bench.receive(dead_letters_of(queue)).deliveries

        assert dead.message.body == b"bad"
        assert dead.message.headers["task"] == "t"
        assert bench.broker.count(queue.name) == 0

    def test_dead_letters_have_a_queue_before_there_are_any(self, bench: Bench) -> None:
        queue = a_queue()
        bench.send(queue, b"alive")

        assert bench.publish(a_message(), Route("", dead_letters_of(queue).name)) is None

    def test_settling_what_was_lost_or_settled_does_nothing(self, bench: Bench) -> None:
        queue = a_queue()
        bench.send(queue, b"1", b"2", b"3")
        lost = bench.receive(queue, number=3)
        settled, *given_back = lost.deliveries
        lost.ack(settled)
        lost.intake.close()
        hold = bench.receive(queue, number=2)

        lost.intake.ack(settled)
        lost.intake.ack(given_back[0])
        lost.intake.reject(given_back[1], requeue=False)
        hold.ack(hold.deliveries[0])
        hold.intake.ack(hold.deliveries[0])
        hold.intake.reject(hold.deliveries[0], requeue=True)
        hold.intake.close()

        assert hold.bodies[1:] == bench.receive(queue).bodies
        assert bench.broker.count(dead_letters_of(queue).name) == 0

    def test_close_may_be_called_twice(self, bench: Bench) -> None:
        hold = bench.consume(a_queue())

        hold.intake.close()
        hold.intake.close()

    # -- the window --------------------------------------------------------------------------

    def test_no_more_than_the_window_is_unsettled(self, bench: Bench) -> None:
        queue = a_queue()
        bench.send(queue, *(b"%d" % number for number in range(20)))

        hold = bench.receive(queue, number=3, window=3)
        for settled in range(17):
            hold.ack(hold.deliveries[settled])
            bench.expect(hold, settled + 4)

        assert hold.most_unsettled == 3

    def test_every_queue_has_a_window_of_its_own(self, bench: Bench) -> None:
        full, other = a_queue(), a_queue()
        bench.send(full, b"1", b"2", b"3")
        hold = bench.receive(full, other, number=2, window=2)

        bench.send(other, b"other")
        bench.expect(hold, 3)

        assert hold.bodies[2] == b"other"

    def test_two_intakes_share_a_queue_and_no_message_goes_to_both(
        self, bench: Bench, open_broker: OpenBroker
    ) -> None:
        queue, other = a_queue(), open_broker()
        bodies = {b"%d" % number for number in range(200)}
        holds = [bench.consume(queue, window=5), bench.consume(queue, window=5, broker=other)]
        for hold in holds:
            hold.acks_at_once = True

        for body in bodies:
            bench.post(a_message(body), straight_to(queue))
        bench.until(lambda: sum(len(hold.bodies) for hold in holds) >= 200, "200 deliveries")

        assert sorted(bodies) == sorted(holds[0].bodies + holds[1].bodies)
        assert all(hold.bodies for hold in holds)
        holds[1].intake.close()
        other.close()

    def test_a_paused_intake_takes_no_more_but_settles(self, bench: Bench) -> None:
        queue = a_queue()
        bench.send(queue, b"in hand")
        hold = bench.receive(queue, window=1)

        hold.intake.pause()
        bench.send(queue, b"too late")
        hold.ack(hold.deliveries[0])
        hold.intake.close()

        assert [b"in hand"] == hold.bodies
        assert [b"too late"] == bench.receive(queue).bodies

    def test_a_cancelled_queue_is_left_alone_and_the_others_go_on(self, bench: Bench) -> None:
        cancelled, other = a_queue(), a_queue()
        bench.send(cancelled, b"in hand")
        hold = bench.receive(cancelled, other, window=1)

        hold.intake.cancel(cancelled.name)
        bench.send(cancelled, b"too late")
        hold.ack(hold.deliveries[0])
        bench.send(other, b"other")
        bench.expect(hold, 2)

        assert [b"in hand", b"other"] == hold.bodies
        bench.expect_count(cancelled, 1)

    def test_a_queue_can_be_added(self, bench: Bench) -> None:
        first, second = a_queue(), a_queue()
        hold = bench.consume(first)
        bench.send(second, b"second")

        hold.intake.add(second)
        bench.expect(hold, 1)

        assert [b"second"] == hold.bodies

    # -- time --------------------------------------------------------------------------------

    def test_a_delayed_message_arrives_when_it_is_due_and_not_before(self, bench: Bench) -> None:
        queue = a_queue()
        hold = bench.consume(queue)
        due = clock.wall() + 0.6

        bench.publish(a_message(b"later"), straight_to(queue), due=due)
        bench.send(queue, b"now")
        bench.expect(hold, 2)

        assert [b"now", b"later"] == hold.bodies
        assert hold.arrived_at[1] >= due - _EARLY

    def test_a_delayed_message_still_says_where_it_was_sent(self, bench: Bench) -> None:
        queue = a_queue(f"e-{uuid.uuid4().hex}", "key")
        route = Route(queue.exchange, "key", (queue,))

        bench.publish(a_message(), route, due=clock.wall() + 0.2)
        (delivery,) = bench.receive(queue).deliveries

        assert (queue.exchange, "key") == (delivery.exchange, delivery.routing_key)

    def test_a_message_that_was_due_long_ago_arrives(self, bench: Bench) -> None:
        queue = a_queue()
        hold = bench.consume(queue)

        bench.publish(a_message(b"late"), straight_to(queue), due=clock.wall() - 3600)
        bench.expect(hold, 1)

        assert [b"late"] == hold.bodies

    def test_a_delayed_message_to_nowhere_is_refused(self, bench: Bench) -> None:
        refused = bench.publish(a_message(), Route("", a_queue().name), due=clock.wall() + 60)

        assert isinstance(refused, Undeliverable)

    def test_an_expired_message_goes_to_the_dead_letters(self, bench: Bench) -> None:
        queue = a_queue()

        bench.publish(a_message(b"short-lived", expiration="1"), straight_to(queue))
        bench.expect_count(dead_letters_of(queue), 1)
        (dead,) = bench.receive(dead_letters_of(queue)).deliveries

        assert dead.message.body == b"short-lived"
        assert bench.broker.count(queue.name) == 0

    def test_an_expired_dead_letter_vanishes(self, bench: Bench) -> None:
        queue = dead_letters_of(a_queue())

        bench.publish(a_message(b"short-lived", expiration="1"), straight_to(queue))
        bench.publish(a_message(b"long-lived", expiration="600000"), straight_to(queue))
        bench.expect_count(queue, 1)

        assert [b"long-lived"] == bench.receive(queue).bodies

    # -- the broker itself -------------------------------------------------------------------

    def test_ready_messages_are_counted(self, bench: Bench) -> None:
        queue = a_queue()
        assert bench.broker.count(queue.name) == 0

        bench.send(queue, b"1", b"2", b"3")
        bench.publish(a_message(), straight_to(queue), due=clock.wall() + 600)
        bench.expect_count(queue, 3)
        bench.receive(queue, number=2, window=2)

        bench.expect_count(queue, 1)

    def test_a_keeper_tells_what_is_ready_delayed_and_in_hand(
        self, bench: Bench, keeper: Keeper
    ) -> None:
        queue, before = a_queue(), int(clock.wall())
        bench.send(queue, b"1", b"2", b"3")
        bench.publish(a_message(), straight_to(queue), due=clock.wall() + 600)
        bench.receive(queue, number=2, window=2)

        stock = keeper.look([queue.name, a_queue().name])[queue.name]

        assert (queue.name, 1) == (stock.queue, stock.ready)
        assert stock.unacked in (2, None)
        assert stock.consumers in (1, None)
        assert stock.delayed in (1, None)
        assert stock.oldest is None or before <= stock.oldest <= clock.wall()
        assert stock.type is not None
        assert keeper.delayed() >= 1

    def test_looking_makes_no_queue_and_changes_no_message(
        self, bench: Bench, keeper: Keeper
    ) -> None:
        queue, nowhere = a_queue(), a_queue().name
        bench.send(queue, b"1", b"2")

        for _ in range(3):
            assert {queue.name} == keeper.look([nowhere, queue.name]).keys()
        hold = bench.receive(queue, number=2)

        assert [b"1", b"2"] == hold.bodies
        assert not any(each.redelivered or each.count for each in hold.deliveries)
        assert isinstance(bench.publish(a_message(), Route("", nowhere)), Undeliverable)

    def test_a_purge_takes_what_is_ready_and_says_how_many(
        self, bench: Bench, keeper: Keeper
    ) -> None:
        queue = a_queue()
        bench.send(queue, b"in hand", b"1", b"2")
        hold = bench.receive(queue, window=1)

        assert keeper.purge(queue.name) == 2
        assert keeper.purge(queue.name) == 0
        hold.intake.close()

        assert [b"in hand"] == bench.receive(queue).bodies

    def test_a_queue_can_be_deleted_and_made_again(self, bench: Bench, keeper: Keeper) -> None:
        queue = a_queue()
        bench.send(queue, b"old")

        keeper.delete(queue.name)
        assert {} == keeper.look([queue.name])
        hold = bench.consume(queue)
        bench.send(queue, b"new")
        bench.expect(hold, 1)

        assert [b"new"] == hold.bodies

    def test_what_is_in_use_or_not_empty_is_not_deleted_by_who_says_so(
        self, bench: Bench, keeper: Keeper
    ) -> None:
        queue = a_queue()
        bench.send(queue, b"1", b"2")
        hold = bench.receive(queue, window=1)

        with pytest.raises(QueueError, match="in use"):
            keeper.delete(queue.name, if_unused=True)
        hold.intake.close()
        with pytest.raises(QueueError, match="not empty"):
            keeper.delete(queue.name, if_empty=True)
        keeper.purge(queue.name)
        keeper.delete(queue.name, if_unused=True, if_empty=True)

        assert {} == keeper.look([queue.name])

    def test_what_is_not_there_cannot_be_purged_or_deleted(self, keeper: Keeper) -> None:
        name = a_queue().name

        with pytest.raises(QueueError, match=name):
            keeper.purge(name)
        with pytest.raises(QueueError, match=name):
            keeper.delete(name)
        assert {} == keeper.look([name])

    def test_messages_outlive_the_broker_object(
        self, bench: Bench, open_broker: OpenBroker
    ) -> None:
        queue = a_queue()
        bench.send(queue, b"kept")

        other = open_broker()
        hold = bench.receive(queue, broker=other)

        assert [b"kept"] == hold.bodies
        hold.intake.close()
        other.close()

    def test_a_broker_without_a_loop_publishes_before_it_returns(
        self, broker: Broker, bench: Bench
    ) -> None:
        _skip_if_it_needs_a_loop(broker)
        queue, answers = a_queue(), list[PublishError | None]()
        outlet = broker.outlet(None)

        outlet.publish(a_message(b"at once"), straight_to(queue), answers.append)
        assert [None] == answers
        outlet.publish(a_message(), Route("", a_queue().name), answers.append)
        assert isinstance(answers[1], Undeliverable)
        outlet.close()

        assert [b"at once"] == bench.receive(queue).bodies

    def test_any_thread_may_publish_without_a_loop(self, broker: Broker, bench: Bench) -> None:
        _skip_if_it_needs_a_loop(broker)
        queue, outlet = a_queue(), broker.outlet(None)
        answers: list[PublishError | None] = []
        hold = bench.consume(queue)
        hold.acks_at_once = True

        def publish(thread: int) -> None:
            for number in range(50):
                body = b"%d:%d" % (thread, number)
                outlet.publish(a_message(body), straight_to(queue), answers.append)

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        bench.until(lambda: len(hold.bodies) >= 200, "200 deliveries")
        for thread in threads:
            thread.join()

        assert [None] * 200 == answers
        assert 200 == len(set(hold.bodies)) == len(hold.bodies)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    def test_an_outlet_survives_a_fork(self, broker: Broker, bench: Bench) -> None:
        _skip_if_it_needs_a_loop(broker)
        queue, outlet = a_queue(), broker.outlet(None)
        answers: list[PublishError | None] = []
        outlet.publish(a_message(b"before"), straight_to(queue), answers.append)

        with warnings.catch_warnings():
            # Other tests may have left threads; Python 3.12 and newer advise against forking then.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                outlet.publish(a_message(b"child"), straight_to(queue), answers.append)
            finally:
                os._exit(0 if answers == [None, None] else 1)
        outlet.publish(a_message(b"parent"), straight_to(queue), answers.append)
        _, status = os.waitpid(child, 0)

        assert status == 0
        assert [None, None] == answers
        assert {b"before", b"child", b"parent"} == set(bench.receive(queue, number=3).bodies)

    def test_a_broadcast_is_heard_by_all_whose_pattern_fits(
        self, broker: Broker, bench: Bench
    ) -> None:
        exchange = f"b-{uuid.uuid4().hex}"
        heard: dict[str, list[bytes]] = {"#": [], "task.#": [], "worker.*": []}
        ready: list[None] = []

        def hear(pattern: str, message: Message) -> None:
            heard[pattern].append(message.body)

        ears = [
            broker.listen(
                bench.loop,
                exchange,
                pattern,
                on_message=partial(hear, pattern),
                on_ready=lambda: ready.append(None),
            )
            for pattern in heard
        ]
        bench.until(lambda: len(ready) == len(ears), "all to listen")

        def told() -> bool:
            for key in ("task.multi", "worker.online", "other"):
                bench.broadcast(a_message(key.encode()), exchange, key)
            return all(heard.values())

        bench.until(told, "a broadcast")
        for ear in ears:
            ear.close()
            ear.close()

        assert {b"task.multi", b"worker.online", b"other"} >= set(heard["#"])
        assert {b"task.multi"} == set(heard["task.#"])
        assert {b"worker.online"} == set(heard["worker.*"])

    def test_a_broadcast_that_nobody_hears_holds_up_nothing(self, bench: Bench) -> None:
        queue = a_queue()
        for _ in range(1_000):
            bench.broadcast(a_message(b"unheard"), "b-nobody", "task.multi")

        bench.send(queue, b"1")

        assert [b"1"] == bench.receive(queue).bodies

    def test_a_command_is_heard_by_all(self, bench: Bench) -> None:
        exchange, one = f"{uuid.uuid4().hex}.pidbox", uuid.uuid4().hex
        ears = [bench.listen(exchange), bench.listen(exchange, queue=f"{one}.{exchange}")]

        bench.until(lambda: bench.broadcast(a_message(b"ping"), exchange, ""), "a way out")

        for ear in ears:
            ear.expect(b"ping")

    def test_a_reply_is_heard_by_whom_its_key_names(self, bench: Bench) -> None:
        exchange = f"reply.{uuid.uuid4().hex}.pidbox"
        asker, another = bench.listen(exchange, "asker"), bench.listen(exchange, "another")

        for key in ("nobody", "asker", "another"):
            said = a_message(key.encode())
            bench.until(partial(bench.broadcast, said, exchange, key), "a way out")

        asker.expect(b"asker")
        another.expect(b"another")

    def test_who_has_begun_to_listen_misses_no_reply(self, bench: Bench) -> None:
        exchange = f"reply.{uuid.uuid4().hex}.pidbox"
        for number in range(5):
            key, body = f"asker-{number}", str(number).encode()
            unheard = a_message(b"unheard")
            bench.until(partial(bench.broadcast, unheard, exchange, key), "a way out")

            ear = bench.listen(exchange, key)
            bench.until(partial(bench.broadcast, a_message(body), exchange, key), "a way out")

            bench.until(partial(ear.bodies.__contains__, body), "a reply")

    def test_what_is_logged_is_heard_by_all_who_listen(self, bench: Bench) -> None:
        exchange, log = f"{uuid.uuid4().hex}.pidbox", uuid.uuid4().hex
        ears = [bench.listen(exchange), bench.listen(exchange)]

        assert bench.publish(a_message(b"revoke"), logged(log, exchange)) is None

        for ear in ears:
            ear.expect(b"revoke")

    def test_what_is_logged_is_played_to_those_who_come_later(
        self, bench: Bench, open_broker: OpenBroker
    ) -> None:
        exchange, log = f"{uuid.uuid4().hex}.pidbox", uuid.uuid4().hex
        bodies = [b"%d" % number for number in range(20)]
        for body in bodies:
            assert bench.publish(a_message(body), logged(log, exchange)) is None

        other = open_broker()
        assert bodies == bench.play(log, exchange)
        assert bodies == bench.play(log, exchange, other)
        assert bench.publish(a_message(b"more"), logged(log, exchange)) is None
        assert [*bodies, b"more"] == bench.play(log, exchange, other)
        other.close()

    def test_a_log_keeps_more_than_is_played_at_once(self, bench: Bench) -> None:
        exchange, log = f"{uuid.uuid4().hex}.pidbox", uuid.uuid4().hex
        bodies = [b"%d" % number for number in range(2_500)]

        answers = [bench.post(a_message(body), logged(log, exchange)) for body in bodies]
        bench.until(lambda: all(answers), "all confirms")

        assert [[None]] * len(bodies) == answers
        assert bodies == bench.play(log, exchange)

    def test_a_log_that_nothing_was_said_to_is_played_at_once(self, bench: Bench) -> None:
        exchange, log = f"{uuid.uuid4().hex}.pidbox", uuid.uuid4().hex

        assert bench.play(log, exchange) == []
        assert bench.play(log, exchange) == []

    def test_a_history_that_is_closed_says_nothing_more(self, bench: Bench) -> None:
        exchange, log = f"{uuid.uuid4().hex}.pidbox", uuid.uuid4().hex
        bench.publish(a_message(b"revoke"), logged(log, exchange))
        ear = Ear(bench)

        history = bench.broker.history(
            bench.loop, log, exchange, on_message=ear.hear, on_ready=ear.be_ready
        )
        history.close()
        assert [b"revoke"] == bench.play(log, exchange)

        assert ([], 0) == (ear.bodies, ear.ready)

    def test_a_broker_has_replies_or_says_that_it_has_none(self, broker: Broker) -> None:
        loop = Loop()
        queue = Queue(f"r-{uuid.uuid4().hex}", kind="reply")
        try:
            replies = broker.replies(loop, queue, lambda _message: None)
        except ConfigurationError:
            assert not broker.needs_loop
        else:
            replies.close()
        finally:
            loop.close()


def _skip_if_it_needs_a_loop(broker: Broker) -> None:
    if broker.needs_loop:
        pytest.skip("an outlet of this broker needs a loop")
