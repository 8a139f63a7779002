"""The delay ladder on a real RabbitMQ: what waits there arrives as if it had been sent just now."""

import time

import pytest

from taskq.broker.base import Queue, Route
from taskq.errors import PublishRefused
from taskq.wire import task
from tests.support.amqp import message, to


def soon(seconds: float = 0.2) -> float:
    return time.time() + seconds


def test_a_delayed_message_arrives_when_it_is_due_with_its_route_restored(bench):
    hands = bench.intake(Queue("q"))
    outlet = bench.outlet()
    due = soon(0.3)

    bench.send_message(outlet, to("q"), message("one", b"body", headers={"half": 0.5}), due=due)
    bench.confirm("one")
    (delivery,) = hands.wait()

    assert time.time() >= due - 0.0625
    assert ("", "q", b"body") == (delivery.exchange, delivery.routing_key, delivery.message.body)
    assert 0.5 == delivery.message.headers["half"]


def test_what_is_due_already_is_sent_straight_away(bench):
    hands = bench.intake(Queue("q"))
    outlet = bench.outlet()

    bench.send(outlet, to("q"), "past", due=soon(-5))
    bench.send(outlet, to("q"), "now", due=soon(0.01))
    hands.wait(2)

    assert all("taskq-route" not in delivery.message.headers for delivery in hands.got)


@pytest.mark.parametrize("kind", ["direct", "topic", "fanout"])
def test_a_delayed_message_goes_through_its_exchange_with_its_own_key(bench, kind):
    queue = Queue("q", exchange="shop", exchange_type=kind, routing_key="orders.paid")
    other = Queue("other", exchange="shop", exchange_type=kind, routing_key="orders.lost")
    hands = bench.intake(queue, other)
    outlet = bench.outlet()

    bench.send(outlet, Route("shop", "orders.paid", (queue, other)), "one", due=soon())
    expected = ["other", "q"] if kind == "fanout" else ["q"]
    hands.wait(len(expected))

    assert expected == sorted(delivery.queue for delivery in hands.got)
    assert {("shop", "orders.paid")} == {(got.exchange, got.routing_key) for got in hands.got}


def test_queues_whose_names_end_alike_get_their_own(bench):
    hands = bench.intake(Queue("b"), Queue("a.b"), Queue("a.*"), Queue("#"))
    outlet = bench.outlet()

    for name in ("b", "a.b", "a.*", "#"):
        bench.send(outlet, to(name), name, due=soon())
    bench.confirm("b", "a.b", "a.*", "#")
    hands.wait(4)

    assert ["#", "a.*", "a.b", "b"] == sorted(delivery.queue for delivery in hands.got)
    assert hands.names() == [delivery.queue for delivery in hands.got]


def test_a_message_can_be_delayed_again_and_again(bench):
    hands = bench.intake(Queue("q"))
    outlet = bench.outlet()

    bench.send(outlet, to("q"), "one", due=soon(0.15))
    for rounds in range(1, 10):
        delivery = hands.wait(rounds)[-1]
        again = task.resend(delivery.message, {"round": rounds}, correlation_id=f"round {rounds}")
        bench.send_message(outlet, to("q"), again, due=soon(0.15))
        hands.intake.ack(delivery)
    hands.wait(10)

    assert list(range(1, 10)) == [got.message.headers["round"] for got in hands.got[1:]]
    assert {"q"} == {delivery.routing_key for delivery in hands.got}


def test_an_expiration_does_not_end_the_wait(bench):
    hands = bench.intake(Queue("q"))
    outlet = bench.outlet()
    due = soon(0.6)

    bench.send_message(outlet, to("q"), message("one", expiration="10"), due=due)
    hands.wait()

    assert time.time() >= due - 0.0625


def test_messages_for_a_deleted_queue_do_not_hold_up_others_and_are_kept(bench, rabbit):
    outlet = bench.outlet()
    lost = [f"lost{number}" for number in range(100)]
    bench.send(outlet, to("doomed"), *lost, due=soon(0.5))
    bench.confirm(*lost)
    with rabbit.channel() as channel:
        channel.queue_delete("doomed")
    hands = bench.intake(Queue("q"))

    bench.send(outlet, to("q"), "good", due=soon(0.5))
    hands.wait()

    assert ["good"] == hands.names()
    bench.until(lambda: bench.broker.count("taskq.undeliverable") == 100, "all to be kept")


def test_a_delay_over_the_longest_is_refused(bench):
    outlet = bench.outlet()

    bench.send(outlet, to("q"), "one", due=soon(1e10))
    bench.settle(1)

    with pytest.raises(PublishRefused, match="over the longest"):
        raise bench.done["one"]


def test_a_delay_of_years_is_accepted(bench, rabbit):
    outlet = bench.outlet()
    route = Route("shop", "orders", (Queue("q", exchange="shop", routing_key="orders"),))

    bench.send(outlet, route, "one", due=soon(8 * 365 * 86_400))

    bench.confirm("one")
    assert 1 == rabbit.count("taskq.delay.31")


def test_a_queue_deleted_under_its_consumer_still_gets_what_was_on_the_way(bench, rabbit):
    hands = bench.intake(Queue("q"))
    hands.wait_ready()
    outlet = bench.outlet()
    bench.send(outlet, to("q"), "one", due=soon(2))
    bench.confirm("one")

    with rabbit.channel() as channel:
        channel.queue_delete("q")
    hands.wait()

    assert ["one"] == hands.names()


def test_a_delayed_message_outlives_the_outlet(bench, rabbit):
    outlet = bench.outlet()
    bench.send(outlet, to("q"), "one", due=soon(0.5))
    outlet.close()

    bench.until(lambda: rabbit.count("q") == 1, "the message")

    ((properties, _),) = rabbit.drain("q")
    assert ["", "q"] == properties.headers["taskq-route"]
