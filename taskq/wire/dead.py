"""Dead letters: the headers that tell why a message was given up.

The worker adds them to the copy that it sends to `<queue>.dead`; `taskq dead` reads them.  The rest
of a dead letter is the message as it was, so that it can be sent again.  RabbitMQ's own word about
a death, `x-death`, is read here too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

#: Undecodable properties cannot be sent on; this many bytes of them are kept in a header instead.
MAX_KEPT = 16 * 1024

#: Longest text in bytes of UTF-8, by header.  Together, with names and numbers, they stay below
#: 16 KiB, so that a dead letter fits a frame when the message did.
_LIMITS = {
    "taskq-dead-queue": 255,
    "taskq-dead-reason": 1024,
    "taskq-dead-exception": 255,
    "taskq-dead-message": 2048,
    "taskq-dead-traceback": 12_000,
    "taskq-dead-worker": 255,
}

#: What the names of all of them begin with.
_PREFIX = "taskq-dead-"

_CUT = "..."


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a message was given up, as far as its headers tell; *died_at* is seconds since the epoch.

    *properties* are the raw properties of a message that had none that could be decoded.
    """

    queue: str
    reason: str
    exception_type: str = ""
    exception: str = ""
    traceback: str = ""
    attempts: int = 0
    worker: str = ""
    died_at: float = 0.0
    properties: bytes | None = None


def dead_headers(
    *,
    queue: str,
    reason: str,
    exception_type: str,
    exception: str,
    traceback: str,
    attempts: int,
    worker: str,
    died_at: float,
) -> dict[str, Any]:
    """The headers of a dead letter, at most 16 KiB encoded; of the traceback the end is kept.

    All of them are there, so that none is left over from an earlier death.
    """
    texts = {
        "taskq-dead-queue": queue,
        "taskq-dead-reason": reason,
        "taskq-dead-exception": exception_type,
        "taskq-dead-message": exception,
        "taskq-dead-worker": worker,
    }
    return {
        **{name: _head(text, _LIMITS[name]) for name, text in texts.items()},
        "taskq-dead-traceback": _tail(traceback, _LIMITS["taskq-dead-traceback"]),
        "taskq-dead-attempts": attempts,
        "taskq-dead-at": died_at,
    }


def read(headers: Mapping[str, Any]) -> DeadLetter | None:
    """What *headers* tell of a death; None if the worker did not write any.

    A message that the broker itself dead-lettered has none, only `x-death`.
    """
    if not isinstance(headers.get("taskq-dead-reason"), str):
        return None
    text = {name: value for name in _LIMITS if isinstance(value := headers.get(name), str)}
    attempts, died_at = headers.get("taskq-dead-attempts"), headers.get("taskq-dead-at")
    properties = headers.get("taskq-dead-properties")
    return DeadLetter(
        queue=text.get("taskq-dead-queue", ""),
        reason=text["taskq-dead-reason"],
        exception_type=text.get("taskq-dead-exception", ""),
        exception=text.get("taskq-dead-message", ""),
        traceback=text.get("taskq-dead-traceback", ""),
        attempts=attempts if isinstance(attempts, int) else 0,
        worker=text.get("taskq-dead-worker", ""),
        died_at=float(died_at) if isinstance(died_at, int | float) else 0.0,
        properties=properties if isinstance(properties, bytes) else None,
    )


def read_x_death(headers: Mapping[str, Any]) -> DeadLetter | None:
    """What RabbitMQ tells of the latest time that it dead-lettered a message itself, if it did.

    https://www.rabbitmq.com/docs/dlx#effects: the newest death comes first.
    """
    match headers.get("x-death"):
        case [{"queue": str(queue), "reason": str(reason)} as death, *_]:
            time = death.get("time")
            died_at = time.timestamp() if isinstance(time, datetime) else 0.0
            return DeadLetter(queue, f"dead-lettered by the broker: {reason}", died_at=died_at)
    return None


def without(headers: Mapping[str, Any]) -> dict[str, Any]:
    """*headers* as they were before the worker added those of a dead letter."""
    return {name: value for name, value in headers.items() if not name.startswith(_PREFIX)}


def _head(text: str, limit: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) > limit:
        return encoded[: limit - len(_CUT)].decode(errors="ignore") + _CUT
    return encoded.decode()


def _tail(text: str, limit: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) > limit:
        return _CUT + encoded[len(_CUT) - limit :].decode(errors="ignore")
    return encoded.decode()
