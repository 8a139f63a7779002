"""The codec: what it takes comes back equal, what it cannot is refused, no bytes break it."""

import bz2
import gzip
import json
import lzma
import math
import zlib
from collections import Counter, OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq.errors import ConfigurationError, ContentDisallowed, EncodeError, MessageMalformed
from taskq.wire import codec

BOTH = ("json", "msgpack")

offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
hashable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.datetimes(timezones=st.none() | offsets)
    | st.dates()
    | st.times(timezones=st.none() | offsets)
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.binary(max_size=20),
    lambda inner: st.frozensets(inner, max_size=3),
    max_leaves=4,
)
values = st.recursive(
    hashable | st.sets(hashable | st.tuples(hashable, hashable), max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def through(value, serializer):
    encoded = codec.dumps(value, serializer)
    return codec.loads(encoded.body, encoded.content_type, encoded.content_encoding, [serializer])


@given(values, st.sampled_from(BOTH))
@settings(max_examples=300)
def test_what_is_taken_comes_back_equal(value, serializer):
    assert through(value, serializer) == value


@given(st.binary(max_size=60), st.sampled_from(["application/json", "application/x-msgpack"]))
@settings(max_examples=500)
def test_random_bytes_are_a_value_or_malformed(body, mime):
    reason = "read"
    try:
        codec.loads(body, mime, None, BOTH)
    except MessageMalformed as error:
        reason = error.reason

    assert 0 < len(reason) < 300


@given(values, st.sampled_from(BOTH), st.data())
@settings(max_examples=300)
def test_a_few_wrong_bytes_are_a_value_or_malformed(value, serializer, data):
    encoded = codec.dumps(value, serializer)
    body = bytearray(encoded.body)
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        codec.loads(bytes(body), encoded.content_type, None, BOTH)
    except MessageMalformed:
        pass


def test_the_labels_are_those_of_celery():
    assert codec.dumps([]) == codec.Encoded(b"[]", "application/json", "utf-8")
    assert codec.dumps([], "msgpack") == codec.Encoded(b"\x90", "application/x-msgpack", "binary")


# -- Celery's envelopes --------------------------------------------------------------------------

ENVELOPES = [
    {"__type__": "datetime", "__value__": "2024-01-02T03:04:05.000678+00:00"},
    {
        "d": {"__type__": "date", "__value__": "2024-01-02"},
        "t": {"__type__": "time", "__value__": "01:02:03"},
        "D": {"__type__": "decimal", "__value__": "1.10"},
        "u": {"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000005"}},
        "b": {"__type__": "bytes", "__value__": "abc"},
        "bb": {"__type__": "base64", "__value__": "/wA="},
    },
]
OPENED = [
    datetime(2024, 1, 2, 3, 4, 5, 678, UTC),
    {
        "d": date(2024, 1, 2),
        "t": time(1, 2, 3),
        "D": Decimal("1.10"),
        "u": UUID(int=5),
        "b": b"abc",
        "bb": b"\xff\x00",
    },
]


def test_envelopes_are_written_as_celery_writes_them():
    assert json.loads(codec.dumps(OPENED).body) == ENVELOPES


def test_envelopes_are_read_as_celery_writes_them():
    body = json.dumps(ENVELOPES).encode()

    found = codec.loads(body, "application/json", "utf-8", ["json"])

    assert found == OPENED
    assert str(found[1]["D"]) == "1.10"


def test_the_envelope_of_a_set_is_our_own():
    assert json.loads(codec.dumps({7}).body) == {"__type__": "set", "__value__": [7]}


def test_a_date_with_a_trailing_z_is_read():
    body = b'{"__type__": "datetime", "__value__": "2024-01-02T03:04:05Z"}'

    assert codec.loads(body, "application/json", None, ["json"]) == datetime(
        2024, 1, 2, 3, 4, 5, tzinfo=UTC
    )


def test_an_object_with_more_keys_than_an_envelope_is_plain():
    value = {"__type__": "date", "__value__": "2024-01-02", "more": 1}

    assert [through(value, name) for name in BOTH] == [value, value]


@pytest.mark.parametrize(
    "body",
    [
        b'{"__type__": "complex", "__value__": "1j"}',
        b'{"__type__": [], "__value__": "1j"}',
        b'{"__type__": "datetime", "__value__": "yesterday"}',
        b'{"__type__": "datetime", "__value__": 5}',
        b'{"__type__": "decimal", "__value__": "one"}',
        b'{"__type__": "uuid", "__value__": "00000000000000000000000000000005"}',
        b'{"__type__": "uuid", "__value__": {"hex": "5"}}',
        b'{"__type__": "base64", "__value__": "*"}',
        b'{"__type__": "bytes", "__value__": 1}',
        b'{"__type__": "set", "__value__": [{}]}',
        b'{"__type__": "set", "__value__": 1}',
    ],
)
def test_a_wrong_envelope_is_malformed(body):
    for mime, content in (
        ("application/json", body),
        ("application/x-msgpack", msgpack.packb(json.loads(body))),
    ):
        with pytest.raises(MessageMalformed):
            codec.loads(content, mime, None, BOTH)


# -- what is refused at the call -----------------------------------------------------------------


class Colour(Enum):
    RED = 1


class Level(IntEnum):
    HIGH = 9


class Name(str):
    __slots__ = ()


class Order(pydantic.BaseModel):
    number: int = 1


@dataclass
class Line:
    number: int = 1


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize("serializer", BOTH)
@pytest.mark.parametrize(
    ("value", "named", "remedy"),
    [
        (timedelta(1), "a timedelta", "total_seconds"),
        (Colour.RED, "a Colour", "its value"),
        (Order(), "an Order", "model_dump"),
        (Line(), "a Line", "asdict"),
        (Point(1, 2), "a Point", "list"),
        (Path("/"), "Path", "send None, bool"),
        (object(), "an object", "send None, bool"),
        (1j, "a complex", "send None, bool"),
        (range(3), "a range", "send None, bool"),
        ({1: "one"}, "key 1 is an int", "str keys"),
        ({None: 1}, "key None", "str keys"),
        ({(1, 2): 1}, "a tuple", "str keys"),
        ({"__type__": "date", "__value__": "x"}, "envelope", "rename"),
        ("half \ud83d", "surrogate", "bytes"),
        ({"\udc00": 1}, "surrogate", "bytes"),
        (10**5000, "integer", "bytes|text"),
        (time(1, tzinfo=ZoneInfo("Europe/Berlin")), "offset", "datetime"),
        ([{("t",)}, {Point(1, 2)}], "a Point", "list"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else type(value).__name__,
)
def test_what_would_not_come_back_equal_is_refused_with_its_path(value, named, remedy, serializer):
    with pytest.raises(EncodeError, match=remedy) as caught:
        codec.dumps([[0, {"when": value}], {}], serializer, ("args", "kwargs"))

    assert named in str(caught.value)
    assert str(caught.value).startswith("args[1]['when']")


def test_integers_beyond_64_bits_are_for_json_only():
    assert through(2**64, "json") == 2**64
    with pytest.raises(EncodeError, match=r"value\['n'\].*64 bits"):
        codec.dumps({"n": 2**64}, "msgpack")


@pytest.mark.parametrize("serializer", BOTH)
@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"k": value}])
def test_values_that_are_nested_too_deep_are_refused(wrap, serializer):
    value = deepest = None
    for depth in range(2_000):
        value = wrap(value)
        deepest = value if depth + 1 == codec.MAX_DEPTH else deepest

    assert through(deepest, serializer) == deepest
    with pytest.raises(EncodeError, match="deep"):
        codec.dumps(value, serializer)


@pytest.mark.parametrize("serializer", BOTH)
def test_a_value_that_holds_itself_is_refused(serializer):
    endless = []
    endless.append(endless)

    with pytest.raises(EncodeError, match="deep"):
        codec.dumps(endless, serializer)


@pytest.mark.parametrize("serializer", BOTH)
def test_subclasses_that_compare_equal_are_taken(serializer):
    value = [Level.HIGH, Name("n"), OrderedDict(a=Level.HIGH), Counter("aab"), bytearray(b"\xff")]

    assert through(value, serializer) == value


@pytest.mark.parametrize("serializer", BOTH)
def test_tuples_come_back_as_lists_but_in_sets_as_tuples(serializer):
    value = ((1, (2,)), {(1, (2, frozenset({3})))})

    assert through(value, serializer) == [[1, [2]], {(1, (2, frozenset({3})))}]


@pytest.mark.parametrize("serializer", BOTH)
def test_nan_and_infinity_pass(serializer):
    nan, infinity = through([float("nan"), float("inf")], serializer)

    assert math.isnan(nan)
    assert infinity == float("inf")


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "", "application/json"])
def test_an_unknown_serializer_is_refused_and_the_known_are_named(serializer):
    with pytest.raises(ConfigurationError, match="json, msgpack"):
        codec.dumps(1, serializer)


# -- what is refused on arrival ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mime", "accept"),
    [
        ("application/json", ["msgpack"]),
        ("application/json", []),
        ("application/x-python-serialize", ["json", "msgpack"]),
        (None, ["json", "msgpack"]),
        ("", ["json"]),
        ("x" * 5000, ["json"]),
    ],
)
def test_content_that_is_not_listed_is_disallowed(mime, accept):
    with pytest.raises(ContentDisallowed) as caught:
        codec.loads(b"1", mime, None, accept)

    assert len(caught.value.reason) < 300


@pytest.mark.parametrize("accept", [["json"], ["application/json"], ("msgpack", "json"), {"json"}])
@pytest.mark.parametrize(
    "mime", ["application/json", "Application/JSON", "application/json; charset=utf-8"]
)
def test_content_is_listed_by_name_or_mime_type(mime, accept):
    assert codec.loads(b"1", mime, None, iter(accept)) == 1


def test_listed_content_without_a_decoder_is_malformed_and_not_unpickled():
    with pytest.raises(MessageMalformed, match="no decoder"):
        codec.loads(b"cos\nsystem\n.", "application/x-python-serialize", None, [
            "application/x-python-serialize"
        ])  # fmt: skip


@pytest.mark.parametrize(
    ("mime", "body"),
    [
        ("application/json", b""),
        ("application/json", b"[1"),
        ("application/json", b"[1] 2"),
        ("application/json", b"\xff\xfe"),
        ("application/json", b"[" * 100_000),
        ("application/json", b'{"a":' * 100_000),
        ("application/json", b"9" * 5_000),
        ("application/x-msgpack", b""),
        ("application/x-msgpack", b"\x92\x01"),
        ("application/x-msgpack", b"\x01\x02"),
        ("application/x-msgpack", b"\xa1\xff"),
        ("application/x-msgpack", b"\xc1"),
        ("application/x-msgpack", b"\x91" * 100_000),
        ("application/x-msgpack", b"\xdd\xff\xff\xff\xff"),
        ("application/x-msgpack", b"\x81\x01\x02"),
        ("application/x-msgpack", b"\xd4\x05\x00"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_body_that_is_not_what_it_says_is_malformed(mime, body):
    with pytest.raises(MessageMalformed) as caught:
        codec.loads(body, mime, "utf-8", BOTH)

    assert len(caught.value.reason) < 300


def test_a_timestamp_of_msgpack_is_a_datetime():
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)

    body = msgpack.packb(moment, datetime=True)

    assert codec.loads(body, "application/x-msgpack", None, BOTH) == moment


# -- compression ---------------------------------------------------------------------------------

HEADERS = {
    "gzip": "application/x-gzip",
    "zlib": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "bzip": "application/x-bz2",
    "lzma": "application/x-lzma",
    "xz": "application/x-lzma",
}


@given(st.binary(), st.sampled_from(sorted(HEADERS)))
def test_what_is_compressed_comes_back(body, method):
    compressed, header = codec.compress(body, method)

    assert header == HEADERS[method]
    assert codec.decompress(compressed, header, len(body)) == body
    assert codec.decompress(compressed, method, len(body)) == body


def test_compression_has_celerys_formats():
    body = b"abc" * 100

    assert zlib.decompress(codec.compress(body, "gzip")[0]) == body
    assert bz2.decompress(codec.compress(body, "bzip2")[0]) == body
    assert lzma.decompress(codec.compress(body, "xz")[0]) == body


def test_real_gzip_is_read_too():
    assert codec.decompress(gzip.compress(b"abc"), "application/x-gzip", 3) == b"abc"


@pytest.mark.parametrize("method", sorted(HEADERS))
def test_a_body_larger_than_the_limit_is_never_unpacked_whole(method):
    bomb, header = codec.compress(b"\0" * 10_000_000, method)

    with pytest.raises(MessageMalformed, match="larger than 1000 bytes"):
        codec.decompress(bomb, header, 1_000)
    with pytest.raises(MessageMalformed, match="larger"):
        codec.decompress(bomb, header, 9_999_999)


@pytest.mark.parametrize("method", sorted(HEADERS))
def test_what_is_not_compressed_as_it_says_is_malformed(method):
    compressed, header = codec.compress(b"abc", method)

    for wrong in (b"", b"abc", compressed[:-1], compressed + b"more"):
        with pytest.raises(MessageMalformed):
            codec.decompress(wrong, header, 1_000)


def test_an_unknown_compression_is_malformed_on_arrival_and_refused_at_the_call():
    with pytest.raises(MessageMalformed, match="application/zstd"):
        codec.decompress(b"abc", "application/zstd", 1_000)
    with pytest.raises(ConfigurationError, match="gzip"):
        codec.compress(b"abc", "zstd")
