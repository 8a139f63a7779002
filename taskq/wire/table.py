"""AMQP field tables: encoding what taskq sends, decoding whatever arrives.

Which headers a table should hold is the business of `wire.task` and `wire.dead`.  The types are
those of RabbitMQ, whose letters differ from the AMQP 0-9-1 text in places:
https://www.rabbitmq.com/amqp-0-9-1-errata.html#section_3.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

#: Tables and arrays nested deeper than this are refused, in both directions.
MAX_DEPTH = 32

#: The last second that a datetime can hold, 9999-12-31T23:59:59Z.
_LAST_SECOND = 253_402_300_799

_LENGTH = struct.Struct(">I")
_LETTER_LENGTH = struct.Struct(">cI")
_INT32 = struct.Struct(">ci")
_INT64 = struct.Struct(">cq")
_DOUBLE = struct.Struct(">cd")
_DECIMAL = struct.Struct(">cBi")
_TIMESTAMP = struct.Struct(">cQ")


def encode(values: Mapping[str, Any]) -> bytes:
    """*values* as a field table, its four length bytes included; ValueError if it cannot be.

    Takes str, bytes, bool, int (64 bits), finite float, Decimal (32 bits), datetime (whole seconds,
    a naive one in UTC), None, and mappings, lists and tuples of these.  The error names the header.
    """
    return _table(values, 1)


def decode(raw: bytes, at: int = 0) -> tuple[dict[str, Any], int]:
    """The table at *at* in *raw* and the index behind it; ValueError for anything else.

    Text that is not UTF-8 stays bytes.  A timestamp is an aware datetime, or the bare number where
    no datetime reaches (some producers count milliseconds).
    """
    try:
        return _read_table(raw, at, 1)
    except IndexError:
        raise ValueError("a table is cut short") from None
    except struct.error:
        raise ValueError("a number is cut short") from None
    except KeyError as error:
        raise ValueError(f"unknown field type {error.args[0]:#04x}") from None
    except UnicodeDecodeError:
        raise ValueError("a field name is not UTF-8") from None


# -- encoding ------------------------------------------------------------------------------------


#: Encoded names, for a process meets the same few on every message.
_NAMES: dict[str, bytes] = {}
_MOST_NAMES = 1024


def _name(name: str) -> bytes:
    if not isinstance(name, str):
        raise ValueError("the name of a header must be text")  # noqa: TRY004  # as all here
    encoded = name.encode()
    if len(encoded) > 255:
        raise ValueError(f"the name takes {len(encoded)} bytes, AMQP allows 255")
    encoded = bytes((len(encoded),)) + encoded
    if len(_NAMES) < _MOST_NAMES:
        _NAMES[name] = encoded
    return encoded


def _table(values: Mapping[str, Any], depth: int) -> bytes:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    known, lettered = _NAMES.get, _LETTER_LENGTH.pack
    out = bytearray(4)
    for name, value in values.items():
        try:
            out += known(name) or _name(name)
            if value is None:  # void and text are most of a task's headers
                out += b"V"
            elif type(value) is str:
                encoded = value.encode()
                out += lettered(b"S", len(encoded))
                out += encoded
            else:
                out += (_WRITERS.get(type(value)) or _writer(value))(value, depth)
        except ValueError as error:
            raise ValueError(f"header {name!r}: {error}") from None
    _LENGTH.pack_into(out, 0, len(out) - 4)
    return bytes(out)


def _array(values: Sequence[Any], depth: int) -> bytes:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    body = b"".join(
        [(_WRITERS.get(type(value)) or _writer(value))(value, depth) for value in values]
    )
    return _LETTER_LENGTH.pack(b"A", len(body)) + body


def _text(value: str, _depth: int) -> bytes:
    encoded = value.encode()
    return _LETTER_LENGTH.pack(b"S", len(encoded)) + encoded


def _integer(value: int, _depth: int) -> bytes:
    if -0x80000000 <= value <= 0x7FFFFFFF:
        return _INT32.pack(b"I", value)
    if -(1 << 63) <= value < 1 << 63:
        return _INT64.pack(b"L", value)
    raise ValueError("an integer beyond 64 bits")


def _float(value: float, _depth: int) -> bytes:
    if not math.isfinite(value):  # RabbitMQ closes the connection that sends such a header
        raise ValueError(f"{value} is no number that RabbitMQ takes")
    return _DOUBLE.pack(b"d", value)


def _decimal(value: Decimal, _depth: int) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, int) and -255 <= exponent <= 10:
        unscaled = int("".join(map(str, digits))) * 10 ** max(exponent, 0)
        if unscaled < 1 << 31:
            return _DECIMAL.pack(b"D", max(-exponent, 0), -unscaled if sign else unscaled)
    raise ValueError(f"{value} does not fit the 32 bits of an AMQP decimal")


def _moment(value: datetime, _depth: int) -> bytes:
    aware = value if value.utcoffset() is not None else value.replace(tzinfo=UTC)
    if (seconds := int(aware.timestamp() // 1)) < 0:
        raise ValueError("a date before 1970")
    return _TIMESTAMP.pack(b"T", seconds)


_WRITERS: dict[type, Callable[[Any, int], bytes]] = {
    str: _text,
    bool: lambda value, _depth: b"t\1" if value else b"t\0",
    int: _integer,
    type(None): lambda _value, _depth: b"V",
    float: _float,
    list: lambda value, depth: _array(value, depth + 1),
    tuple: lambda value, depth: _array(value, depth + 1),
    dict: lambda value, depth: b"F" + _table(value, depth + 1),
    bytes: lambda value, _depth: _LETTER_LENGTH.pack(b"x", len(value)) + value,
    datetime: _moment,
    Decimal: _decimal,
}


def _writer(value: object) -> Callable[[Any, int], bytes]:
    for kind, writer in _WRITERS.items():
        if isinstance(value, kind):
            return writer
    if isinstance(value, Mapping):
        return _WRITERS[dict]
    raise ValueError(f"AMQP has no type for {type(value).__name__}")


# -- decoding ------------------------------------------------------------------------------------

_TEXT, _VOID = b"SV"
_read_length = _LENGTH.unpack_from


def _read_table(raw: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    start = at + 4
    end = start + _read_length(raw, at)[0]
    if end > len(raw):
        raise ValueError("a table is cut short")
    found: dict[str, Any] = {}
    at = start
    while at < end:
        name_end = at + 1 + raw[at]
        name = raw[at + 1 : name_end].decode()
        kind = raw[name_end]
        if kind == _VOID:  # void and text are most of a task's headers
            found[name] = None
            at = name_end + 1
        elif kind == _TEXT:
            found[name], at = _read_text(raw, name_end + 1, depth)
        else:
            found[name], at = _READERS[kind](raw, name_end + 1, depth)
    if at != end:
        raise ValueError("a value runs past the end of its table")
    return found, end


def _read_array(raw: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    start = at + 4
    end = start + _read_length(raw, at)[0]
    if end > len(raw):
        raise ValueError("an array is cut short")
    found: list[Any] = []
    at = start
    while at < end:
        value, at = _READERS[raw[at]](raw, at + 1, depth)
        found.append(value)
    if at != end:
        raise ValueError("a value runs past the end of its array")
    return found, end


def _read_text(raw: bytes, at: int, _depth: int) -> tuple[str | bytes, int]:
    start = at + 4
    end = start + _read_length(raw, at)[0]
    # One that is cut short is shorter than it says: whoever holds it sees its end run past.
    text = raw[start:end]
    try:
        return text.decode(), end
    except UnicodeDecodeError:
        return text, end


def _read_bytes(raw: bytes, at: int, _depth: int) -> tuple[bytes, int]:
    start = at + 4
    end = start + _read_length(raw, at)[0]
    return raw[start:end], end


def _read_decimal(raw: bytes, at: int, _depth: int) -> tuple[Decimal, int]:
    scale, unscaled = struct.unpack_from(">Bi", raw, at)
    return Decimal(f"{unscaled}E-{scale}"), at + 5  # exact, whatever the context's precision


def _read_moment(raw: bytes, at: int, _depth: int) -> tuple[datetime | int, int]:
    (seconds,) = struct.unpack_from(">Q", raw, at)
    return (datetime.fromtimestamp(seconds, UTC) if seconds <= _LAST_SECOND else seconds), at + 8


def _reader(layout: str) -> Callable[[bytes, int, int], tuple[Any, int]]:
    unpack, size = struct.Struct(layout).unpack_from, struct.calcsize(layout)
    return lambda raw, at, _depth: (unpack(raw, at)[0], at + size)


_READERS: dict[int, Callable[[bytes, int, int], tuple[Any, int]]] = {
    ord("S"): _read_text,
    ord("V"): lambda _raw, at, _depth: (None, at),
    ord("I"): _reader(">i"),
    ord("t"): lambda raw, at, _depth: (raw[at] != 0, at + 1),
    ord("A"): lambda raw, at, depth: _read_array(raw, at, depth + 1),
    ord("F"): lambda raw, at, depth: _read_table(raw, at, depth + 1),
    ord("d"): _reader(">d"),
    ord("l"): _reader(">q"),
    ord("L"): _reader(">q"),
    ord("b"): _reader(">b"),
    ord("B"): _reader(">B"),
    ord("s"): _reader(">h"),
    ord("u"): _reader(">H"),
    ord("i"): _reader(">I"),
    ord("f"): _reader(">f"),
    ord("D"): _read_decimal,
    ord("T"): _read_moment,
    ord("x"): _read_bytes,
}
