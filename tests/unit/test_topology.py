"""Names and arguments: what the broker would do with them is played here by its own rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.broker import topology
from taskq.broker.base import Queue, Route
from taskq.broker.topology import BindExchange, BindQueue, DeclareExchange, DeclareQueue

MAX = 1000


def fits(pattern: str, routing_key: str) -> bool:
    """The rule of topic exchanges: `*` is one word, and `#` at the end any number of them."""
    begin, has_rest, _ = pattern.partition(".#")
    words, wanted = routing_key.split("."), begin.split(".")
    if len(words) < len(wanted) or (len(words) > len(wanted) and not has_rest):
        return False
    return all(want in ("*", word) for want, word in zip(wanted, words, strict=False))


def journey(climb: topology.Climb, extra: list[BindQueue]) -> tuple[list[str], int]:
    """The last queues that a message reaches by *climb*, and how many milliseconds it waits."""
    declared = [*topology.ladder(climb, MAX), *extra]
    arguments = {d.name: d.arguments for d in declared if isinstance(d, DeclareQueue)}

    def bound(kind, source):
        of_kind = [d for d in declared if isinstance(d, kind)]
        fitting = [d for d in of_kind if fits(d.routing_key, climb.routing_key)]
        if kind is BindQueue:
            return [d.queue for d in fitting if d.exchange == source]
        return [d.target for d in fitting if d.source == source]

    exchange, waited = climb.exchange, 0
    while exchange != "taskq.delay.due":
        queues, exchanges = bound(BindQueue, exchange), bound(BindExchange, exchange)
        assert len(queues) + len(exchanges) == 1, (exchange, queues, exchanges)
        if queues:
            waited += arguments[queues[0]]["x-message-ttl"]
            exchange = arguments[queues[0]]["x-dead-letter-exchange"]
        else:
            exchange = exchanges[0]
    return bound(BindQueue, exchange), waited


@given(st.integers(min_value=1, max_value=2**32 - 1))
def test_every_delay_arrives_at_its_queue_and_not_late(units):
    climb = topology.climb("", "orders.paid", units * topology.UNIT)

    last, waited = journey(climb, [])

    assert ["orders.paid"] == last
    assert units * topology.UNIT * 1000 - 1 <= waited <= units * topology.UNIT * 1000


def test_a_message_for_one_queue_does_not_reach_others_that_end_alike():
    to_b, to_a_b = topology.climb("", "b", 1.0), topology.climb("", "a.b", 1.0)
    bindings = [topology.ladder(climb, MAX)[-1] for climb in (to_b, to_a_b)]

    assert ["b"] == sorted(set(journey(to_b, bindings)[0]))
    assert ["a.b"] == sorted(set(journey(to_a_b, bindings)[0]))


@pytest.mark.parametrize("name", ["a.*", "#", "*", "tasks.#.x", "q" * 250, "ü" * 100])
def test_a_name_that_is_a_pattern_or_too_long_is_carried_as_a_digest(name):
    climb = topology.climb("", name, 1.0)
    plain = topology.climb("", "a.b", 1.0)

    last, _ = journey(plain, [topology.ladder(climb, MAX)[-1]])

    assert [name] == journey(climb, [])[0]
    assert ["a.b"] == last
    assert len(climb.routing_key.encode()) <= 255


def test_a_message_for_a_named_exchange_gets_its_own_key_back_in_a_queue_of_its_own():
    climb = topology.climb("orders", "paid.now", 3.0)

    (queue,), _ = journey(climb, [])

    (forwarder,) = [d for d in topology.ladder(climb, MAX) if d == DeclareQueue(queue)]
    assert "orders" == forwarder.arguments["x-dead-letter-exchange"]
    assert "paid.now" == forwarder.arguments["x-dead-letter-routing-key"]
    assert 0 == forwarder.arguments["x-message-ttl"]
    assert queue != topology.climb("orders", "paid.later", 3.0).queue
    assert queue == topology.climb("orders", "paid.now", 1000.0).queue


def test_a_forwarder_lives_longer_than_any_delay_that_needs_it():
    longest_short = topology.climb("x", "k", 2**25 * topology.UNIT - 1)
    shortest_long = topology.climb("x", "k", 2**25 * topology.UNIT)

    assert longest_short.forwarder.arguments["x-expires"] > 2**25 * topology.UNIT * 1000
    assert "x-expires" not in shortest_long.forwarder.arguments
    assert longest_short.queue != shortest_long.queue


@pytest.mark.parametrize("delay", [-5.0, 0.0, 0.06])
def test_less_than_a_unit_is_no_delay(delay):
    assert topology.climb("", "q", delay) is None


def test_a_delay_over_the_longest_is_refused():
    assert topology.climb("", "q", topology.LONGEST) is not None
    with pytest.raises(ValueError, match="over the longest"):
        topology.climb("", "q", topology.LONGEST + 1)


def test_only_the_levels_needed_are_declared_and_nothing_leads_to_what_comes_later():
    declared = topology.ladder(topology.climb("", "q", 1.0), MAX)

    exchanges = [d.name for d in declared if isinstance(d, DeclareExchange)]
    assert [f"taskq.delay.{level}" for level in range(5)] == exchanges[2:]
    made = set()
    for declaration in declared:
        if isinstance(declaration, DeclareQueue):
            assert {declaration.arguments.get("x-dead-letter-exchange", "")} <= made | {""}
        if isinstance(declaration, DeclareExchange | DeclareQueue):
            made.add(declaration.name)
        if isinstance(declaration, BindExchange):
            assert {declaration.source, declaration.target} <= made


def test_what_has_no_target_any_more_goes_to_a_queue_of_its_own():
    declared = topology.ladder(topology.climb("", "q", 1.0), MAX)

    (due,) = [d for d in declared if d == DeclareExchange("taskq.delay.due")]
    assert {"alternate-exchange": "taskq.undeliverable"} == dict(due.arguments)
    assert BindQueue("taskq.undeliverable", "taskq.undeliverable", "") in declared


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"taskq-route": ["x", "k"]}, ("x", "k")),
        ({}, ("arrived", "key")),
        ({"taskq-route": "x"}, ("arrived", "key")),
        ({"taskq-route": ["x"]}, ("arrived", "key")),
        ({"taskq-route": [b"x", "k"]}, ("arrived", "key")),
        ({"taskq-route": ["x", 1]}, ("arrived", "key")),
    ],
)
def test_the_first_route_is_restored_where_the_headers_tell_it(headers, expected):
    assert expected == topology.origin(headers, "arrived", "key")


def test_a_work_queue_is_quorum_with_dead_letters_that_wait_for_their_queue():
    dead, work = topology.declarations(Queue("q"), MAX)

    assert ("q.dead", "q") == (dead.name, work.name)
    assert {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "q.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": 100,
    } == dict(work.arguments)
    assert {
        "x-queue-type": "quorum",
        "x-max-length": MAX,
        "x-overflow": "drop-head",
        "x-delivery-limit": 1_000_000,
    } == dict(dead.arguments)


@pytest.mark.parametrize(
    "queue",
    [
        Queue("q", max_priority=9),
        Queue("q", arguments={"x-queue-type": "classic", "x-max-priority": 9}),
    ],
)
def test_a_classic_queue_has_dead_letters_and_nothing_that_only_quorum_queues_know(queue):
    assert {
        "x-queue-type": "classic",
        "x-max-priority": 9,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "q.dead",
    } == topology.arguments(queue, MAX)


def test_arguments_of_a_queue_win_over_those_of_its_kind():
    queue = Queue("q", arguments={"x-delivery-limit": 7, "x-dead-letter-routing-key": "other"})

    arguments = topology.arguments(queue, MAX)

    assert (7, "other") == (arguments["x-delivery-limit"], arguments["x-dead-letter-routing-key"])


def test_a_stream_gets_no_arguments_of_other_types():
    queue = Queue("q", arguments={"x-queue-type": "stream"})

    assert {"x-queue-type": "stream"} == topology.arguments(queue, MAX)


def test_a_reply_queue_expires_and_has_no_dead_letters():
    declared = topology.declarations(Queue("r", kind="reply"), MAX)

    assert (DeclareQueue("r"),) == declared
    assert {"x-queue-type": "classic", "x-expires": 600_000} == dict(declared[0].arguments)


def test_a_queue_of_a_named_exchange_is_bound_after_both_exist():
    queue = Queue("q", exchange="x", exchange_type="topic", routing_key="a.*")

    declared = topology.declarations(queue, MAX)

    assert (DeclareExchange("x"), BindQueue("q", "x", "a.*")) == declared[2:]
    assert "topic" == declared[2].type


def test_names_of_queues():
    assert "q.dead" == topology.dead("q")
    assert "p-q" == topology.physical("q", "p-")


@pytest.mark.parametrize(
    ("name", "kind", "durable"),
    [
        ("celeryev", "topic", True),
        ("celery.pidbox", "fanout", False),
        ("shop.pidbox", "fanout", False),
        ("reply.celery.pidbox", "direct", False),
        ("reply.celery", "topic", True),
    ],
)
def test_the_name_of_an_exchange_for_all_says_what_it_is(name, kind, durable):
    exchange = topology.told(name)

    assert (name, kind, durable) == (exchange.name, exchange.type, exchange.durable)


def test_a_log_is_a_stream_that_is_bound_to_what_it_keeps():
    route = topology.logged("taskq.control", "celery.pidbox")
    (log,) = route.declare

    queue, exchange, binding = topology.declarations(log, MAX)

    assert ("celery.pidbox", "", "taskq.control") == (route.exchange, route.routing_key, route.log)
    assert queue == DeclareQueue("taskq.control")
    assert {
        "x-queue-type": "stream",
        "x-max-age": "7D",
        "x-max-length-bytes": 20_000_000,
        "x-stream-max-segment-size-bytes": 1_000_000,
    } == queue.arguments
    assert ("celery.pidbox", "fanout", False) == (exchange.name, exchange.type, exchange.durable)
    assert ("taskq.control", "celery.pidbox") == (binding.queue, binding.exchange)


def test_work_is_in_no_log():
    assert Route("", "q", (Queue("q"),)).log is None
