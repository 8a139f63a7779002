"""Known headers are read as unknown ones are: whatever the bytes, knowing changes nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq.errors import MessageMalformed
from taskq.wire import headers as wire
from taskq.wire.headers import TaskHeaders, read_headers
from taskq.wire.message import Labels, Message, decode_properties
from taskq.wire.task import encode

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
WORD = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)
MOMENT = st.none() | st.integers(0, 2**32).map(float)
LIMIT = st.none() | st.sampled_from([0.5, 30.0])

HEADERS = st.builds(
    TaskHeaders,
    task=st.sampled_from(["t.add", "t.mul", "\u00fc.\u00e4"]),
    id=WORD,
    root_id=WORD,
    parent_id=st.none() | WORD,
    argsrepr=TEXT.filter(bool),
    kwargsrepr=TEXT.filter(bool) | st.just("\x02idS\0\0\0\x01x"),
    retries=st.integers(0, 3),
    eta=MOMENT,
    expires=MOMENT,
    time_limit=LIMIT,
    soft_time_limit=LIMIT,
    ignore_result=st.none() | st.booleans(),
    group=st.none() | WORD,
    group_index=st.none() | st.integers(0, 9),
    shadow=st.none() | WORD,
    origin=st.none() | st.just("gen1@host"),
    crashes=st.integers(0, 2),
    extra=st.none() | st.just({"mine": "\x02idS"}),
)


def unread(message: Message) -> Message:
    return Message(message.raw, message.body)


def unknown(message: Message) -> TaskHeaders | str:
    """What is read by who knows nothing."""
    wire._known.clear()
    return read(message)


def read(message: Message) -> TaskHeaders | str:
    try:
        return read_headers(unread(message))
    except MessageMalformed as error:
        return error.reason


@given(first=HEADERS, second=HEADERS)
def test_what_was_written_is_read_back_known_or_not(first, second):
    wire._known.clear()

    for headers in (first, second, first, second):
        assert headers == read(encode(headers, (), {}))


@given(headers=HEADERS, reply_to=st.none() | WORD, priority=st.integers(0, 255))
def test_labels_are_the_properties(headers, reply_to, priority):
    raw = encode(headers, (), {}, reply_to=reply_to, priority=priority).raw

    found = decode_properties(raw)

    wanted = Labels("application/json", "utf-8", priority, headers.id, reply_to)
    assert found.malformed is None
    assert wanted == Message(raw, b"").labels
    assert wanted == Labels(*(getattr(found, name) for name in Labels._fields))


@settings(max_examples=500)
@given(headers=HEADERS, data=st.data())
def test_a_known_beginning_excuses_nothing_that_follows(headers, data):
    raw = encode(headers, (), {}).raw
    at = data.draw(st.integers(0, len(raw)))
    cut = data.draw(st.integers(0, 20))
    put = data.draw(st.binary(max_size=20) | st.just(b"\x03etaS\0\0\0\x01x"))
    message = Message(raw[:at] + put + raw[at + cut :], b"")
    wanted = unknown(message)

    read_headers(Message(raw, b""))

    assert wanted == read(message)
    assert wanted == read(message)


@given(raw=st.binary(max_size=80))
def test_labels_of_any_bytes_are_read_without_an_error(raw):
    labels = Message(raw, b"").labels

    found = decode_properties(raw)
    if found.malformed is None:
        assert tuple(labels) == tuple(getattr(found, name) for name in Labels._fields)


def test_no_more_beginnings_are_kept_than_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wire, "_MOST_KNOWN", 3)

    for number in range(9):
        read(encode(TaskHeaders(task=f"t{number}", id="i"), (), {}))

    assert 0 < len(wire._known) <= 3


def test_a_correlation_id_that_is_no_text_is_malformed_also_behind_a_known_beginning():
    raw = encode(TaskHeaders(task="t.add", id="abc"), (), {}).raw
    assert raw.endswith(b"\x03abc")

    read_headers(Message(raw, b""))
    with pytest.raises(MessageMalformed, match="a property is not UTF-8"):
        read_headers(Message(raw[:-3] + b"\xa1\xa1\xa1", b""))
