"""What an outlet promises about each message, shown on a real RabbitMQ."""

import pytest
from pika.exceptions import ChannelClosedByBroker

from taskq.broker import amqp_outlet
from taskq.broker.amqp import AmqpBroker
from taskq.broker.base import BrokerOptions, Queue, Route
from taskq.errors import BrokerUnavailable, PublishRefused, PublishUnconfirmed
from tests.support.amqp import Bench, message, to
from tests.support.proxy import Proxy


def test_a_published_message_is_in_its_queue_when_it_is_done(bench, rabbit):
    outlet = bench.outlet()

    bench.send_message(outlet, to("q"), message("one", b"body", headers={"half": 0.5}))
    bench.confirm("one")

    assert 1 == bench.broker.count("q")
    ((properties, body),) = rabbit.drain("q")
    assert (b"body", "one", 2) == (body, properties.correlation_id, properties.delivery_mode)


def test_a_thousand_messages_are_confirmed_while_they_are_sent(bench, rabbit):
    outlet = bench.outlet()
    names = [f"m{number}" for number in range(1000)]

    bench.send(outlet, to("q"), *names)
    bench.confirm(*names)

    assert names == [properties.correlation_id for properties, _ in rabbit.drain("q")]


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 400_000])
def test_a_body_of_any_size_arrives_whole(bench, rabbit, size):
    outlet = bench.outlet()
    body = bytes(range(256)) * (size // 256 + 1)

    bench.send_message(outlet, to("q"), message("one", body[:size]))
    bench.confirm("one")

    ((_, received),) = rabbit.drain("q")
    assert body[:size] == received


def test_a_message_that_no_queue_takes_is_refused_and_its_neighbours_are_not(bench):
    outlet = bench.outlet()
    names = [f"m{number}" for number in range(20)]

    for number, name in enumerate(names):
        bench.send(outlet, Route("", "nowhere") if number % 2 else to("q"), name)
    bench.settle(20)

    for number, name in enumerate(names):
        if number % 2:
            with pytest.raises(
                PublishRefused,
                match=rf"message {name} to queue 'nowhere' was not queued .*unroutable",
            ):
                raise bench.done[name]
        else:
            assert bench.done[name] is None


def test_a_message_that_need_not_be_routable_is_done_without_a_queue(bench):
    outlet = bench.outlet()

    bench.send(outlet, Route("", "nowhere"), "one", mandatory=False)

    bench.confirm("one")


def test_a_missing_exchange_is_refused_and_disturbs_nobody(bench):
    outlet = bench.outlet()

    bench.send(outlet, to("q"), "before")
    bench.send(outlet, Route("no-such", "k"), "lost")
    bench.send(outlet, to("q"), "after")
    bench.settle(3)

    bench.confirm("before", "after")
    with pytest.raises(PublishRefused, match=r"exchange 'no-such' with .*NOT_FOUND"):
        raise bench.done["lost"]
    assert 2 == bench.broker.count("q")


def test_an_exchange_that_vanishes_refuses_its_own_messages_only(bench, rabbit):
    outlet = bench.outlet()
    route = Route("x", "k", (Queue("q", exchange="x", routing_key="k"),))
    bench.send(outlet, Route("x", "k", route.declare), "first")
    bench.confirm("first")
    with rabbit.channel() as channel:
        channel.exchange_delete("x")

    for number in range(10):
        bench.send(outlet, Route("x", "k"), f"lost{number}")
        bench.send(outlet, to("other"), f"kept{number}")
    bench.settle(21)

    bench.confirm(*(f"kept{number}" for number in range(10)))
    assert all(bench.done[f"lost{number}"] is not None for number in range(10))
    assert 10 <= bench.broker.count("other")
    bench.send(outlet, Route("x", "k"), "late")
    bench.settle(22)
    assert isinstance(bench.done["late"], PublishRefused)


def test_a_message_that_closes_the_channel_is_refused_alone(bench):
    outlet = bench.outlet()
    names = [f"m{number}" for number in range(20)]

    bench.send(outlet, to("q"), *names[:10])
    bench.send_message(outlet, to("q"), message("bad", expiration="soon"))
    bench.send(outlet, to("q"), *names[10:])
    bench.settle(21)

    bench.confirm(*names)
    with pytest.raises(PublishRefused, match="invalid expiration"):
        raise bench.done["bad"]


def test_a_message_that_the_broker_cannot_read_is_the_only_one_not_confirmed(bench):
    outlet = bench.outlet()
    bad = message("bad")
    bad.raw = b"\x20\x00\xff\xff\xff\xff"  # a header table that is longer than the frame
    names = [f"m{number}" for number in range(20)]

    bench.send(outlet, to("q"), *names[:10])
    outlet.publish(bad, to("q"), lambda error: bench.done.setdefault("bad", error))
    bench.send(outlet, to("q"), *names[10:])
    bench.settle(21)

    bench.confirm(*names)
    assert isinstance(bench.done["bad"], PublishUnconfirmed)


def test_a_queue_that_was_deleted_under_the_outlet_is_declared_again(bench, rabbit):
    outlet = bench.outlet()
    bench.send(outlet, to("q"), "one")
    bench.confirm("one")
    with rabbit.channel() as channel:
        channel.queue_delete("q")

    bench.send(outlet, to("q"), "two", "three")

    bench.confirm("two", "three")
    assert 2 == bench.broker.count("q")


def test_a_full_queue_refuses(bench):
    outlet = bench.outlet()
    limit = {"x-queue-type": "classic", "x-max-length": 1, "x-overflow": "reject-publish"}
    route = to("q", arguments=limit)
    names = [f"m{number}" for number in range(20)]

    bench.send(outlet, route, *names)
    bench.settle(20)

    refused = [error for error in bench.done.values() if error is not None]
    assert refused
    assert all(isinstance(error, PublishRefused) for error in refused)
    assert bench.broker.count("q") == 20 - len(refused)


def test_a_new_queue_that_a_worker_declares_at_the_same_moment_refuses_nothing(bench):
    outlet = bench.outlet()
    hands = bench.intake(Queue("first"))
    hands.wait_ready()

    for number in range(40):
        hands.intake.add(Queue(f"q{number}"))
        bench.send(outlet, to(f"q{number}"), f"m{number}")
        bench.confirm(f"m{number}")


def test_a_queue_with_other_arguments_is_used_as_it_is(bench, rabbit, caplog):
    with rabbit.channel() as channel:
        channel.queue_declare("q", durable=True, arguments={"x-max-length": 7})
    outlet = bench.outlet()

    with caplog.at_level("WARNING", "taskq"):
        bench.send(outlet, to("q"), "one", "two")
        bench.confirm("one", "two")

    assert 2 == rabbit.count("q")
    (line,) = [record for record in caplog.records if record.event == "queue-foreign"]
    assert "inequivalent arg" in line.getMessage()


def test_a_priority_that_the_queue_ignores_is_said_once(bench, rabbit, caplog):
    outlet = bench.outlet()

    with caplog.at_level("WARNING", "taskq"):
        for number in range(3):
            bench.send_message(outlet, to("q"), message(f"m{number}", priority=5))
            bench.send_message(
                outlet, to("ranked", max_priority=9), message(f"r{number}", priority=5)
            )
        bench.settle(6)

    with rabbit.channel() as channel:
        version = channel.connection._impl.server_properties["version"]
    said = [record for record in caplog.records if record.event == "priority-useless"]
    expected = ["q"] if int(version.split(".")[0]) < 4 else []
    assert expected == [record.fields["queue"] for record in said]


def test_a_full_route_is_made_before_the_first_message(bench, rabbit):
    outlet = bench.outlet()
    route = Route("shop", "orders.paid", (Queue("q", "shop", "topic", "orders.*"),))

    bench.send(outlet, route, "one")
    bench.confirm("one")

    assert 1 == rabbit.count("q")
    assert 0 == rabbit.count("q.dead")
    with rabbit.channel() as channel:
        channel.queue_declare("q.dead", passive=True)


def test_messages_outlive_a_cut_of_the_connection(bench, rabbit):
    outlet = bench.outlet()
    names = [f"m{number}" for number in range(3000)]
    bench.send(outlet, to("q"), *names[:1000])
    bench.until(lambda: len(bench.done) > 10, "the first confirms")

    rabbit.ctl("close_all_connections", "--vhost", rabbit.vhost, "a test")
    bench.send(outlet, to("q"), *names[1000:])
    bench.confirm(*names)

    assert set(names) == {properties.correlation_id for properties, _ in rabbit.drain("q")}


def test_messages_outlive_a_network_that_drops_connections(rabbit, rabbit_through_proxy):
    bench = Bench(rabbit_through_proxy.url)
    outlet = bench.outlet()
    names = [f"m{number}" for number in range(2000)]

    try:
        for start in range(0, 2000, 200):
            bench.send(outlet, to("q"), *names[start : start + 200])
            bench.until(lambda start=start: len(bench.done) > start, "a confirm of this round")
            rabbit_through_proxy.drop()
        bench.confirm(*names)
    finally:
        bench.close()

    assert set(names) == {properties.correlation_id for properties, _ in rabbit.drain("q")}


def test_without_a_broker_a_message_is_refused_in_time_and_says_why(rabbit_through_proxy):
    rabbit_through_proxy.cut()
    bench = Bench(rabbit_through_proxy.url, publish_timeout=0.3)
    outlet = bench.outlet()

    try:
        bench.send(outlet, to("q"), "one")
        bench.settle(1)
    finally:
        bench.close()

    with pytest.raises(PublishRefused, match="Connection refused") as caught:
        raise bench.done["one"]
    assert "guest:***@" in str(caught.value)


def test_a_message_without_a_confirm_is_unconfirmed_and_not_refused(rabbit_through_proxy):
    bench = Bench(rabbit_through_proxy.url)
    outlet = bench.outlet()
    try:
        bench.send(outlet, to("q"), "one")
        bench.confirm("one")

        rabbit_through_proxy.stall()
        bench.send(outlet, to("q"), "two", timeout=0.3)
        bench.send(outlet, to("q"), "three", timeout=20)
        bench.until(lambda: "two" in bench.done, "the timeout")

        assert isinstance(bench.done["two"], PublishUnconfirmed)
        assert "three" not in bench.done
        rabbit_through_proxy.resume()
        bench.confirm("three")
    finally:
        bench.close()


def test_the_consumers_of_a_deleted_queue_hear_of_it_before_it_is_declared_again(bench, rabbit):
    hands = bench.intake(Queue("q"))
    hands.wait_ready()
    outlet = bench.outlet()
    bench.send(outlet, to("q"), "before")
    bench.confirm("before")

    with rabbit.channel() as channel:
        channel.queue_delete("q")
    bench.send(outlet, to("q"), "after")
    hands.wait(2)

    assert ["before", "after"] == hands.names()
    assert [] == hands.lost


@pytest.mark.parametrize("fault", [Proxy.deafen, Proxy.mute])
def test_without_heartbeats_a_missing_confirm_tells_that_the_connection_is_dead(
    fault, rabbit_through_proxy
):
    bench = Bench(rabbit_through_proxy.url, heartbeat=0.0, publish_timeout=0.5)
    outlet = bench.outlet()
    try:
        bench.send(outlet, to("q"), "one", timeout=30)
        bench.confirm("one")
        taken = rabbit_through_proxy.taken

        fault(rabbit_through_proxy)
        bench.send(outlet, to("q"), "two")
        bench.until(lambda: rabbit_through_proxy.taken > taken, "another connection")
        rabbit_through_proxy.resume()
        bench.send(outlet, to("q"), "three", timeout=30)
        bench.confirm("three")
    finally:
        bench.close()

    assert isinstance(bench.done["two"], PublishUnconfirmed)


def test_an_alarm_holds_messages_back_and_they_are_sent_after_it(bench, rabbit, caplog):
    outlet = bench.outlet()
    bench.send(outlet, to("q"), "before")
    bench.confirm("before")

    rabbit.ctl("set_vm_memory_high_watermark", "0")
    try:
        bench.send(outlet, to("q"), "wakes the alarm", timeout=30)
        bench.until(lambda: "blocks publishing" in caplog.text, "the broker's word")
        bench.send(outlet, to("q"), "one", "two", timeout=30)
        bench.send(outlet, to("q"), "hasty", timeout=0.2)
        bench.until(lambda: "hasty" in bench.done, "the timeout")
        with pytest.raises(PublishRefused, match="blocks publishing"):
            raise bench.done["hasty"]
        assert "one" not in bench.done
    finally:
        rabbit.ctl("set_vm_memory_high_watermark", "0.4")

    bench.confirm("wakes the alarm", "one", "two")
    assert 4 == rabbit.count("q")


def test_closing_waits_for_confirms_and_reports_the_rest(bench, rabbit):
    outlet = bench.outlet()
    bench.send(outlet, to("q"), "one", "two")

    outlet.close()

    bench.confirm("one", "two")
    bench.send(outlet, to("q"), "late")
    assert isinstance(bench.done["late"], PublishRefused)
    outlet.close()
    assert 2 == rabbit.count("q")


def test_closing_without_a_broker_reports_what_was_never_sent(rabbit_through_proxy):
    rabbit_through_proxy.cut()
    bench = Bench(rabbit_through_proxy.url)
    outlet = bench.outlet()
    bench.send(outlet, to("q"), "one")

    outlet.close(0.1)
    bench.close()

    assert isinstance(bench.done["one"], PublishRefused)


def test_an_outlet_may_be_closed_by_the_callback_of_a_publish(bench, rabbit):
    outlet = bench.outlet()
    closed = []

    def close(error):
        outlet.close()
        closed.append(error)

    outlet.publish(message("one"), to("q"), close)
    bench.send(outlet, to("q"), *(f"m{number}" for number in range(500)))
    bench.until(lambda: closed, "the outlet to close")

    bench.confirm(*(f"m{number}" for number in range(500)))
    assert 501 == rabbit.count("q")


def test_a_reply_queue_is_declared_and_kept_alive(bench, rabbit, monkeypatch):
    monkeypatch.setattr(amqp_outlet, "_REPLY_REFRESH", 0.2)
    outlet = bench.outlet()
    reply_queue = Queue("replies", kind="reply")
    route = Route("", "q", (Queue("q"), reply_queue))
    bench.send(outlet, route, "one")
    bench.confirm("one")
    with rabbit.channel() as channel:
        channel.queue_delete("replies")

    def is_there():
        with rabbit.channel() as channel:
            try:
                return channel.queue_declare("replies", passive=True)
            except ChannelClosedByBroker:
                return None

    bench.until(is_there, "the queue to be declared again")


def test_counting_asks_the_first_broker_that_answers(rabbit):
    urls = ("amqp://guest:guest@127.0.0.1:1/", rabbit.url)
    with rabbit.channel() as channel:
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", b"")

    assert 1 == AmqpBroker(BrokerOptions(urls)).count("q")
    assert 0 == AmqpBroker(BrokerOptions(urls)).count("no-such-queue")


def test_a_queue_whose_leader_is_slow_is_counted_all_the_same(rabbit):
    with rabbit.channel() as channel:
        channel.queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
        channel.confirm_delivery()
        channel.basic_publish("", "q", b"")
    vhost = rabbit.url.rpartition("/")[2]
    leader = (
        f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"q">>)), '
        "{Name, _} = amqqueue:get_pid(Q), "
    )

    rabbit.ctl(
        "eval", f"{leader} sys:suspend(Name), timer:apply_after(1000, sys, resume, [Name]), ok."
    )

    assert 1 == AmqpBroker(BrokerOptions((rabbit.url,))).count("q")


def test_counting_without_a_broker_says_why():
    broker = AmqpBroker(BrokerOptions(("amqp://me:secret@127.0.0.1:1/",), connect_timeout=0.3))

    with pytest.raises(BrokerUnavailable, match="Connection refused") as caught:
        broker.count("q")
    assert "secret" not in str(caught.value)


def test_events_of_the_connection_never_tell_the_password(bench, rabbit, caplog):
    with caplog.at_level("INFO", "taskq"):
        outlet = bench.outlet()
        bench.send(outlet, to("q"), "one")
        bench.confirm("one")

    (line,) = [record for record in caplog.records if record.event == "connected"]
    assert "guest:***@" in line.getMessage()
    assert "outlet" in line.getMessage()
