"""The reader and the writer of frames, against pika's own codec and against broken streams."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import frame, spec
from pika.exceptions import InvalidFrameError

from taskq.broker import fastpath
from taskq.broker.fastpath import Reader
from taskq.errors import ConfigurationError

FRAME_MAX = 64


def pieces(frames: bytes) -> list[bytes]:
    """*frames*, one by one."""
    cut = []
    while frames:
        (size,) = struct.unpack_from(">I", frames, 3)
        cut.append(frames[: size + 8])
        frames = frames[size + 8 :]
    return cut


def raw_of(headers: dict) -> bytes:
    return b"".join(spec.BasicProperties(headers=headers, correlation_id="c").encode())


def message_frames(
    channel: int, method: spec.Basic.Deliver, raw: bytes, body: bytes
) -> list[bytes]:
    return [
        frame.Method(channel, method).marshal(),
        *pieces(fastpath.content(channel, raw, body, FRAME_MAX)),
    ]


class Ears:
    """A reader, and everything it handed out in order."""

    def __init__(self, channels=(1, 2, 3)) -> None:
        self.heard: list[tuple] = []
        self.reader = Reader(lambda whole: self.heard.append(("frame", whole)))
        for channel in channels:
            self.reader.deliveries[channel] = self.hear("deliver", channel)
            self.reader.returns[channel] = self.hear("return", channel)
            self.reader.confirms[channel] = self.hear("confirm", channel)

    def hear(self, kind, channel):
        def note(*arguments):
            *rest, last = arguments
            if kind != "confirm":
                rest, last = [*rest, last.raw], last.body
            self.heard.append((kind, channel, *rest, last))

        return note

    def take(self, *chunks: bytes) -> list[tuple]:
        for chunk in chunks:
            self.reader.feed(chunk)
            self.reader.read()
        return self.heard


names = st.text(max_size=12)
bodies = st.binary(max_size=3 * FRAME_MAX)
tags = st.integers(1, 2**64 - 1)


@st.composite
def events(draw):
    """One thing that the broker sends: its frames, and what the reader should make of them."""
    channel = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["deliver", "return", "confirm", "heartbeat", "method"]))
    exchange, key = draw(names), draw(names)
    raw, body = raw_of({"n": draw(st.text(max_size=4))}), draw(bodies)
    if kind == "deliver":
        tag, again = draw(tags), draw(st.booleans())
        method = spec.Basic.Deliver("ctag", tag, again, exchange, key)
        expected = (
            "deliver",
            channel,
            b"ctag",
            tag,
            again,
            exchange.encode(),
            key.encode(),
            raw,
            body,
        )
        return message_frames(channel, method, raw, body), expected
    if kind == "return":
        method = spec.Basic.Return(312, "NO_ROUTE", exchange, key)
        expected = ("return", channel, "NO_ROUTE", exchange.encode(), key.encode(), raw, body)
        return message_frames(channel, method, raw, body), expected
    if kind == "confirm":
        tag, multiple, taken = draw(tags), draw(st.booleans()), draw(st.booleans())
        method = spec.Basic.Ack(tag, multiple) if taken else spec.Basic.Nack(tag, multiple)
        return [frame.Method(channel, method).marshal()], ("confirm", channel, tag, multiple, taken)
    if kind == "heartbeat":
        whole = frame.Heartbeat().marshal()
    else:
        whole = frame.Method(channel, spec.Basic.ConsumeOk("ctag")).marshal()
    return [whole], ("frame", whole)


@given(st.lists(events(), max_size=12), st.data())
def test_where_the_stream_is_cut_makes_no_difference(sent, data):
    stream = b"".join(whole for frames, _ in sent for whole in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    heard = Ears().take(*chunks)

    assert [expected for _, expected in sent] == heard


@given(st.lists(events(), max_size=6))
@settings(max_examples=20)
def test_bytes_that_come_one_by_one_are_enough(sent):
    stream = b"".join(whole for frames, _ in sent for whole in frames)

    heard = Ears().take(*(stream[i : i + 1] for i in range(len(stream))))

    assert [expected for _, expected in sent] == heard


@given(st.lists(events(), max_size=8), st.binary(max_size=200), st.data())
def test_broken_bytes_are_an_invalid_frame_or_wait_for_more_and_nothing_else(sent, noise, data):
    stream = b"".join(whole for frames, _ in sent for whole in frames)
    at = data.draw(st.integers(0, len(stream)))
    ears = Ears()

    try:
        ears.take(stream[:at] + noise + stream[at:])
    except InvalidFrameError:
        pass

    assert len(ears.heard) <= len(sent) + len(noise)


def test_messages_of_two_channels_may_arrive_interleaved():
    one = message_frames(1, spec.Basic.Deliver("a", 1, False, "", "q"), raw_of({}), b"x" * 100)
    two = message_frames(2, spec.Basic.Deliver("b", 1, False, "", "q"), raw_of({}), b"y" * 100)
    mixed = [whole for pair in zip(one, two, strict=True) for whole in pair]

    heard = Ears().take(b"".join(mixed))

    assert [b"x" * 100, b"y" * 100] == [event[-1] for event in heard]


def test_a_message_for_a_channel_that_nobody_reads_is_dropped():
    stream = b"".join(
        message_frames(9, spec.Basic.Deliver("a", 1, False, "", "q"), raw_of({}), b"body")
    )

    assert [] == Ears().take(stream)


def test_properties_longer_than_a_frame_should_be_are_read():
    raw = raw_of({"long": "x" * 200_000})
    header = struct.pack(">BHIHHQ", 2, 1, 12 + len(raw), 60, 0, 0) + raw + b"\xce"
    method = frame.Method(1, spec.Basic.Deliver("a", 1, False, "", "q")).marshal()

    (heard,) = Ears().take(method + header)

    assert raw == heard[-2]


def test_a_callable_may_read_on():
    ears = Ears()
    frames = [
        b"".join(message_frames(1, spec.Basic.Deliver("a", n, False, "", "q"), raw_of({}), b""))
        for n in range(1, 5)
    ]
    got = []

    def deliver(_consumer, tag, *_rest):
        got.append(tag)
        if tag == 1:
            ears.reader.feed(frames[3][10:])
            ears.reader.read()
            got.append("back")

    ears.reader.deliveries[1] = deliver
    ears.take(b"".join(frames[:3]) + frames[3][:10])

    assert [1, 2, 3, 4, "back"] == got


def test_a_callable_may_end_the_reading():
    ears = Ears()
    frames = [
        b"".join(message_frames(1, spec.Basic.Deliver("a", n, False, "", "q"), raw_of({}), b""))
        for n in range(1, 4)
    ]
    got = []

    def deliver(_consumer, tag, *_rest):
        got.append(tag)
        ears.reader.clear()

    ears.reader.deliveries[1] = deliver
    ears.take(b"".join(frames))

    assert [1] == got


DELIVER = frame.Method(1, spec.Basic.Deliver("a", 1, False, "", "q")).marshal()
HEADER, BODY = pieces(fastpath.content(1, raw_of({}), b"body", FRAME_MAX))


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "no frame of AMQP"),
        (b"AMQP\x00\x00\x09\x01", "no frame of AMQP"),
        (struct.pack(">BHI", 1, 1, 1 << 30) + b"\0", "no frame of AMQP"),
        (DELIVER[:-1] + b"\0", "does not end"),
        (HEADER, "unexpected content header"),
        (BODY, "unexpected body"),
        (DELIVER + BODY, "unexpected body"),
        (DELIVER + HEADER + HEADER, "unexpected content header"),
        (DELIVER + DELIVER, "middle of a message"),
        (DELIVER + HEADER + DELIVER, "middle of a message"),
        (DELIVER + HEADER + struct.pack(">BHI", 3, 1, 5) + b"12345\xce", "unexpected body"),
        (struct.pack(">BHI", 1, 1, 2) + b"\0\0\xce", "without a method"),
        (struct.pack(">BHIIB", 1, 1, 5, 0x3C0050, 0) + b"\xce", "confirm that is cut"),
        (struct.pack(">BHIIB", 1, 1, 5, 0x3C003C, 9) + b"\xce" + HEADER + BODY, "cut method"),
    ],
)
def test_a_frame_that_should_not_be_there_is_named(stream, words):
    with pytest.raises(InvalidFrameError, match=words):
        Ears().take(stream)


@given(names, names, st.booleans(), bodies)
def test_pika_reads_what_is_published(exchange, key, mandatory, body):
    raw = raw_of({"a": 1})

    content = fastpath.content(7, raw, body, FRAME_MAX)
    sent = fastpath.publish_method(7, exchange, key, mandatory) + content

    method, header, *fragments = [frame.decode_frame(whole)[1] for whole in pieces(sent)]
    assert (exchange, key, mandatory) == (
        method.method.exchange, method.method.routing_key, method.method.mandatory
    )  # fmt: skip
    assert (len(body), {"a": 1}, "c") == (
        header.body_size, header.properties.headers, header.properties.correlation_id
    )  # fmt: skip
    assert body == b"".join(fragment.fragment for fragment in fragments)
    assert all(len(whole) <= FRAME_MAX for whole in pieces(content))
    assert {7} == {decoded.channel_number for decoded in (method, header, *fragments)}


@given(tags, st.booleans())
def test_pika_reads_what_is_settled(tag, flag):
    acked = frame.decode_frame(fastpath.ack(3, tag, multiple=flag))[1].method
    rejected = frame.decode_frame(fastpath.reject(3, tag, requeue=flag))[1].method

    assert (spec.Basic.Ack, tag, flag) == (type(acked), acked.delivery_tag, acked.multiple)
    assert (spec.Basic.Reject, tag, flag) == (
        type(rejected), rejected.delivery_tag, rejected.requeue
    )  # fmt: skip


def test_what_no_frame_can_hold_is_refused():
    with pytest.raises(ValueError, match="AMQP allows 255"):
        fastpath.publish_method(1, "", "k" * 256, True)
    with pytest.raises(ValueError, match="do not fit a frame"):
        fastpath.content(1, b"\0" * FRAME_MAX, b"", FRAME_MAX)


def test_the_installed_pika_is_known():
    fastpath.require_known_pika()


@pytest.mark.parametrize("version", ["1.3.2", "1.5.0", "2.0.0"])
def test_another_pika_is_refused_by_name(version):
    with pytest.raises(ConfigurationError, match=rf"knows pika 1\.4\.x and found pika {version}"):
        fastpath.require_known_pika(version)


def test_a_pika_without_the_internals_is_refused_by_their_names(monkeypatch):
    monkeypatch.delattr(frame, "decode_frame")

    with pytest.raises(ConfigurationError, match=r"without decode_frame"):
        fastpath.require_known_pika()
