"""What an intake promises about each delivery, shown on a real RabbitMQ."""

import struct

import pika
import pytest

from taskq.broker import amqp_intake, topology
from taskq.broker.base import Queue
from tests.support.amqp import Bench, message, to
from tests.support.proxy import Proxy


def put(rabbit, queue, *names, **properties):
    """Publish to *queue* by other means than an outlet."""
    with rabbit.channel() as channel:
        for name in names:
            channel.basic_publish(
                "", queue, b"", pika.BasicProperties(correlation_id=name, **properties)
            )


def send_all(bench, queue, *names):
    outlet = bench.outlet()
    bench.send(outlet, to(queue), *names)
    bench.confirm(*names)


def test_deliveries_come_from_all_queues_and_an_ack_is_for_good(bench, rabbit):
    send_all(bench, "q1", "one")
    send_all(bench, "q2", "two")
    hands = bench.intake(Queue("q1"), Queue("q2"))

    hands.wait(2)
    for delivery in hands.got:
        hands.intake.ack(delivery)
    hands.intake.close()

    assert {("q1", "one"), ("q2", "two")} == {
        (got.queue, got.message.properties.correlation_id) for got in hands.got
    }
    assert [(False, 0)] * 2 == [(got.redelivered, got.count) for got in hands.got]
    assert 1 == hands.ready
    assert (0, 0) == (rabbit.count("q1"), rabbit.count("q2"))


def test_what_is_not_settled_is_given_back_by_closing(bench, rabbit):
    names = [f"m{number}" for number in range(5)]
    send_all(bench, "q", *names)
    hands = bench.intake(Queue("q"))
    hands.wait(5)

    hands.intake.ack(hands.got[3])
    hands.intake.close()
    hands.intake.ack(hands.got[0])

    left = {properties.correlation_id for properties, _ in rabbit.drain("q")}
    assert {"m0", "m1", "m2", "m4"} == left


def test_acks_in_any_order_settle_exactly_what_they_name(bench, rabbit):
    names = [f"m{number}" for number in range(40)]
    send_all(bench, "q", *names)
    hands = bench.intake(Queue("q"), window=40)
    hands.wait(40)

    turns = [[5, 2, 0], [1, 3], [7, 9], [4, 6, 8, 10, 30], [12]]
    for turn in turns:
        for index in turn:
            hands.intake.ack(hands.got[index])
            hands.intake.ack(hands.got[index])  # twice is once
        bench.loop.turn(0)
    hands.intake.reject(hands.got[11], requeue=False)
    hands.intake.ack(hands.got[11])
    hands.intake.ack(hands.got[13])
    hands.intake.close()

    settled = {index for turn in turns for index in turn} | {11, 13}
    left = {properties.correlation_id for properties, _ in rabbit.drain("q")}
    assert {f"m{index}" for index in range(40) if index not in settled} == left
    assert [] == hands.lost


def test_no_more_than_the_window_is_in_hand(bench):
    names = [f"m{number}" for number in range(20)]
    hands = bench.intake(Queue("q"), window=3)
    most = settled = 0
    send_all(bench, "q", *names)

    while settled < 20:
        bench.until(lambda: len(hands.got) > settled, "a delivery")
        most = max(most, len(hands.got) - settled)
        hands.intake.ack(hands.got[settled])
        settled += 1

    assert most <= 3
    assert names == hands.names()


@pytest.mark.parametrize(
    ("acked", "at_once", "delay"),
    [
        pytest.param([6], False, 0.005, id="one-after-a-moment"),
        pytest.param([6], True, 3600.0, id="one-at-once"),
        pytest.param([0, 1], False, 3600.0, id="a-share-of-the-window"),
        pytest.param([3, 6], False, 3600.0, id="a-share-with-gaps"),
        pytest.param([0, 1, 2, 6], False, 0.005, id="what-was-left-of-a-share"),
    ],
)
def test_acks_that_wait_for_each_other_make_room_in_the_end(acked, at_once, delay, rabbit):
    bench = Bench(rabbit.url, ack_delay=delay)
    try:
        names = [f"m{number}" for number in range(8 + len(acked))]
        hands = bench.intake(Queue("q"), window=8)
        send_all(bench, "q", *names)
        hands.wait(8)

        for index in acked:
            hands.intake.ack(hands.got[index], at_once=at_once)
        hands.wait(len(names))
    finally:
        bench.close()

    assert names == hands.names()
    left = {properties.correlation_id for properties, _ in rabbit.drain("q")}
    assert {name for index, name in enumerate(names) if index not in acked} == left


def test_a_rejected_delivery_lands_in_the_dead_letter_queue(bench, rabbit):
    send_all(bench, "q", "one")
    hands = bench.intake(Queue("q"))

    hands.intake.reject(hands.wait()[0], requeue=False)
    bench.until(lambda: rabbit.count("q.dead") == 1, "the dead letter")

    ((properties, _),) = rabbit.drain("q.dead")
    assert "rejected" == properties.headers["x-death"][0]["reason"]


def test_a_delivery_given_back_comes_again_and_is_counted(bench):
    send_all(bench, "q", "one")
    hands = bench.intake(Queue("q"))

    hands.intake.reject(hands.wait()[0], requeue=True)
    again = hands.wait(2)[1]

    assert (True, 1) == (again.redelivered, again.count)


def patience(rabbit, milliseconds):
    """How long RabbitMQ waits before it tries again to move a dead letter."""
    name = "dead_letter_worker_publisher_confirm_timeout"
    rabbit.ctl("eval", f"application:set_env(rabbit, {name}, {milliseconds}).")


def test_a_dead_letter_to_a_missing_queue_is_kept(bench, rabbit):
    patience(rabbit, 500)
    try:
        send_all(bench, "q", "one", "two", "three")
        hands = bench.intake(Queue("q"))
        hands.wait(3)
        with rabbit.channel() as channel:
            channel.queue_delete("q.dead")

        for delivery in hands.got:
            hands.intake.reject(delivery, requeue=False)
        hands.intake.close()
        assert 0 == rabbit.count("q")
        send_all(bench, "q", "makes the dead-letter queue again")

        bench.until(lambda: rabbit.count("q.dead") == 3, "the dead letters")
    finally:
        patience(rabbit, 180_000)


def test_a_cut_loses_nothing_and_stale_acks_settle_nothing(bench, rabbit):
    names = [f"m{number}" for number in range(6)]
    send_all(bench, "q", *names)
    hands = bench.intake(Queue("q"))
    hands.wait(6)

    rabbit.ctl("close_all_connections", "--vhost", rabbit.vhost, "a test")
    bench.until(lambda: hands.lost, "the loss")
    for delivery in hands.got[:6]:
        hands.intake.ack(delivery)
        hands.intake.reject(delivery, requeue=False)
    hands.wait(12)

    assert ["320 CONNECTION_FORCED - a test"] == hands.lost
    assert sorted(names) == sorted(hands.names()[6:])
    assert all(delivery.redelivered for delivery in hands.got[6:])
    assert 2 == hands.ready
    for delivery in hands.got:
        hands.intake.ack(delivery)
    hands.intake.close()
    assert (0, 0) == (rabbit.count("q"), rabbit.count("q.dead"))


def test_a_channel_that_the_broker_closes_is_mended(bench, rabbit):
    send_all(bench, "q", "one")
    hands = bench.intake(Queue("q"))
    first = hands.wait()[0]

    channel = hands.intake._channel
    channel.basic_ack(first.tag + 100)  # what a bug would do
    hands.wait(2)

    assert [r"406 PRECONDITION_FAILED - unknown delivery tag 101"] == hands.lost
    hands.intake.ack(first)
    hands.intake.ack(hands.got[1])
    hands.intake.close()
    assert 0 == rabbit.count("q")


def test_an_alarm_that_stops_publishing_does_not_stop_acks(bench, rabbit, caplog):
    names = [f"m{number}" for number in range(10)]
    outlet = bench.outlet()
    bench.send(outlet, to("q"), *names)
    bench.confirm(*names)
    rabbit.ctl("set_vm_memory_high_watermark", "0")
    try:
        bench.send(outlet, to("q"), "held back")
        bench.until(lambda: "blocks publishing" in caplog.text, "the broker's word")

        hands = bench.intake(Queue("q"), window=2)
        for count in range(1, 11):
            hands.intake.ack(hands.wait(count)[count - 1])
        assert names == hands.names()
        hands.intake.close()
    finally:
        rabbit.ctl("set_vm_memory_high_watermark", "0.4")

    bench.confirm("held back")


def test_an_intake_may_be_closed_by_the_callback_of_a_delivery(bench, rabbit):
    names = [f"m{number}" for number in range(5)]
    send_all(bench, "q", *names)
    hands = bench.intake(Queue("q"))

    def settle_and_close(delivery):
        hands.intake.ack(delivery)
        hands.intake.close()

    hands.on_delivery = settle_and_close
    hands.wait()

    left = [properties.correlation_id for properties, _ in rabbit.drain("q")]
    assert names[1:] == sorted(left)
    assert ["m0"] == hands.names()


def test_a_silent_broker_is_given_up(rabbit, rabbit_through_proxy):
    bench = Bench(rabbit_through_proxy.url, heartbeat=1.0)
    try:
        send_all(bench, "q", "one")
        hands = bench.intake(Queue("q"))
        hands.wait()

        rabbit_through_proxy.stall()
        bench.until(lambda: hands.lost, "the watchdog")
        rabbit_through_proxy.resume()
        hands.wait(2)
    finally:
        bench.close()

    assert hands.lost[0].startswith("no word from it for")


@pytest.mark.parametrize("heartbeat", [1.0, 0.0])
@pytest.mark.parametrize("fault", [Proxy.deafen, Proxy.mute])
def test_a_connection_that_is_dead_in_one_direction_is_given_up(
    fault, heartbeat, rabbit, rabbit_through_proxy, monkeypatch
):
    monkeypatch.setattr(amqp_intake, "_LOOK_INTERVAL", 0.2)
    bench = Bench(rabbit_through_proxy.url, heartbeat=heartbeat, declare_timeout=1.0)
    try:
        hands = bench.intake(Queue("q"))
        hands.wait_ready()

        fault(rabbit_through_proxy)
        bench.until(lambda: hands.lost, "the watchdog")
        rabbit_through_proxy.resume()
        put(rabbit, "q", "one")
        hands.wait()
    finally:
        bench.close()

    assert ["one"] == hands.names()


def replace_unnoticed(rabbit, queue):
    """Delete *queue* and declare it again so soon that RabbitMQ 3.10 tells no consumer."""
    with rabbit.channel() as channel:
        channel.queue_delete(queue)
        channel.queue_declare(queue, durable=True, arguments=topology.arguments(Queue(queue), 1))


def test_messages_that_wait_although_there_is_room_end_in_a_new_connection(
    bench, rabbit, monkeypatch
):
    monkeypatch.setattr(amqp_intake, "_LOOK_INTERVAL", 0.2)
    names = [f"m{number}" for number in range(10)]
    hands = bench.intake(Queue("q"), window=3)
    hands.wait_ready()
    hands.on_delivery = hands.intake.ack

    replace_unnoticed(rabbit, "q")
    put(rabbit, "q", *names)
    hands.wait(10)

    assert sorted(names) == sorted(hands.names())
    # Unless a slow machine left RabbitMQ the time to tell of the deletion.
    assert all(reason.startswith("it delivers nothing from queue 'q'") for reason in hands.lost)


def test_what_a_forgotten_consumer_was_given_comes_back(bench, rabbit, monkeypatch):
    """It is in no count of the queue: only a channel that ends gives it back."""
    monkeypatch.setattr(amqp_intake, "_LOOK_INTERVAL", 0.1)
    hands = bench.intake(Queue("q"), window=10)
    hands.wait_ready()
    hands.on_delivery = hands.intake.ack

    replace_unnoticed(rabbit, "q")
    put(rabbit, "q", "one", "two")
    hands.wait(2)

    assert ["one", "two"] == sorted(hands.names())


def test_a_resumed_queue_brings_no_second_window(bench):
    names = [f"m{number}" for number in range(20)]
    hands = bench.intake(Queue("q"), window=5)
    hands.wait_ready()
    send_all(bench, "q", *names)
    hands.wait(5)

    hands.intake.pause()
    hands.intake.add(Queue("q"))
    for settled in range(20):
        hands.wait(min(20, settled + 5))
        assert len(hands.got) - settled <= 5
        hands.intake.ack(hands.got[settled])

    assert set(names) == set(hands.names())


def test_a_queue_deleted_under_its_consumer_is_declared_again(bench, rabbit, caplog):
    hands = bench.intake(Queue("q"))
    hands.wait_ready()

    with rabbit.channel() as channel:
        channel.queue_delete("q")
    bench.until(lambda: "was deleted under its consumer" in caplog.text, "the broker's word")
    bench.until(lambda: consumers(rabbit, "q") == 1, "the consumer")
    send_all(bench, "q", "one")
    hands.wait()

    assert ["one"] == hands.names()
    assert ([], 1) == (hands.lost, hands.ready)


def test_a_foreign_queue_is_consumed_as_it_is(bench, rabbit):
    with rabbit.channel() as channel:
        channel.queue_declare("q", durable=False, arguments={"x-max-length": 100})
    put(rabbit, "q", "one")

    hands = bench.intake(Queue("q"))
    hands.wait()

    assert ["one"] == hands.names()


def test_another_exchange_type_is_used_as_it_is(bench, rabbit):
    with rabbit.channel() as channel:
        channel.exchange_declare("x", "topic", durable=True)
    hands = bench.intake(Queue("q", exchange="x", routing_key="a.*"))
    hands.wait_ready()

    with rabbit.channel() as channel:
        channel.basic_publish("x", "a.b", b"", pika.BasicProperties(correlation_id="one"))
    (delivery,) = hands.wait()

    assert ("x", "a.b") == (delivery.exchange, delivery.routing_key)


def test_queues_can_be_added_and_cancelled_while_others_go_on(bench, rabbit):
    hands = bench.intake(Queue("q1"))
    hands.wait_ready()
    send_all(bench, "q1", "one")
    send_all(bench, "q2", "two")

    hands.intake.add(Queue("q2"))
    hands.wait(2)
    hands.intake.cancel("q1")
    for delivery in hands.got:
        hands.intake.ack(delivery)
    bench.until(lambda: consumers(rabbit, "q1") == 0, "the consumer of q1 to go")
    send_all(bench, "q1", "three")
    send_all(bench, "q2", "four")
    hands.wait(3)

    assert "four" == hands.names()[2]
    assert 1 == rabbit.count("q1")
    hands.intake.add(Queue("q1"))
    hands.wait(4)
    assert "three" == hands.names()[3]


def consumers(rabbit, queue):
    # Not by declaring it passively: that counts cancelled consumers with deliveries in hand, too.
    listed = rabbit.ctl("list_consumers", "-p", rabbit.vhost, "queue_name", "--no-table-headers")
    return listed.split().count(queue)


def test_acks_that_cannot_be_joined_count_although_the_intake_closes_at_once(bench, rabbit):
    names = [f"message {number}" for number in range(100)]
    send_all(bench, "q", *names)
    hands = bench.intake(Queue("q"), window=len(names))
    hands.wait(len(names))

    hands.intake.pause()
    for delivery in hands.got[1:]:
        hands.intake.ack(delivery)
    hands.intake.close()
    again = bench.intake(Queue("q"), window=len(names))
    again.wait(1)

    assert [names[0]] == again.names()
    assert 0 == rabbit.count("q")


def test_an_intake_of_no_queues_is_ready_and_takes_more(bench, rabbit):
    hands = bench.intake()
    hands.wait_ready()
    send_all(bench, "q", "one")

    hands.intake.add(Queue("q"))

    hands.wait()
    assert (["one"], 1) == (hands.names(), hands.ready)


def test_a_queue_that_is_cancelled_before_it_was_consumed_from_delays_nothing(bench):
    hands = bench.intake(Queue("q1"), Queue("q2"))

    hands.intake.cancel("q1")
    hands.intake.cancel("q2")

    hands.wait_ready()


def test_after_a_pause_deliveries_in_hand_can_be_settled_and_none_come(bench, rabbit):
    send_all(bench, "q", "one")
    hands = bench.intake(Queue("q"))
    hands.wait()

    hands.intake.pause()
    bench.until(lambda: consumers(rabbit, "q") == 0, "the consumer to go")
    send_all(bench, "q", "two")
    hands.intake.ack(hands.got[0])
    hands.intake.close()

    assert ["one"] == hands.names()
    ((properties, _),) = rabbit.drain("q")
    assert "two" == properties.correlation_id


def nested(depth):
    table = b""
    for _ in range(depth):
        table = b"\x01dF" + struct.pack(">I", len(table)) + table
    return struct.pack(">I", len(table)) + table


FLAGS_HEADERS = b"\x20\x00"


@pytest.mark.parametrize(
    ("raw", "check"),
    [
        (
            FLAGS_HEADERS + struct.pack(">I3sd", 11, b"\x01fd", 1.5),
            lambda properties: properties.headers == {"f": 1.5},
        ),
        (FLAGS_HEADERS + nested(500), lambda properties: "deep" in properties.malformed),
        (
            FLAGS_HEADERS + struct.pack(">I3sQ", 11, b"\x01tT", 1_700_000_000_000),
            lambda properties: properties.headers == {"t": 1_700_000_000_000},
        ),
        (
            b"\x00\x40" + struct.pack(">Q", 1_700_000_000_000),
            lambda properties: properties.timestamp == 1_700_000_000_000,
        ),
        (
            b"\x00\x40" + struct.pack(">Q", 2**63),
            lambda properties: properties.timestamp == 2**63,
        ),
    ],
    ids=["float", "deep table", "millisecond header", "millisecond timestamp", "huge timestamp"],
)
def test_headers_that_would_kill_pika_are_delivered_to_who_can_read_them(bench, raw, check):
    hands = bench.intake(Queue("q"))
    hands.wait_ready()
    outlet = bench.outlet()
    odd = message("odd", b"body")
    odd.raw = raw

    outlet.publish(odd, to("q"), lambda error: bench.done.setdefault("odd", error))
    bench.confirm("odd")
    bench.send(outlet, to("q"), "next")
    hands.wait(2)

    assert b"body" == hands.got[0].message.body
    assert check(hands.got[0].message.properties), hands.got[0].message.properties
    assert "next" == hands.names()[1]
    assert [] == hands.lost


def test_headers_that_grew_over_a_frame_by_dead_lettering_are_delivered(bench, rabbit):
    hands = bench.intake(Queue("q.dead", kind="dead"))
    size = 131_072 - 8 - 12 - 60
    with rabbit.channel() as channel:
        channel.queue_declare("source", arguments={
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q.dead", "x-message-ttl": 0,
        })  # fmt: skip
    hands.wait_ready()
    put(rabbit, "source", "one", headers={"large": "x" * size})

    hands.wait()

    assert len(hands.got[0].message.raw) > 131_072
    hands.intake.reject(hands.got[0], requeue=False)
    assert [] == hands.lost


def test_an_error_of_its_owner_leaves_the_loop(bench):
    hands = bench.intake(Queue("q"))
    hands.wait_ready()

    def fail(_delivery):
        raise ZeroDivisionError

    hands.on_delivery = fail
    with pytest.raises(ZeroDivisionError):
        send_all(bench, "q", "one")
        hands.wait()


def test_replies_arrive_and_their_queue_outlives_the_connection(bench, rabbit):
    got = []
    queue = Queue("replies", kind="reply")
    outlet = bench.outlet()
    bench.send(outlet, to("replies", kind="reply"), "early")
    bench.confirm("early")

    bench.replies(queue, got)
    bench.until(lambda: len(got) == 1, "the early reply")
    rabbit.ctl("close_all_connections", "--vhost", rabbit.vhost, "a test")
    bench.send(outlet, to("replies", kind="reply"), "late")
    bench.until(lambda: len(got) == 2, "the late reply")

    assert ["early", "late"] == [reply.properties.correlation_id for reply in got]
    assert 0 == rabbit.count("replies")


def test_replies_that_are_closed_while_they_begin_leave_no_error(bench, rabbit):
    for turns in range(12):
        replies = bench.replies(Queue("r", kind="reply"), [])
        for _ in range(turns):
            bench.loop.turn(0.01)
        replies.close()

    assert 0 == rabbit.count("r")
