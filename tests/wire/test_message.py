"""Messages: properties as bytes and back, for any properties and any bytes."""

import pika
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq.wire.message import (
    MAX_HEADER_BYTES,
    Message,
    Properties,
    decode_properties,
    encode_properties,
    priority,
)

short = st.text(max_size=60)
headers = st.dictionaries(short, st.none() | st.integers(-(2**31), 2**31 - 1) | st.text())

every_field = {
    "headers": headers,
    "content_type": short,
    "content_encoding": short,
    "delivery_mode": st.integers(0, 255),
    "priority": st.integers(0, 255),
    "correlation_id": short,
    "reply_to": short,
    "expiration": short,
    "message_id": short,
    "timestamp": st.integers(0, 2**64 - 1),
    "type": short,
    "user_id": short,
    "app_id": short,
    "cluster_id": short,
}
fields = st.fixed_dictionaries({}, optional=every_field)


@given(fields)
def test_properties_come_back_equal(given_fields):
    properties = Properties(**given_fields)

    assert decode_properties(encode_properties(properties)) == properties


@given(fields)
def test_properties_have_the_bytes_that_pika_gives_them(given_fields):
    if not given_fields.get("headers"):  # pika sends a table that is empty
        given_fields.pop("headers", None)

    pieces = pika.BasicProperties(**given_fields).encode()

    assert encode_properties(Properties(**given_fields)) == b"".join(pieces)


@given(st.binary(max_size=120))
@settings(max_examples=500)
def test_no_bytes_at_all_make_decoding_raise(raw):
    properties = decode_properties(raw)

    if properties.malformed is not None:
        assert properties == Properties(malformed=properties.malformed)


@given(fields, st.data())
@settings(max_examples=500)
def test_a_few_wrong_bytes_never_make_decoding_raise(given_fields, data):
    raw = bytearray(encode_properties(Properties(**given_fields)))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))

    assert isinstance(decode_properties(bytes(raw)), Properties)


@given(fields)
def test_properties_that_are_cut_short_or_go_on_are_malformed(given_fields):
    raw = encode_properties(Properties(**given_fields))

    for wrong in [raw[:end] for end in range(len(raw))] + [raw + b"\0"]:
        assert decode_properties(wrong).malformed is not None


def test_text_that_is_not_utf8_is_malformed_and_says_so():
    raw = encode_properties(Properties(app_id="xy")).replace(b"xy", b"\xff\xfe")

    assert "UTF-8" in decode_properties(raw).malformed


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"correlation_id": "i" * 256}, "correlation_id"),
        ({"priority": 256}, "priority"),
        ({"priority": -1}, "priority"),
        ({"timestamp": 2**64}, "timestamp"),
        ({"headers": {"x-mine": object()}}, "x-mine"),
        ({"headers": {"x-mine": "x" * MAX_HEADER_BYTES}}, "headers"),
    ],
)
def test_what_amqp_cannot_hold_is_refused_by_name(wrong, named):
    with pytest.raises(ValueError, match=named):
        encode_properties(Properties(**wrong))


def test_a_message_decodes_its_properties_when_they_are_read():
    written = Message.of(Properties(headers={"task": "t.add"}, priority=3), b"body")
    arrived = Message(written.raw, written.body)

    assert arrived == written
    assert arrived.properties.priority == 3
    assert arrived.headers == {"task": "t.add"}


def test_the_headers_of_a_malformed_message_are_empty():
    assert Message(b"\x20\x00\x00\x00\x00\x09garbage", b"").headers == {}


def test_a_copy_differs_only_in_what_was_changed():
    message = Message.of(Properties(headers={"a": 1}, correlation_id="c"), b"one")

    copy = message.copy(headers={"a": 2}, body=b"two")

    assert copy == Message.of(Properties(headers={"a": 2}, correlation_id="c"), b"two")
    assert copy.raw == encode_properties(copy.properties)
    assert message == Message.of(Properties(headers={"a": 1}, correlation_id="c"), b"one")


@given(
    st.builds(
        Properties,
        content_type=st.none() | st.text("abc/", max_size=20),
        content_encoding=st.none() | st.just("utf-8"),
        headers=st.dictionaries(st.text("ab", min_size=1, max_size=4), st.text("xy", max_size=9)),
        delivery_mode=st.none() | st.just(2),
        priority=st.none() | st.integers(0, 255),
        correlation_id=st.none() | st.just("id"),
    )
)
def test_the_priority_is_read_without_decoding_the_rest(properties: Properties) -> None:
    assert (properties.priority or 0) == priority(encode_properties(properties))
