"""Field tables: what is encoded comes back, and no bytes at all break the decoder."""

import struct
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import data as pika_data

from taskq.wire import table

names = st.text(max_size=60)
plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31 - 1)
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
scalars = (
    plain
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.builds(
        lambda digits, places: Decimal(digits).scaleb(-places),
        st.integers(-(2**31) + 1, 2**31 - 1),
        st.integers(0, 200),
    )
    | st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)).map(
        lambda moment: moment.replace(microsecond=0)
    )
)


def tables(leaves: st.SearchStrategy) -> st.SearchStrategy:
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
        max_leaves=12,
    )
    return st.dictionaries(names, values, max_size=6)


def nested(depth: int, letter: bytes) -> bytes:
    """A table of the given depth in all, its inner levels tables or arrays."""
    raw = b""
    for _ in range(depth - 1):
        raw = letter + struct.pack(">I", len(raw)) + raw
        if letter == b"F":
            raw = b"\1k" + raw
    if letter == b"A" and raw:
        raw = b"\1k" + raw
    return struct.pack(">I", len(raw)) + raw


@given(tables(scalars))
def test_what_is_encoded_comes_back_equal(values):
    raw = table.encode(values)

    assert table.decode(raw) == (values, len(raw))


@given(tables(plain))
def test_plain_values_are_encoded_as_pika_does(values):
    pieces = []
    pika_data.encode_table(pieces, values)

    assert table.encode(values) == b"".join(pieces)


@given(tables(scalars.filter(lambda value: not isinstance(value, float))), st.binary(max_size=5))
def test_tables_are_decoded_as_pika_does_where_pika_is_right(values, before):
    raw = before + table.encode(values)

    assert table.decode(raw, len(before)) == pika_data.decode_table(raw, len(before))


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_random_bytes_are_a_table_or_a_value_error(raw):
    try:
        values, at = table.decode(raw)
    except ValueError:
        return
    assert isinstance(values, dict)
    assert at <= len(raw)


@given(tables(scalars), st.data())
@settings(max_examples=500)
def test_a_table_with_a_few_wrong_bytes_is_a_table_or_a_value_error(values, data):
    raw = bytearray(table.encode(values))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    try:
        found, at = table.decode(bytes(raw))
    except ValueError:
        return
    assert isinstance(found, dict)
    assert at <= len(raw)


@given(tables(scalars))
def test_a_table_that_is_cut_short_is_a_value_error(values):
    raw = table.encode(values)

    for end in range(len(raw)):
        with pytest.raises(ValueError):
            table.decode(raw[:end])


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (True, b"t\x01"),
        (False, b"t\x00"),
        (None, b"V"),
        (1, b"I\x00\x00\x00\x01"),
        (-(2**31), b"I\x80\x00\x00\x00"),
        (2**31, b"L\x00\x00\x00\x00\x80\x00\x00\x00"),
        (-(2**63), b"L\x80\x00\x00\x00\x00\x00\x00\x00"),
        (1.5, b"d\x3f\xf8\x00\x00\x00\x00\x00\x00"),
        (Decimal("1.10"), b"D\x02\x00\x00\x00\x6e"),
        (Decimal("-3"), b"D\x00\xff\xff\xff\xfd"),
        (datetime(1970, 1, 2, tzinfo=UTC), b"T\x00\x00\x00\x00\x00\x01\x51\x80"),
        ("né", b"S\x00\x00\x00\x03n\xc3\xa9"),
        (b"\x00\xff", b"x\x00\x00\x00\x02\x00\xff"),
        ([None, 30], b"A\x00\x00\x00\x06VI\x00\x00\x00\x1e"),
        ({"a": True}, b"F\x00\x00\x00\x04\x01at\x01"),
        ({}, b"F\x00\x00\x00\x00"),
    ],
    ids=repr,
)
def test_each_type_has_the_bytes_that_rabbitmq_expects(value, encoded):
    raw = struct.pack(">I", len(encoded) + 2) + b"\x01k" + encoded

    assert table.encode({"k": value}) == raw
    assert table.decode(raw) == ({"k": value}, len(raw))


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (b"t\x07", True),
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xff", -1),
        (b"u\xff\xff", 65535),
        (b"i\xff\xff\xff\xff", 2**32 - 1),
        (b"l\xff\xff\xff\xff\xff\xff\xff\xff", -1),
        (b"f\x3f\xc0\x00\x00", 1.5),
        (b"S\x00\x00\x00\x02\xff\xfe", b"\xff\xfe"),
        (b"T\x00\x00\x01\x8c\xba\x80\x00\x00", 1703936000000),
        (b"T\x80\x00\x00\x00\x00\x00\x00\x00", 2**63),
        (b"D\xff\x7f\xff\xff\xff", Decimal(2**31 - 1).scaleb(-255)),
    ],
    ids=repr,
)
def test_types_that_others_send_are_understood(encoded, value):
    raw = struct.pack(">I", len(encoded) + 2) + b"\x01k" + encoded

    found = table.decode(raw)[0]["k"]

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("letter", [b"A", b"F"])
def test_nesting_is_bounded_when_decoding(letter):
    table.decode(nested(table.MAX_DEPTH, letter))

    for depth in (table.MAX_DEPTH + 1, 2_000):
        with pytest.raises(ValueError, match="deep"):
            table.decode(nested(depth, letter))


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"k": value}])
def test_nesting_is_bounded_when_encoding(wrap):
    value = None
    for _ in range(table.MAX_DEPTH - 1):
        value = wrap(value)

    assert table.decode(table.encode({"k": value}))[0] == {"k": value}
    with pytest.raises(ValueError, match="deep"):
        table.encode({"k": wrap(value)})


def test_a_table_that_holds_itself_is_refused():
    endless = {}
    endless["self"] = endless

    with pytest.raises(ValueError, match="deep"):
        table.encode(endless)


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        -(2**63) - 1,
        float("nan"),
        float("-inf"),
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal(2**31),
        Decimal("1E-256"),
        Decimal("1E+10"),
        datetime(1969, 12, 31, tzinfo=UTC),
        timedelta(1),
        pytest.param(object(), id="object"),
        "\ud800",
        [{1, 2}],
        {"inner": 1j},
        {5: "key"},
    ],
    ids=repr,
)
def test_what_a_table_cannot_hold_is_refused_by_the_name_of_its_header(value):
    with pytest.raises(ValueError, match="'x-mine'"):
        table.encode({"x-mine": value})


@pytest.mark.parametrize("name", ["n" * 256, "ñ" * 128, "\ud800", 7, b"bytes", None])
def test_names_are_short_text(name):
    with pytest.raises(ValueError, match="header"):
        table.encode({name: 1})


def test_a_field_name_that_is_not_utf8_makes_the_table_malformed():
    with pytest.raises(ValueError, match="UTF-8"):
        table.decode(b"\x00\x00\x00\x03\x01\xffV")


def test_subclasses_are_encoded_as_what_they_are_equal_to():
    class Colour(StrEnum):
        RED = "red"

    class Level(IntEnum):
        HIGH = 9

    values = {"c": Colour.RED, "l": Level.HIGH, "o": OrderedDict(a=1), "m": MappingProxyType({})}

    assert table.decode(table.encode(MappingProxyType(values)))[0] == values | {"m": {}}


def test_tuples_become_lists_and_moments_whole_seconds_of_utc():
    east = timezone(timedelta(hours=2))
    values = {
        "pair": (None, (1, 2)),
        "naive": datetime(2026, 11, 22, 3, 9, 13, 999_999),
        "east": datetime(2026, 11, 22, 3, 9, 13, tzinfo=east),
    }

    assert table.decode(table.encode(values))[0] == {
        "pair": [None, [1, 2]],
        "naive": datetime(2026, 11, 22, 3, 9, 13, tzinfo=UTC),
        "east": datetime(2026, 11, 22, 1, 9, 13, tzinfo=UTC),
    }


def test_the_context_of_decimals_rounds_nothing():
    import decimal

    with decimal.localcontext(prec=2):
        assert table.decode(table.encode({"d": Decimal("12.345")}))[0] == {"d": Decimal("12.345")}


def test_any_number_of_names_is_encoded():
    for number in range(3_000):
        name = f"name-{number}"
        assert table.decode(table.encode({name: number}))[0] == {name: number}
