"""Task messages: Celery's task protocol 2, with taskq's own headers under `taskq-`.

How values become bytes is `wire.codec`'s business, and where a message goes the broker's.  The
worker's parent reads headers only (`read_headers`); the child that runs the task opens the body.
Facts about the protocol are from Celery 5.7, seen on the wire.
"""

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from taskq.errors import MessageMalformed, SoftTimeLimitExceeded
from taskq.wire import codec
from taskq.wire.message import Message, Properties

#: The headers of protocol 2: each message carries all of them, void where there is nothing to say.
PROTOCOL_HEADERS = (
    "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries",
    "timelimit", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result",
    "replaced_task_nesting", "stamped_headers", "stamps",
)  # fmt: skip

#: What brokers add.  RabbitMQ takes a message that still carries `x-death` for one that goes round
#: in circles and drops it; CC and BCC would send copies to other queues.
BROKER_HEADERS = frozenset({
    "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
    "x-last-death-exchange", "x-last-death-queue", "x-last-death-reason",
    "x-delivery-count", "x-acquired-count", "CC", "BCC", "taskq-route",
})  # fmt: skip

#: The version of taskq's own headers, in `taskq-v`.
VERSION = 1

#: Longest argsrepr and kwargsrepr, in characters; Celery's figure.
MAX_REPR = 1024

_KNOWN = BROKER_HEADERS.union(PROTOCOL_HEADERS, ("compression",))

_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@dataclass(frozen=True, slots=True)
class TaskHeaders:
    """What the headers of one task message say, checked; moments are seconds since the epoch.

    *extra* holds the headers that are no part of the protocol: the sender's own.
    """

    task: str
    id: str
    retries: int = 0
    eta: float | None = None
    expires: float | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    shadow: str | None = None
    argsrepr: str = ""
    kwargsrepr: str = ""
    origin: str | None = None
    crashes: int = 0
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Body:
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
) -> Message:
    """The message that asks for `headers.task(*args, **kwargs)`.

    Raises EncodeError for arguments that would not come back equal, ConfigurationError for an
    unknown *serializer* or *compression*, and ValueError for user headers (`headers.extra`) that
    carry a protocol name or are too large.  argsrepr and kwargsrepr are made here when empty.
    """
    args, kwargs = tuple(args), dict(kwargs)
    encoded = codec.dumps([args, kwargs, _EMBED], serializer, ("args", "kwargs", "embed"))
    for name, value in (("task", headers.task), ("id", headers.id)):
        if (flaw := _flaw(value)) is not None:
            raise ValueError(f"the {name} {value!r:.80} {flaw}")
    size = len(encoded.body)
    fields: dict[str, Any] = {
        "lang": "py",
        "task": headers.task,
        "id": headers.id,
        "shadow": headers.shadow,
        "eta": _date("eta", headers.eta),
        "expires": _date("expires", headers.expires),
        "group": headers.group,
        "group_index": headers.group_index,
        "retries": headers.retries,
        "timelimit": [headers.time_limit, headers.soft_time_limit],
        "root_id": headers.root_id or headers.id,
        "parent_id": headers.parent_id,
        "argsrepr": headers.argsrepr or _shown(args, size),
        "kwargsrepr": headers.kwargsrepr or _shown(kwargs, size),
        "origin": headers.origin,
        "ignore_result": headers.ignore_result,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        "taskq-v": VERSION,
    }
    if headers.crashes:
        fields["taskq-crashes"] = headers.crashes
    if headers.extra:
        _refuse_taken(headers.extra)
        fields.update(headers.extra)
    body = encoded.body
    if compression is not None:
        body, fields["compression"] = codec.compress(body, compression)
    return Message.of(
        Properties(
            headers=fields,
            content_type=encoded.content_type,
            content_encoding=encoded.content_encoding,
            delivery_mode=2,
            priority=priority or 0,
            correlation_id=headers.id,
            reply_to=reply_to,
        ),
        body,
    )


def read_headers(message: Message) -> TaskHeaders:
    """The checked headers; MessageMalformed with one short reason for anything else.

    Only what decides how the task runs is checked; a field that is for people or results only, and
    is not what it should be, counts as absent.
    """
    properties = message.properties
    if properties.malformed is not None:
        raise MessageMalformed(properties.malformed)
    headers = properties.headers
    if "task" not in headers:
        raise MessageMalformed(
            "no header `task`: protocol 1, or no task; a Celery producer needs task_protocol = 2"
        )
    for name in ("task", "id"):
        if (flaw := _flaw(headers.get(name))) is not None:
            raise MessageMalformed(f"header `{name}` {flaw}")
    if not properties.content_type:
        raise MessageMalformed("no content_type")
    get = headers.get
    time_limit, soft_time_limit = _limits(get("timelimit"))
    group_index, ignore_result = get("group_index"), get("ignore_result")
    return TaskHeaders(
        task=headers["task"],
        id=headers["id"],
        retries=_count("retries", get("retries")),
        eta=_moment("eta", get("eta")),
        expires=_moment("expires", get("expires")),
        time_limit=time_limit,
        soft_time_limit=soft_time_limit,
        ignore_result=ignore_result if isinstance(ignore_result, bool) else None,
        root_id=_text(get("root_id")),
        parent_id=_text(get("parent_id")),
        group=_text(get("group")),
        group_index=group_index if type(group_index) is int else None,
        shadow=_text(get("shadow")),
        argsrepr=_text(get("argsrepr")) or "",
        kwargsrepr=_text(get("kwargsrepr")) or "",
        origin=_text(get("origin")),
        crashes=_count("taskq-crashes", get("taskq-crashes")),
        extra=_extra(headers),
    )


def open_body(message: Message, accept: Iterable[str], limit: int) -> Body:
    """The arguments in the body; MessageMalformed or ContentDisallowed for anything else.

    *limit* bounds the uncompressed size in bytes.
    """
    properties, body = message.properties, message.body
    compression = properties.headers.get("compression")
    if compression is not None:
        if not isinstance(compression, str):
            raise MessageMalformed("header `compression` is not text")
        body = codec.decompress(body, compression, limit)
    elif len(body) > limit:
        raise MessageMalformed(f"body is larger than {limit} bytes")
    value = codec.loads(body, properties.content_type, properties.content_encoding, accept)
    if isinstance(value, dict):
        raise MessageMalformed(
            "body is a mapping, as in protocol 1; a Celery producer needs task_protocol = 2"
        )
    if not isinstance(value, list) or len(value) != 3:
        raise MessageMalformed("body is not a list of args, kwargs and embed")
    args, kwargs, embed = value
    if not isinstance(args, list):
        raise MessageMalformed("args are not a list")
    if not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
        raise MessageMalformed("kwargs are not a mapping with text keys")
    if embed is None:
        embed = {}
    if not isinstance(embed, dict):
        raise MessageMalformed("embed is not a mapping")
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


def _flaw(value: object) -> str | None:
    """What keeps *value* from naming a task or a run of it; None if nothing does."""
    if value is None:
        return "is missing"
    if not isinstance(value, str):
        return "is not text"
    if not value:
        return "is empty"
    if not value.isprintable():
        return "has control characters"
    if len(value) > 63 and len(value.encode()) > 255:  # correlation_id is a short string
        return "is longer than 255 bytes"
    return None


def _refuse_taken(extra: Mapping[str, Any]) -> None:
    for name in extra:
        if name in _KNOWN or str(name).startswith("taskq-"):
            raise ValueError(f"header {name!r} is the protocol's own; choose another name")


def _date(name: str, moment: float | None) -> str | None:
    if moment is None:
        return None
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{name} {moment!r} is outside the years 1 to 9999") from None


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


def _shown(value: Any, size: int) -> str:
    """The repr of *value*, whose encoding has *size* bytes, whatever its own __repr__ does."""
    try:
        text = repr(value) if size <= 2 * MAX_REPR else _REPR.repr(value)
    except SoftTimeLimitExceeded:  # meant for the task that is sending this one
        raise
    except Exception:
        return "..."
    if len(text) > MAX_REPR:
        text = text[: MAX_REPR - 3] + "..."
    return text if text.isascii() else text.encode(errors="replace").decode()


# -- reading -------------------------------------------------------------------------------------


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(name: str, value: object) -> int:
    if value is None:
        return 0
    if type(value) is not int or value < 0:
        raise MessageMalformed(f"header `{name}` is not a count: {value!r:.60}")
    return value


def _limits(value: object) -> tuple[float | None, float | None]:
    """Hard and soft time limit; 0 means none, as in Celery."""
    if value is None:
        return None, None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise MessageMalformed(f"header `timelimit` is not a pair: {value!r:.60}")
    hard, soft = value
    return _limit(hard), _limit(soft)


def _limit(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        seconds = float(value)
        if 0 <= seconds < math.inf:
            return seconds or None
    raise MessageMalformed(f"header `timelimit` holds no seconds: {value!r:.60}")


def _moment(name: str, value: object) -> float | None:
    """Seconds since the epoch; text without an offset is in UTC."""
    if value is None:
        return None
    try:
        date = value if isinstance(value, datetime) else datetime.fromisoformat(value)  # type: ignore[arg-type]  # TypeError below
        if date.utcoffset() is None:
            date = date.replace(tzinfo=UTC)
        return date.timestamp()
    except (TypeError, ValueError, OverflowError):
        raise MessageMalformed(f"header `{name}` is not an ISO 8601 date: {value!r:.60}") from None


def _extra(headers: Mapping[str, Any]) -> dict[str, Any] | None:
    own = headers.keys() - _KNOWN
    return {name: headers[name] for name in own if not name.startswith("taskq-")} or None
