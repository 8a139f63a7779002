"""The envelope that every broker carries: AMQP's basic properties and an unopened body.

A message travels as the bytes of its properties, exactly as an AMQP content header frame has them
after the body size, so that a worker's parent hands them on without decoding and SQLite stores
them as they are.  What the headers mean for a task is `wire.task`'s business.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

from taskq.wire import table

#: Property flags and names in the order of the wire (AMQP 0-9-1, class basic; section 4.2.6.1).
_FIELDS = (
    (1 << 15, "content_type"),
    (1 << 14, "content_encoding"),
    (1 << 13, "headers"),
    (1 << 12, "delivery_mode"),
    (1 << 11, "priority"),
    (1 << 10, "correlation_id"),
    (1 << 9, "reply_to"),
    (1 << 8, "expiration"),
    (1 << 7, "message_id"),
    (1 << 6, "timestamp"),
    (1 << 5, "type"),
    (1 << 4, "user_id"),
    (1 << 3, "app_id"),
    (1 << 2, "cluster_id"),
)

_LENGTH = struct.Struct(">I")

#: How many bytes the integers among them take; the rest, but for the headers, are short strings.
_INTEGERS = {"delivery_mode": 1, "priority": 1, "timestamp": 8}

#: More than this of encoded headers is refused: a header table must fit one AMQP frame of 128 KiB,
#: and a dead letter adds to it.
MAX_HEADER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Properties:
    """AMQP's basic properties, decoded; None means absent.

    *malformed* says why received bytes could not be decoded; the other fields are then empty.
    *timestamp* stays the bare number it arrived as, since producers disagree about its unit.
    """

    headers: Mapping[str, Any] = field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None
    malformed: str | None = None


class Labels(NamedTuple):
    """The properties that running a task takes, besides its headers."""

    content_type: str | None = None
    content_encoding: str | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None


class Message:
    """Properties as bytes (*raw*) and a *body*; `properties` decodes them when first read."""

    __slots__ = ("_labels", "_properties", "body", "raw")

    def __init__(self, raw: bytes, body: bytes, properties: Properties | None = None) -> None:
        self.raw = raw
        self.body = body
        self._properties = properties
        self._labels: Labels | None = None

    @classmethod
    def of(cls, properties: Properties, body: bytes) -> "Message":
        """A message made from decoded *properties*; ValueError if the headers are too large."""
        return cls(encode_properties(properties), body, properties)

    @property
    def properties(self) -> Properties:
        """The decoded properties; never raises, see `Properties.malformed`."""
        if self._properties is None:
            self._properties = decode_properties(self.raw)
        return self._properties

    @property
    def labels(self) -> Labels:
        """Some of the properties, without decoding the headers on the way if that can be."""
        labels = self._labels
        if labels is None and self._properties is None:
            try:
                labels = _read_labels(self.raw)
            except (ValueError, IndexError, struct.error):
                pass  # not written by `encode_task_properties`
        if labels is None:
            labels = Labels(*(getattr(self.properties, name) for name in Labels._fields))
        self._labels = labels
        return labels

    @property
    def headers(self) -> Mapping[str, Any]:
        """The header table, empty if there is none or it cannot be decoded."""
        return self.properties.headers

    def copy(self, **changes: Any) -> "Message":
        """This message with some properties (or the *body*) changed."""
        body = changes.pop("body", self.body)
        return Message.of(replace(self.properties, **changes), body)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self.properties == other.properties and self.body == other.body

    __hash__ = None  # type: ignore[assignment]  # equal by value, and the body may be megabytes

    def __repr__(self) -> str:
        return f"Message({self.properties!r}, {len(self.body)} bytes)"


def encode_properties(properties: Properties) -> bytes:
    """The bytes of *properties*: two of flags, then the present fields in order.

    Raises ValueError for headers over MAX_HEADER_BYTES, a short string over 255 bytes, or a value
    that an AMQP table cannot hold; the message names the header.
    """
    flags = 0
    parts: list[bytes] = [b""]
    for flag, name in _FIELDS:
        value = getattr(properties, name)
        if value is None or (name == "headers" and not value):
            continue
        flags |= flag
        if name == "headers":
            encoded = table.encode(value)
            if len(encoded) > MAX_HEADER_BYTES:
                raise ValueError(_too_large(encoded))
            parts.append(encoded)
        elif name in _INTEGERS:
            parts.append(_integer(name, value))
        else:
            parts.append(_short_string(name, value))
    parts[0] = flags.to_bytes(2)
    return b"".join(parts)


def encode_task_properties(
    headers: bytes,
    content_type: str,
    content_encoding: str,
    priority: int,
    correlation_id: str,
    reply_to: str | None,
) -> bytes:
    """As `encode_properties`, for a persistent message and a *headers* table made already."""
    if len(headers) > MAX_HEADER_BYTES:
        raise ValueError(_too_large(headers))
    return b"".join(
        (
            _head(content_type, content_encoding, reply_to is not None),
            headers,
            b"\x02",
            _integer("priority", priority),
            _short_string("correlation_id", correlation_id),
            b"" if reply_to is None else _short_string("reply_to", reply_to),
        )
    )


def encode_reply_properties(content_type: str, content_encoding: str, correlation_id: str) -> bytes:
    """As `encode_properties`, for a message that is not kept on disk and has these labels alone."""
    return _reply_head(content_type, content_encoding) + _short_string(
        "correlation_id", correlation_id
    )


@lru_cache(maxsize=64)
def _reply_head(content_type: str, content_encoding: str) -> bytes:
    """Flags, labels and delivery mode."""
    labels = _short_string("content_type", content_type)
    labels += _short_string("content_encoding", content_encoding)
    return b"\xd4\0" + labels + b"\x01"


@lru_cache(maxsize=64)
def _head(content_type: str, content_encoding: str, replies: bool) -> bytes:
    """Flags and all that comes before the headers."""
    labels = _short_string("content_type", content_type)
    labels += _short_string("content_encoding", content_encoding)
    return bytes((0xFE if replies else 0xFC, 0)) + labels


def _read_labels(raw: bytes) -> Labels:
    if raw[0] | 2 != 0xFE or raw[1]:
        raise ValueError("other properties")
    at = 4 + raw[2] + raw[3 + raw[2]]
    head = _read_head(raw[2:at])
    at += 6 + _LENGTH.unpack_from(raw, at)[0]  # and delivery_mode, and priority
    priority, end = raw[at - 1], at + 1 + raw[at]
    correlation_id, reply_to = raw[at + 1 : end].decode(), None
    if raw[0] & 2:
        at, end = end, end + 1 + raw[end]
        reply_to = raw[at + 1 : end].decode()
    if end != len(raw):
        raise ValueError("their length is wrong")
    return tuple.__new__(Labels, (*head, priority, correlation_id, reply_to))


@lru_cache(maxsize=64)
def _read_head(labels: bytes) -> tuple[str, str]:
    stop = 1 + labels[0]
    return labels[1:stop].decode(), labels[stop + 1 :].decode()


def priority(raw: bytes) -> int:
    """The priority in encoded properties, 0 without one; skips what is before it undecoded.

    For senders' own properties: anything that is cut short is 0, too.
    """
    if len(raw) < 2 or not raw[0] & 1 << 3:
        return 0
    at = 2
    try:
        for flag in (1 << 7, 1 << 6):
            if raw[0] & flag:
                at += 1 + raw[at]
        if raw[0] & 1 << 5:
            at += 4 + int.from_bytes(raw[at : at + 4])
        return raw[at + bool(raw[0] & 1 << 4)]
    except IndexError:
        return 0


def decode_properties(raw: bytes) -> Properties:
    """The properties in *raw*; never raises, whatever the bytes are (see `malformed`)."""
    try:
        return _decode_properties(raw)
    except UnicodeDecodeError:
        reason = "a property is not UTF-8"
    except IndexError:
        reason = "they are cut short"
    except ValueError as error:
        reason = str(error)
    return Properties(malformed=f"properties cannot be decoded: {reason}")


def _decode_properties(raw: bytes) -> Properties:
    flags = raw[0] << 8 | raw[1]
    if flags & 0b11:
        raise ValueError("unknown property flags")
    at = 2
    found: dict[str, Any] = {}
    for flag, name in _FIELDS:
        if not flags & flag:
            continue
        if name == "headers":
            found[name], at = table.decode(raw, at)
            continue
        start = at
        if name in _INTEGERS:
            at += _INTEGERS[name]
            found[name] = int.from_bytes(raw[start:at])
        else:
            at += 1 + raw[at]
            found[name] = raw[start + 1 : at].decode()
    if at != len(raw):
        raise ValueError("their length is wrong")
    return Properties(**found)


def _too_large(headers: bytes) -> str:
    return (
        f"headers take {len(headers)} bytes, {MAX_HEADER_BYTES} is the limit: "
        "put large values into the arguments"
    )


def _integer(name: str, value: int) -> bytes:
    try:
        return value.to_bytes(_INTEGERS[name])
    except OverflowError:
        raise ValueError(f"{name} {value} does not fit {_INTEGERS[name]} unsigned bytes") from None


def _short_string(name: str, value: str) -> bytes:
    encoded = value.encode()
    if len(encoded) > 255:
        raise ValueError(f"{name} takes {len(encoded)} bytes, AMQP allows 255")
    return bytes((len(encoded),)) + encoded
