"""Events: what Celery sends and reads, and every broken form of it."""

import json
from typing import Any

import pytest
from celery.events.event import Event as celerys_event
from celery.events.state import State as CelerysState
from hypothesis import given
from hypothesis import strategies as st

from taskq.errors import MessageMalformed
from taskq.wire import event
from taskq.wire.event import EventWriter, Where, read_events, routing_key
from taskq.wire.headers import TaskHeaders
from taskq.wire.message import Message, Properties

#: As they were seen on the wire from Celery 5.7.
CELERYS_HEARTBEAT = {
    "hostname": "w1@vm",
    "utcoffset": 0.0,
    "pid": 16262,
    "clock": 3,
    "freq": 2.0,
    "active": 0,
    "processed": 0,
    "loadavg": [0.24, 0.4, 0.27],
    "sw_ident": "py-celery",
    "sw_ver": "5.7.0",
    "sw_sys": "Linux",
    "timestamp": 1795317039.26096,
    "type": "worker-heartbeat",
}
CELERYS_RECEIVED = {
    "hostname": "w1@vm",
    "utcoffset": 0.0,
    "pid": 16262,
    "clock": 9,
    "uuid": "ID",
    "name": "w.add",
    "args": "(1, 2)",
    "kwargs": "{}",
    "root_id": "ID",
    "parent_id": None,
    "retries": 0,
    "eta": None,
    "expires": None,
    "timestamp": 1795317043.58,
    "type": "task-received",
}

ADD = TaskHeaders(task="w.add", id="ID", root_id="ID", argsrepr="(1, 2)", kwargsrepr="{}")

texts = st.text(max_size=20)
ids = st.text(min_size=1, max_size=20)


def made(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def writer(clock: int = 0) -> EventWriter:
    writer = EventWriter("w1@vm", 16262, 0.0)
    writer.hear(clock)
    return writer


def a_message(body: object, content_type: str = "application/json") -> Message:
    return Message.of(Properties(content_type=content_type), json.dumps(body).encode())


def test_a_received_task_reads_as_celerys_does() -> None:
    assert made(writer(8).received(ADD, 1795317043.58)) == CELERYS_RECEIVED


def test_a_heartbeat_reads_as_celerys_does() -> None:
    own = ("freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys")
    fields = {name: CELERYS_HEARTBEAT[name] for name in own}

    told = writer(2).event("worker-heartbeat", 1795317039.26096, fields)

    assert made(told) == CELERYS_HEARTBEAT


def test_a_message_is_labelled_as_celerys_is() -> None:
    properties = writer().single("{}").properties

    assert {"hostname": "w1@vm"} == properties.headers
    assert ("application/json", "utf-8", 1, 0) == (
        properties.content_type,
        properties.content_encoding,
        properties.delivery_mode,
        properties.priority,
    )


@given(ids, texts, texts, texts, st.floats(0, 1e9))
def test_any_text_comes_through(
    task_id: str, name: str, shown: str, who: str, runtime: float
) -> None:
    node = EventWriter(who, 1, -2.0)
    headers = ADD._replace(task=name, id=task_id, root_id=None, argsrepr=shown, shadow=None)

    message = node.message(
        node.received(headers, 1.5),
        node.started(task_id, 1.5),
        node.succeeded(task_id, 2.5, shown, runtime),
        node.sent(headers, 1.5, Where(None, name, shown)),
    )
    received, started, succeeded, sent = read_events(message)

    assert (task_id, name, shown, who) == tuple(
        received[field] for field in ("uuid", "name", "args", "hostname")
    )
    assert (task_id, -2.0) == (started["uuid"], started["utcoffset"])
    assert (shown, runtime) == (succeeded["result"], succeeded["runtime"])
    assert (None, name, shown) == (sent["queue"], sent["exchange"], sent["routing_key"])
    assert [1, 2, 3, 4] == [each["clock"] for each in (received, started, succeeded, sent)]


def test_another_zone_shows_in_all_that_is_made_from_then_on() -> None:
    node = writer()
    node.received(ADD, 1.0)
    node.move(-2.0)

    told = [node.received(ADD, 1.0), node.started("ID", 1.0), node.event("worker-online", 1.0, {})]

    assert [-2.0] * 3 == [made(text)["utcoffset"] for text in told]


def test_names_from_outside_do_not_fill_the_memory() -> None:
    node = writer()

    for number in range(2 * event._MOST_NAMES):
        node.received(ADD._replace(task=f"t{number}"), 1.0)

    assert len(node._received) <= event._MOST_NAMES


def test_moments_are_iso_text_and_what_no_date_can_say_is_null() -> None:
    told = made(writer().received(ADD._replace(eta=0.0, expires=1e15), 1.0))

    assert ("1970-01-01T00:00:00+00:00", None) == (told["eta"], told["expires"])


def test_celerys_state_reads_what_is_made() -> None:
    node, state = writer(), CelerysState()
    told = [
        node.sent(ADD, 1.0, Where("q", "", "q")),
        node.received(ADD, 2.0),
        node.started("ID", 3.0),
        node.succeeded("ID", 4.0, "3", 0.5),
    ]

    for each in read_events(node.message(*told)):
        state.event({**each, "local_received": each["timestamp"]})

    task = state.tasks["ID"]
    assert ("SUCCESS", "w.add", "(1, 2)", "3", 0.5) == (
        task.state,
        task.name,
        task.args,
        task.result,
        task.runtime,
    )


def test_what_celery_makes_is_read() -> None:
    told = {**celerys_event("task-failed", uuid="ID"), "hostname": "h", "clock": 1}

    assert [told] == read_events(a_message(told))
    assert [told, told] == read_events(a_message([told, told]))


@pytest.mark.parametrize(
    "changes",
    [
        {"type": None},
        {"type": 3},
        {"hostname": ["w"]},
        {"timestamp": "now"},
        {"timestamp": True},
        {"timestamp": float("nan")},
        {"timestamp": float("inf")},
        {"timestamp": 10**400},
        {"clock": "1"},
        {"clock": 1.5},
        {"uuid": None},
        {"uuid": 7},
    ],
)
def test_what_nobody_can_make_sense_of_is_left_out(changes: dict[str, Any]) -> None:
    body = json.dumps([CELERYS_RECEIVED | changes, CELERYS_RECEIVED, None, 3]).encode()

    message = Message.of(Properties(content_type="application/json"), body)

    try:
        assert [CELERYS_RECEIVED] == read_events(message)
    except MessageMalformed:  # the decoder takes no such number
        assert not isinstance(changes.get("timestamp", ""), str | bool)


@pytest.mark.parametrize("content_type", ["application/x-python-serialize", "text/plain"])
def test_only_json_is_opened(content_type: str) -> None:
    with pytest.raises(MessageMalformed):
        read_events(a_message(CELERYS_RECEIVED, content_type))


@given(st.binary(max_size=60))
def test_any_bytes_are_events_or_malformed(body: bytes) -> None:
    try:
        read_events(Message.of(Properties(content_type="application/json"), body))
    except MessageMalformed:
        pass


def test_routing_keys_are_celerys() -> None:
    assert "worker.elect.ack" == routing_key("worker-elect-ack")
