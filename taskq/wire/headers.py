"""The headers of a task message: Celery's task protocol 2, with taskq's own under `taskq-`.

Reading is on the path of every task, twice (the worker's parent decides by them, the child runs by
them), and most of what they say is the same for all messages of one task.  So what varies stands
together, behind what does not: both directions know the constant part by its bytes.  Bodies and
whole messages are `wire.task`'s.  Facts about the protocol are from Celery 5.7, seen on the wire.
"""

import math
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from taskq.errors import MessageMalformed
from taskq.wire import table
from taskq.wire.message import Message

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

_TAKEN = BROKER_HEADERS.union(PROTOCOL_HEADERS, ("compression",))


class TaskHeaders(NamedTuple):
    """What the headers of one task message say, checked; moments are seconds since the epoch.

    *extra* holds the headers that are no part of the protocol: the sender's own.
    """

    task: str
    id: str
    root_id: str | None = None
    parent_id: str | None = None
    argsrepr: str = ""
    kwargsrepr: str = ""
    # What follows is the same for most messages of a task.
    retries: int = 0
    eta: float | None = None
    expires: float | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool | None = None
    group: str | None = None
    group_index: int | None = None
    shadow: str | None = None
    origin: str | None = None
    crashes: int = 0
    extra: Mapping[str, Any] | None = None


# -- writing -------------------------------------------------------------------------------------

_ID, _ROOT_ID, _PARENT_ID = b"\x02idS", b"\x07root_idS", b"\x09parent_idS"
_NO_PARENT_ID = b"\x09parent_idV"
_ARGSREPR, _KWARGSREPR = b"\x08argsreprS", b"\x0akwargsreprS"
_SELDOM = b"\x03etaV\x07expiresV\x05groupV\x0bgroup_indexV\x06shadowV"
_LENGTH = struct.Struct(">I")
_size = _LENGTH.pack


def write_headers(
    headers: TaskHeaders,
    compression: str | None = None,
    argsrepr: str | None = None,
    kwargsrepr: str | None = None,
) -> bytes:
    """*headers* as a field table, its length bytes included; with the *compression* of the body.

    *argsrepr* and *kwargsrepr* stand in place of those of *headers*, where they are given.
    ValueError for a task or id that cannot be one, and for own headers (*extra*) that carry a name
    of the protocol or hold what no table can.
    """
    task, task_id = headers.task, headers.id
    if (flaw := _flaw(task_id)) is not None:
        raise ValueError(f"the id {task_id!r:.80} {flaw}")
    parts = [
        b"",
        _constant(
            task,
            headers.retries,
            headers.time_limit,
            headers.soft_time_limit,
            headers.ignore_result,
            headers.origin,
        ),
        _SELDOM
        if headers[12:15] == (None, None, None) and headers[7:9] == (None, None)
        else _seldom(headers),
    ]
    encoded_id = _text(task_id)
    root_id, parent_id = headers.root_id, headers.parent_id
    parts += (
        _ID,
        encoded_id,
        _ROOT_ID,
        encoded_id if root_id is None or root_id == task_id else _text(root_id),
        _NO_PARENT_ID if parent_id is None else _PARENT_ID + _text(parent_id),
        _ARGSREPR,
        _text(headers.argsrepr if argsrepr is None else argsrepr),
        _KWARGSREPR,
        _text(headers.kwargsrepr if kwargsrepr is None else kwargsrepr),
    )
    if headers.crashes or headers.extra or compression:
        parts.append(_own(headers, compression))
    parts[0] = _size(sum(map(len, parts)))
    return b"".join(parts)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _size(len(encoded)) + encoded


@lru_cache(maxsize=1024)
def _constant(
    task: str,
    retries: int,
    time_limit: float | None,
    soft_time_limit: float | None,
    ignore_result: bool | None,
    origin: str | None,
) -> bytes:
    """What one process sends with every call of a task."""
    if (flaw := _flaw(task)) is not None:
        raise ValueError(f"the task {task!r:.80} {flaw}")
    return table.encode(
        {
            "lang": "py",
            "task": task,
            "retries": retries,
            "timelimit": [time_limit, soft_time_limit],
            "origin": origin,
            "ignore_result": ignore_result,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
            "taskq-v": VERSION,
        }
    )[4:]


def _seldom(headers: TaskHeaders) -> bytes:
    """What most calls leave void."""
    fields = {
        "eta": _date("eta", headers.eta),
        "expires": _date("expires", headers.expires),
        "group": headers.group,
        "group_index": headers.group_index,
        "shadow": headers.shadow,
    }
    return table.encode(fields)[4:]


def _own(headers: TaskHeaders, compression: str | None) -> bytes:
    fields = dict(headers.extra or {})
    for name in fields:
        if name in _TAKEN or str(name).startswith("taskq-"):
            raise ValueError(f"header {name!r} is the protocol's own; choose another name")
    if headers.crashes:
        fields["taskq-crashes"] = headers.crashes
    if compression:
        fields["compression"] = compression
    return table.encode(fields)[4:]


def _date(name: str, moment: float | None) -> str | None:
    if moment is None:
        return None
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{name} {moment!r} is outside the years 1 to 9999") from None


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


# -- reading -------------------------------------------------------------------------------------

#: The bytes of headers before `id` -> the task's name, and the fields that they fix.
_known: dict[bytes, tuple[str, tuple[Any, ...]]] = {}
_MOST_KNOWN = 1024
#: The place in `TaskHeaders` where the fixed fields begin.
_FIXED = TaskHeaders._fields.index("retries")

_make = tuple.__new__
_length = _LENGTH.unpack_from


def read_headers(message: Message) -> TaskHeaders:
    """The checked headers; MessageMalformed with one short reason for anything else.

    Only what decides how the task runs is checked; a field that is for people or results only, and
    is not what it should be, counts as absent.
    """
    raw = message.raw
    try:
        # Content type and encoding, headers, delivery mode, priority and correlation id: what
        # `write_headers` makes, with a reply_to or without.
        if raw[0] | 2 == 0xFE and not raw[1] and raw[2]:
            start = 8 + raw[2] + raw[3 + raw[2]]
            at = raw.index(_ID, start)
            prefix = raw[start:at]
            known = _known.get(prefix)
            varying = _varying(raw, at, start + _length(raw, start - 4)[0])
            if known is not None:
                return _make(TaskHeaders, (known[0], *varying, *known[1]))
            checked = _check(message)
            _learn(prefix, checked)
            return checked
    except (IndexError, ValueError, struct.error):
        pass  # not written by `write_headers`
    return _check(message)


def _varying(raw: bytes, at: int, stop: int) -> tuple[str, str, str | None, str, str]:
    """The fields from `id`, at *at*, to the table's end at *stop*.

    ValueError if they are not just these, or if what follows the table is not whole.
    """
    at += 8
    end = at + _length(raw, at - 4)[0]
    task_id = raw[at:end].decode()
    if _flaw(task_id) is not None or not raw.startswith(_ROOT_ID, end):
        raise ValueError
    at = end + 13
    end = at + _length(raw, at - 4)[0]
    root_id = raw[at:end].decode()
    parent_id = None
    if raw.startswith(_NO_PARENT_ID, end):
        end += 11
    elif raw.startswith(_PARENT_ID, end):
        at = end + 15
        end = at + _length(raw, at - 4)[0]
        parent_id = raw[at:end].decode()
    if not raw.startswith(_ARGSREPR, end):
        raise ValueError
    at = end + 14
    end = at + _length(raw, at - 4)[0]
    argsrepr = raw[at:end].decode()
    if not raw.startswith(_KWARGSREPR, end):
        raise ValueError
    at = end + 16
    end = at + _length(raw, at - 4)[0]
    after = stop + 3 + raw[stop + 2]
    if raw[0] & 2:  # a reply_to
        after += 1 + raw[after]
    # Ids are ASCII here, or decoded in full: what is no text is no property.
    if end != stop or after != len(raw) or not raw[stop + 2 :].isascii():
        raise ValueError
    return task_id, root_id, parent_id, argsrepr, raw[at:end].decode()


def _learn(prefix: bytes, headers: TaskHeaders) -> None:
    """Remember what *prefix* fixes, if it is whole and says it for every message."""
    fields, _ = table.decode(_size(len(prefix)) + prefix)
    if headers.eta is None and headers.expires is None and not fields.keys() & _VARY:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[prefix] = (headers.task, headers[_FIXED:])


_VARY = {"id", "root_id", "parent_id", "argsrepr", "kwargsrepr"}


def _check(message: Message) -> TaskHeaders:
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
        root_id=_word(get("root_id")),
        parent_id=_word(get("parent_id")),
        argsrepr=_word(get("argsrepr")) or "",
        kwargsrepr=_word(get("kwargsrepr")) or "",
        retries=_count("retries", get("retries")),
        eta=_moment("eta", get("eta")),
        expires=_moment("expires", get("expires")),
        time_limit=time_limit,
        soft_time_limit=soft_time_limit,
        ignore_result=ignore_result if isinstance(ignore_result, bool) else None,
        group=_word(get("group")),
        group_index=group_index if type(group_index) is int else None,
        shadow=_word(get("shadow")),
        origin=_word(get("origin")),
        crashes=_count("taskq-crashes", get("taskq-crashes")),
        extra=_extra(headers),
    )


def _word(value: object) -> str | None:
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
    own = headers.keys() - _TAKEN
    return {name: headers[name] for name in own if not name.startswith("taskq-")} or None
