"""Python values to bytes and back: json and msgpack, compression, and an allow-list of both.

What the values mean is for `wire.task` and `wire.result`.  There is no pickle: reading it runs what
the sender likes.

A value that would not come back equal is refused when it is encoded, with one exception: tuples
come back as lists, because every user of Celery passes them.  Types that a format lacks travel as
Celery's JSON envelopes, in msgpack too: objects with exactly the keys `__type__` and `__value__`.
The type `set` is taskq's own; Celery's readers do not know it.
"""

import base64
import bz2
import dataclasses
import json
import lzma
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

import msgpack

from taskq.errors import ConfigurationError, ContentDisallowed, EncodeError, MessageMalformed

#: Deeper values are refused at the call, since the reader's stack may be fuller than the caller's.
MAX_DEPTH = 100

#: What a decoder may raise for bytes that are not what they should be.  Listed, so that an
#: exception that is no answer to the bytes, such as a time limit's, passes through.
_BROKEN = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


class Encoded(NamedTuple):
    """Bytes with the labels AMQP wants: *content_type* and *content_encoding*."""

    body: bytes
    content_type: str
    content_encoding: str


def dumps(value: Any, serializer: str = "json", parts: tuple[str, ...] = ()) -> Encoded:
    """*value* as bytes; EncodeError names the path of what would not come back equal.

    With *parts*, *value* is a sequence whose items go by these names in the path.  Raises
    ConfigurationError for a *serializer* other than json and msgpack.
    """
    form = _FORMATS.get(serializer)
    if form is None:
        raise ConfigurationError(
            f"there is no serializer {serializer!r}; use one of {', '.join(_FORMATS)}"
        )
    try:
        body = _encode(value, form, parts)
    except EncodeError:
        raise
    except RecursionError:
        raise EncodeError("the value is nested too deep for what is left of the stack") from None
    except (ValueError, OverflowError) as error:
        raise EncodeError(f"the value cannot be sent as {serializer}: {error}") from error
    return Encoded(body, form.content_type, form.content_encoding)


def loads(
    body: bytes, content_type: str | None, content_encoding: str | None, accept: Iterable[str]
) -> Any:
    """The value in *body*; ContentDisallowed or MessageMalformed, never another exception.

    *accept* lists serializer names or MIME types.  *content_encoding* changes nothing: JSON is
    UTF-8 and msgpack binary, whatever the sender says.
    """
    mime = content_type or "application/data"
    form = _BY_MIME.get(mime) or _BY_MIME.get(mime.partition(";")[0].strip().lower())
    accept = tuple(accept)
    if mime not in accept and (
        form is None or (form.name not in accept and form.content_type not in accept)
    ):
        raise ContentDisallowed(f"content type {mime!r:.100} is not in accept_content")
    if form is None:
        raise MessageMalformed(f"content type {mime!r:.100} has no decoder")
    try:
        return form.decode(body)
    except RecursionError:
        raise MessageMalformed(f"body is nested too deep for {form.name}") from None
    except UnicodeDecodeError:
        raise MessageMalformed(f"body is not UTF-8 but {content_encoding!r:.60}") from None
    except _BROKEN as error:
        raise MessageMalformed(f"body is not {form.name}: {error!s:.200}") from error


def serializer(content_type: str | None) -> str | None:
    """The name of the serializer that makes *content_type*, None if there is none."""
    form = _BY_MIME.get(content_type or "")
    return None if form is None else form.name


# -- the values both formats can hold ------------------------------------------------------------

_TYPE, _VALUE = "__type__", "__value__"
_ENVELOPE_KEYS = {_TYPE, _VALUE}

_SCALARS = frozenset({type(None), bool, int, float, str})


def _encode(value: Any, form: "_Format", parts: tuple[str, ...]) -> bytes:
    if _is_plain(value, MAX_DEPTH):
        try:
            return form.encode(value)
        except (ValueError, OverflowError):
            pass  # text or an integer that the format cannot hold: `_portable` says where
    return form.encode(_portable(value, form, parts))


def _is_plain(value: Any, depth: int) -> bool:
    """Whether the encoders can have *value* as it is; a fraction of their own time."""
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str:
                return False
        if len(value) == 2 and value.keys() == _ENVELOPE_KEYS:
            return False
        value = value.values()
    elif kind is not list and kind is not tuple:
        return kind in _SCALARS
    if depth == 0:
        return False
    for item in value:  # all() of a generator takes twice as long
        if type(item) not in _SCALARS and not _is_plain(item, depth - 1):
            return False
    return True


def _portable(value: Any, form: "_Format", parts: tuple[str, ...]) -> Any:
    """*value* with envelopes in place of what the format lacks; EncodeError for the rest."""
    if parts:
        return [_packed(item, form, part, 1) for item, part in zip(value, parts, strict=True)]
    return _packed(value, form, "value", 0)


def _packed(value: Any, form: "_Format", path: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise EncodeError(f"{path[:60]}...: nested more than {MAX_DEPTH} deep, or in itself")
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return _checked_text(value, path)
    if isinstance(value, int):
        return _checked_integer(value, form, path)
    if isinstance(value, dict):
        return _packed_mapping(value, form, path, depth)
    if isinstance(value, list) or type(value) is tuple:
        return [
            _packed(item, form, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)
        ]
    if isinstance(value, set | frozenset):
        items = [_packed(item, form, f"{path}{{...}}", depth + 1) for item in value]
        return {_TYPE: "set", _VALUE: items}
    if isinstance(value, bytes | bytearray):
        return bytes(value) if form.binary else _packed_bytes(bytes(value))
    if isinstance(value, time) and value.tzinfo is not None and value.utcoffset() is None:
        raise EncodeError(
            f"{path}: {value!r} has an offset only on some date and would come back without; "
            "send a datetime"
        )
    for kind, name, packed in _ENVELOPES:
        if isinstance(value, kind):
            return {_TYPE: name, _VALUE: packed(value)}
    raise EncodeError(
        f"{path}: {_article(type(value).__name__)} would not come back equal; {_remedy(value)}"
    )


def _packed_mapping(value: dict[Any, Any], form: "_Format", path: str, depth: int) -> Any:
    if value.keys() == _ENVELOPE_KEYS:
        raise EncodeError(
            f"{path}: a dict with exactly the keys __type__ and __value__ would be read as an "
            "envelope; add a key or rename one"
        )
    packed = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise EncodeError(
                f"{path}: the key {key!r:.100} is {_article(type(key).__name__)} and would come "
                "back as text; use str keys"
            )
        packed[_checked_text(key, path)] = _packed(item, form, f"{path}[{key!r:.60}]", depth + 1)
    return packed


def _packed_bytes(value: bytes) -> dict[str, str]:
    try:
        return {_TYPE: "bytes", _VALUE: value.decode()}
    except UnicodeDecodeError:
        return {_TYPE: "base64", _VALUE: base64.b64encode(value).decode()}


def _checked_text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(
            f"{path}: text with half a surrogate pair at {error.start} is not UTF-8; "
            "send bytes instead"
        ) from None
    return value


def _checked_integer(value: int, form: "_Format", path: str) -> int:
    if form.binary and not -(1 << 63) <= value < 1 << 64:
        raise EncodeError(
            f"{path}: an integer beyond 64 bits does not fit msgpack; send it as text, or use json"
        )
    if value.bit_length() > _LONGEST_INTEGER:
        raise EncodeError(f"{path}: an integer too long for Python to read back; send bytes")
    return value


#: 4300 digits, which is where Python stops converting text to integers, in bits.
_LONGEST_INTEGER = 14_280


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _remedy(value: Any) -> str:
    if isinstance(value, timedelta):
        return "send its total_seconds()"
    if isinstance(value, Enum):
        return "send its value"
    if isinstance(value, tuple):
        return "send a list or a dict of its fields"
    if hasattr(value, "model_dump"):
        return 'send its model_dump(mode="json")'
    if dataclasses.is_dataclass(value):
        return "send dataclasses.asdict() of it"
    return (
        "send None, bool, int, float, str, list, dict, datetime, date, time, Decimal, UUID, bytes "
        "or set"
    )


#: Type, name and content of the envelopes that are made by type alone; a datetime is a date too.
_ENVELOPES: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (datetime, "datetime", datetime.isoformat),
    (date, "date", date.isoformat),
    (time, "time", time.isoformat),
    (Decimal, "decimal", str),
    (UUID, "uuid", lambda value: {"hex": value.hex}),
)


def _frozen(value: Any) -> Any:
    """What must have stood in a set: only a tuple can have become a list there."""
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    return frozenset(value) if isinstance(value, set) else value


_OPENERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": lambda value: UUID(hex=value["hex"]),
    "bytes": str.encode,
    "base64": lambda value: base64.b64decode(value, validate=True),
    "set": lambda value: set(map(_frozen, value)),
}


def _opened(found: dict[str, Any]) -> Any:
    if len(found) != 2 or found.keys() != _ENVELOPE_KEYS:
        return found
    opener = _OPENERS.get(found[_TYPE])
    if opener is None:
        raise ValueError(f"unknown __type__ {found[_TYPE]!r:.60}")
    return opener(found[_VALUE])


# -- the formats ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Format:
    name: str
    content_type: str
    content_encoding: str
    #: Whether it holds bytes as they are, and integers of 64 bits at most.
    binary: bool
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def _json_writer() -> Callable[[Any], str]:
    """What writes values as JSON; `JSONEncoder.encode` makes the same parts anew for each value,
    which takes longer than the arguments of most calls.
    """
    # Not escaped to ASCII: that half a surrogate pair cannot be encoded is just what is wanted.
    # Cycles are found by `_is_plain`.
    plain = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))
    make, quote = getattr(json.encoder, "c_make_encoder", None), json.encoder.encode_basestring
    if make is None:  # not CPython
        return plain.encode
    write = make(None, plain.default, quote, None, ":", ",", False, False, True)
    return lambda value: "".join(write(value, 0))


_to_json = _json_writer()
_json, _json_with_envelopes = json.JSONDecoder(), json.JSONDecoder(object_hook=_opened)


def _decode_json(body: bytes) -> Any:
    text = body.decode()
    decoder = _json_with_envelopes if _TYPE in text else _json
    if text[:1] in _JSON_OPENERS:
        value, end = decoder.raw_decode(text)
        if end == len(text):
            return value
    return decoder.decode(text)  # allows white space around it, at the price of looking for it


#: How the values begin that JSON without white space around them is usually made of.
_JSON_OPENERS = ("{", "[")


def _decode_msgpack(body: bytes) -> Any:
    hook = _opened if _TYPE.encode() in body else None
    return msgpack.unpackb(body, object_hook=hook, ext_hook=_refuse_extension, timestamp=3)


def _refuse_extension(code: int, _content: bytes) -> Any:
    raise ValueError(f"unknown extension type {code}")


_FORMATS = {
    form.name: form
    for form in (
        _Format(
            "json",
            "application/json",
            "utf-8",
            binary=False,
            encode=lambda value: _to_json(value).encode(),
            decode=_decode_json,
        ),
        _Format(
            "msgpack",
            "application/x-msgpack",
            "binary",
            binary=True,
            encode=msgpack.packb,
            decode=_decode_msgpack,
        ),
    )
}
_BY_MIME = {form.content_type: form for form in _FORMATS.values()}

# -- compression ---------------------------------------------------------------------------------

#: Memory that an xz stream may ask for; its strongest preset needs 65 MiB.
_XZ_MEMORY = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Method:
    header: str
    compress: Callable[[bytes], bytes]
    decompressor: Callable[[], Any]


# What Celery calls gzip is a zlib stream; other programs send real gzip.  47 makes zlib read both.
_GZIP = _Method("application/x-gzip", zlib.compress, lambda: zlib.decompressobj(47))
_BZIP2 = _Method("application/x-bz2", bz2.compress, bz2.BZ2Decompressor)
_XZ = _Method(
    "application/x-lzma", lzma.compress, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
)

#: Celery's names and header values; a header may hold either.
_METHODS = {
    "gzip": _GZIP,
    "zlib": _GZIP,
    "bzip2": _BZIP2,
    "bzip": _BZIP2,
    "lzma": _XZ,
    "xz": _XZ,
}
_BY_HEADER = _METHODS | {method.header: method for method in _METHODS.values()}


def compress(body: bytes, method: str) -> tuple[bytes, str]:
    """*body* compressed by *method* (gzip, ...) and the value of the `compression` header.

    Raises ConfigurationError for an unknown method.
    """
    found = _BY_HEADER.get(method)
    if found is None:
        raise ConfigurationError(
            f"there is no compression {method!r}; use one of {', '.join(_METHODS)}"
        )
    return found.compress(body), found.header


def decompress(body: bytes, method: str, limit: int) -> bytes:
    """The uncompressed *body*; MessageMalformed if it is not that, or larger than *limit* bytes."""
    found = _BY_HEADER.get(method)
    if found is None:
        raise MessageMalformed(f"unknown compression {method!r:.60}")
    stream = found.decompressor()
    try:
        plain: bytes = stream.decompress(body, limit + 1)
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise MessageMalformed(f"body is not {found.header}: {error}") from error
    if len(plain) > limit:
        raise MessageMalformed(f"uncompressed body is larger than {limit} bytes")
    if not stream.eof or stream.unused_data:
        raise MessageMalformed(f"body is not {found.header}: its length is wrong")
    return plain
