"""Task messages whole: headers, labels and body, as Celery's task protocol 2 has them.

What the headers say is `wire.headers`' business, how values become bytes `wire.codec`'s, and where
a message goes the broker's.  The worker's parent reads headers only; the child that runs the task
opens the body.
"""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from taskq.errors import MessageMalformed, SoftTimeLimitExceeded
from taskq.wire import codec
from taskq.wire.headers import BROKER_HEADERS, TaskHeaders, write_headers
from taskq.wire.message import Message, encode_task_properties

#: Longest argsrepr and kwargsrepr, in characters, where repr_max_length does not say otherwise;
#: Celery's figure.
MAX_REPR = 1024

_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


class Body(NamedTuple):
    """An opened body: arguments and the embed (callbacks, errbacks, chain, chord)."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    embed: Mapping[str, Any]


def encode(
    headers: TaskHeaders,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    serializer: str = "json",
    compression: str | None = None,
    priority: int | None = None,
    reply_to: str | None = None,
    longest_repr: int = MAX_REPR,
) -> Message:
    """The message that asks for `headers.task(*args, **kwargs)`.

    Raises EncodeError for arguments that would not come back equal, ConfigurationError for an
    unknown *serializer* or *compression*, and ValueError for user headers (`headers.extra`) that
    carry a protocol name or are too large.  argsrepr and kwargsrepr are made here when empty, of
    *longest_repr* characters at most.
    """
    args, kwargs = tuple(args), dict(kwargs)
    encoded = codec.dumps([args, kwargs, _EMBED], serializer, ("args", "kwargs", "embed"))
    body, method = encoded.body, None
    size = len(body)
    if compression is not None:
        body, method = codec.compress(body, compression)
    raw = encode_task_properties(
        write_headers(
            headers,
            method,
            headers.argsrepr or _shown(args, size, longest_repr),
            headers.kwargsrepr or _shown(kwargs, size, longest_repr),
        ),
        encoded.content_type,
        encoded.content_encoding,
        priority or 0,
        headers.id,
        reply_to,
    )
    return Message(raw, body)


def open_body(message: Message, accept: Iterable[str], limit: int) -> Body:
    """The arguments in the body; MessageMalformed or ContentDisallowed for anything else.

    *limit* bounds the uncompressed size in bytes.
    """
    labels, body = message.labels, message.body
    # Looked for in the undecoded bytes, because decoding is for the few that need it.
    compressed = b"compression" in message.raw
    compression = message.headers.get("compression") if compressed else None
    if compression is not None:
        if not isinstance(compression, str):
            raise MessageMalformed("header `compression` is not text")
        body = codec.decompress(body, compression, limit)
    elif len(body) > limit:
        raise MessageMalformed(f"body is larger than {limit} bytes")
    value = codec.loads(body, labels.content_type, labels.content_encoding, accept)
    if isinstance(value, dict):
        raise MessageMalformed(
            "body is a mapping, as in protocol 1; a Celery producer needs task_protocol = 2"
        )
    if not isinstance(value, list) or len(value) != 3:
        raise MessageMalformed("body is not a list of args, kwargs and embed")
    args, kwargs, embed = value
    if not isinstance(args, list):
        raise MessageMalformed("args are not a list")
    if not isinstance(kwargs, dict) or (kwargs and not all(type(key) is str for key in kwargs)):
        raise MessageMalformed("kwargs are not a mapping with text keys")
    if embed is None:
        embed = {}
    if not isinstance(embed, dict):
        raise MessageMalformed("embed is not a mapping")
    if embed != _EMBED:
        for name in _EMBED:
            if embed.get(name):
                raise MessageMalformed(
                    f"it carries {name}: chains, chords and callbacks are not supported yet"
                )
    return Body(tuple(args), kwargs, embed)


def resend(
    message: Message, headers: Mapping[str, Any] | None = None, **properties: Any
) -> Message:
    """*message* made fit to be published again, with some *headers* and *properties* changed.

    The only place that strips what brokers added (BROKER_HEADERS), `expiration`, which would run
    out on a ladder of delays, and `user_id`, which RabbitMQ takes from its own user only.  A header
    given as None stays, as None.  Raises ValueError where the headers leave no room for more.
    """
    kept = {name: value for name, value in message.headers.items() if name not in BROKER_HEADERS}
    kept.update(headers or {})
    changes: dict[str, Any] = {"expiration": None, "user_id": None, "malformed": None}
    return message.copy(headers=kept, **(changes | properties))


# -- writing -------------------------------------------------------------------------------------


class _Repr(reprlib.Repr):
    """Like Celery's: three levels, and no more work than the text is long."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 30
        self.maxstring = self.maxother = self.maxlong = 100

    def repr_bytes(self, value: bytes, _level: int) -> str:
        return self.repr_str(value, _level)  # type: ignore[arg-type]  # slices alike


_REPR = _Repr()


def _shown(value: Any, size: int, longest: int) -> str:
    """The repr of *value*, whose encoding has *size* bytes, whatever its own __repr__ does."""
    try:
        text = repr(value) if size <= 2 * longest else _REPR.repr(value)
    except SoftTimeLimitExceeded:  # meant for the task that is sending this one
        raise
    except Exception:  # a call is not refused because its arguments cannot be shown
        return "..."
    if len(text) > longest:
        text = text[: longest - 3] + "..."
    return text if text.isascii() else text.encode(errors="replace").decode()
