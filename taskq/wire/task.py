"""Task messages: Celery's task protocol 2, with taskq's own headers under `taskq-`.

To be written: see the contract below.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskq.wire.message import Message


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

    Raises EncodeError for arguments that would not come back equal and ValueError for user headers
    (`headers.extra`) that carry a protocol name or are too large.  argsrepr and kwargsrepr are
    made here when empty.
    """
    raise NotImplementedError


def read_headers(message: Message) -> TaskHeaders:
    """The checked headers; MessageMalformed with one short reason for anything else."""
    raise NotImplementedError


def open_body(message: Message, accept: Iterable[str], limit: int) -> Body:
    """The arguments in the body; MessageMalformed or ContentDisallowed for anything else.

    *limit* bounds the uncompressed size in bytes.
    """
    raise NotImplementedError


def resend(message: Message, headers: Mapping[str, Any] | None = None, **properties: Any) -> Message:
    """*message* made fit to be published again, with some *headers* and *properties* changed.

    The only place that strips what brokers added (the x-death family, x-delivery-count, CC, BCC,
    taskq-route) and `expiration`.  A header given as None stays, as None.
    """
    raise NotImplementedError
