"""Requests and replies: those that real kombu makes, and every broken form of them."""

import json
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection, Consumer

from taskq.errors import ContentDisallowed, EncodeError, MessageMalformed
from taskq.wire import control
from taskq.wire.control import Reply, Request, read_reply, read_request, write_reply, write_request
from taskq.wire.message import Message, Properties

#: Turns kombu's control box loose on a broker in memory and returns the only message it sent.
Capture = Callable[..., Message]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
KEYS = ("method", "arguments", "destination", "pattern", "matcher", "ticket", "reply_to")

REQUEST = {
    "method": "ping",
    "arguments": {},
    "destination": None,
    "pattern": None,
    "matcher": None,
    "ticket": "T",
    "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "OID"},
}


def a_message(body: object, **headers: Any) -> Message:
    properties = Properties(headers=headers, content_type="application/json")
    return Message.of(properties, json.dumps(body).encode())


def as_kombu_made(received: Any) -> Message:
    """What kombu's own consumer got, as it would have come over AMQP."""
    properties = Properties(
        headers=received.headers,
        content_type=received.content_type,
        content_encoding=received.content_encoding,
        delivery_mode=received.properties["delivery_mode"],
        priority=received.properties["priority"],
    )
    body = received.body if isinstance(received.body, bytes) else received.body.encode()
    return Message.of(properties, body)


def opened(message: Message) -> tuple[Properties, Any]:
    """All there is to a message, but for the spaces in its JSON."""
    is_json = message.properties.content_type == "application/json"
    return message.properties, (json.loads if is_json else msgpack.unpackb)(message.body)


@pytest.fixture(params=["json", "msgpack"])
def capture(request: pytest.FixtureRequest) -> Capture:
    app = Celery("test", broker="memory://", set_as_current=False)
    app.conf.task_serializer = request.param
    app.conf.accept_content = ["json", "msgpack"]

    def send(command: str, arguments: dict[str, Any] | None = None, **options: Any) -> Message:
        got: list[Any] = []
        with Connection("memory://") as connection:
            mailbox = app.control.mailbox(connection)
            queue = mailbox.get_queue("w1@vm")(connection.channel())
            queue.declare()
            queue.purge()
            consumer = Consumer(
                connection.channel(),
                [queue],
                accept=["json", "msgpack"],
                on_message=got.append,
                no_ack=True,
            )
            with consumer:
                mailbox._publish(command, arguments, **options)
                connection.drain_events(timeout=5)
        (received,) = got
        return as_kombu_made(received)

    return send


def test_a_request_of_kombus_is_read(capture: Capture) -> None:
    message = capture(
        "rate_limit",
        {"task_name": "tasks.add", "rate_limit": "5/s"},
        destination=["w1@vm", "w2@vm"],
        reply_ticket="T",
        timeout=2.0,
    )

    request = read_request(message)

    assert ("rate_limit", {"task_name": "tasks.add", "rate_limit": "5/s"}) == request[:2]
    assert ("w1@vm", "w2@vm") == request.destination
    assert (None, None, "T") == (request.pattern, request.matcher, request.ticket)
    assert request.reply_to is not None
    assert "reply.celery.pidbox" == request.reply_to[0]
    assert request.clock == 1
    assert request.expires > 1e9
    assert message.properties.content_type in ("application/json", "application/x-msgpack")
    assert request.serializer == ("json" if b'"method"' in message.body else "msgpack")


def test_a_bare_broadcast_of_kombus_is_read(capture: Capture) -> None:
    request = read_request(capture("enable_events", None, pattern="w*", matcher="glob"))

    assert ("enable_events", {}, None, "w*", "glob", None, None) == request[:7]
    assert request.expires == 0


def test_a_request_is_the_message_that_kombu_makes(capture: Capture) -> None:
    arguments = {"task_id": ["a", "b"], "terminate": True}
    kombus = capture("revoke", arguments, destination=["w1@vm"], reply_ticket="T", timeout=1.0)

    ours = write_request(read_request(kombus))

    assert opened(ours) == opened(kombus)
    assert (2, 0) == (ours.properties.delivery_mode, ours.properties.priority)


def test_a_broadcast_is_the_message_that_kombu_makes(capture: Capture) -> None:
    kombus = capture("shutdown", {})

    assert opened(write_request(read_request(kombus))) == opened(kombus)


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_kombu_reads_our_replies(serializer: str) -> None:
    app = Celery("test", broker="memory://", set_as_current=False)
    app.conf.accept_content = [serializer]
    said = {"ok": ["pong", None, 1.5]}
    message = write_reply("w1@vm", said, "T", 7, serializer)

    with Connection("memory://") as connection:
        mailbox = app.control.mailbox(connection)
        channel = connection.default_channel
        queue = mailbox.reply_queue(channel)
        queue.declare()
        properties = message.properties
        connection.Producer().publish(
            message.body,
            exchange=queue.exchange,
            routing_key=queue.routing_key,
            headers=dict(properties.headers),
            content_type=properties.content_type,
            content_encoding=properties.content_encoding,
        )
        answers = mailbox._collect("T", limit=1, timeout=5)

    assert [{"w1@vm": said}] == answers
    assert mailbox.clock.value > 7


@pytest.mark.parametrize("value", [None, {"ok": "pong"}, [], "text", 3, {"clock": 3}])
@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_a_reply_is_read_as_it_was_written(value: object, serializer: str) -> None:
    message = write_reply("w1@vm", value, "T", 3, serializer)

    assert Reply("T", "w1@vm", value, 3) == read_reply(message)
    assert 1 == message.properties.delivery_mode


def test_what_cannot_be_sent_is_said_at_once() -> None:
    with pytest.raises(EncodeError):
        write_request(Request("revoke", {"task_id": object()}))
    with pytest.raises(EncodeError):
        write_reply("w1@vm", object(), "T", 0)


@pytest.mark.parametrize("void", [None, [], "", 0, {}])
def test_void_arguments_are_none(void: object) -> None:
    assert read_request(a_message(REQUEST | {"arguments": void})).arguments == {}


def test_what_need_not_be_there_may_be_missing() -> None:
    assert Request("ping", {}) == read_request(a_message({"method": "ping"}))


def test_keys_that_nobody_knows_are_passed_over() -> None:
    assert "ping" == read_request(a_message(REQUEST | {"colour": "red"})).method


def test_nobody_named_means_all() -> None:
    assert read_request(a_message(REQUEST | {"destination": []})).destination is None


@pytest.mark.parametrize(
    "changes",
    [
        {"method": None},
        {"method": ""},
        {"method": 3},
        {"method": "ping\n"},
        {"method": "x" * 256},
        {"method": "\ud800"},
        {"arguments": "all"},
        {"arguments": [1]},
        {"destination": "w1@vm"},
        {"destination": [3]},
        {"destination": ["x" * 256]},
        {"destination": ["w"] * 10_001},
        {"pattern": 3},
        {"pattern": "x" * 256},
        {"matcher": []},
        {"ticket": 3},
        {"reply_to": "reply.celery.pidbox"},
        {"reply_to": {"exchange": "reply.celery.pidbox"}},
        {"reply_to": {"exchange": "", "routing_key": "OID"}},
        {"reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "\x00"}},
        {"reply_to": {"exchange": "x" * 256, "routing_key": "OID"}},
    ],
)
def test_a_request_that_breaks_the_form_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MessageMalformed) as raised:
        read_request(a_message(REQUEST | changes))

    assert len(raised.value.reason) < 200


@pytest.mark.parametrize("body", [None, [], [REQUEST], "ping", 3, {}])
def test_what_is_no_mapping_is_no_request(body: object) -> None:
    with pytest.raises(MessageMalformed):
        read_request(a_message(body))


@pytest.mark.parametrize("body", [None, [], "w", {}, {"a": 1, "b": 2}, {"": 1}, {"w\n": 1}])
def test_what_is_not_from_one_node_is_no_reply(body: object) -> None:
    with pytest.raises(MessageMalformed):
        read_reply(a_message(body))


def test_arguments_must_have_names() -> None:
    body = msgpack.packb(REQUEST | {"arguments": {b"task_id": "a"}})

    with pytest.raises(MessageMalformed, match="named"):
        read_request(Message.of(Properties(content_type="application/x-msgpack"), body))


def test_more_than_any_command_takes_is_not_opened() -> None:
    body = json.dumps(REQUEST | {"arguments": {"x": "x" * control._MOST_BYTES}}).encode()

    with pytest.raises(MessageMalformed, match="limit"):
        read_request(Message.of(Properties(content_type="application/json"), body))


@pytest.mark.parametrize("content_type", ["application/x-python-serialize", "text/plain", None])
def test_nothing_else_than_json_and_msgpack_is_opened(content_type: str | None) -> None:
    message = Message.of(Properties(content_type=content_type), json.dumps(REQUEST).encode())

    for read in (read_request, read_reply):
        with pytest.raises(ContentDisallowed):
            read(message)


@pytest.mark.parametrize("clock", [None, -1, 1 << 53, 1.5, "1", True, b"1", [1]])
def test_a_clock_that_nobody_counted_up_to_is_none(clock: object) -> None:
    assert 0 == read_request(a_message(REQUEST, clock=clock)).clock
    assert 0 == read_reply(a_message({"w": 1}, clock=clock)).clock


@pytest.mark.parametrize("expires", [None, -1, "soon", 1 << 60, [1]])
def test_a_moment_that_is_none_never_comes(expires: object) -> None:
    assert 0.0 == read_request(a_message(REQUEST, expires=expires)).expires


def test_nested_values_of_any_depth_are_requests_or_malformed() -> None:
    for depth in (50, 900, 960, 980, 990, 1000, 2000):
        nested = "[" * depth + "]" * depth
        for key in KEYS:
            message = Message.of(
                Properties(content_type="application/json"),
                f'{{"method": "x", "{key}": {nested}}}'.encode(),
            )
            with pytest.raises(MessageMalformed):
                read_request(message)


@given(st.binary(max_size=80), st.sampled_from(["application/json", "application/x-msgpack"]))
def test_any_bytes_are_a_request_or_malformed(body: bytes, content_type: str) -> None:
    message = Message.of(Properties(content_type=content_type), body)
    for read in (read_request, read_reply):
        try:
            read(message)
        except MessageMalformed:
            pass


@given(st.binary(max_size=80))
def test_any_properties_are_those_of_a_request_or_malformed(raw: bytes) -> None:
    for read in (read_request, read_reply):
        try:
            read(Message(raw, json.dumps(REQUEST).encode()))
        except MessageMalformed:
            pass


@given(
    st.dictionaries(st.sampled_from(KEYS), json_values),
    st.sampled_from(["application/json", "application/x-msgpack"]),
)
def test_any_value_of_any_key_is_a_request_or_malformed(
    changes: dict[str, Any], content_type: str
) -> None:
    try:
        pack = json.dumps if content_type == "application/json" else msgpack.packb
        packed = pack(REQUEST | changes)
    except (OverflowError, UnicodeEncodeError):
        return  # no such number, or text, in msgpack
    body = packed if isinstance(packed, bytes) else packed.encode()

    try:
        request = read_request(Message.of(Properties(content_type=content_type), body))
    except MessageMalformed:
        return

    assert request == read_request(write_request(request)) or "nan" in repr(request)
