"""Which task is running here: what `self.request` shows, and whose child a sent task is.

A context variable holds it, so that threads and coroutines each see their own.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from taskq import clock
from taskq.wire.headers import TaskHeaders
from taskq.wire.message import Labels


@dataclass(slots=True)
class Request:
    """One run of a task; moments are ISO 8601 text, as Celery has them.

    *called_directly* is a plain call of the function, outside any run.
    """

    task: str | None = None
    id: str | None = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 0
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    shadow: str | None = None
    #: The sender's own headers, None if there are none.
    headers: Mapping[str, Any] | None = None
    #: exchange, routing_key, priority, redelivered.
    delivery_info: Mapping[str, Any] = field(default_factory=dict)
    hostname: str | None = None
    origin: str | None = None
    eta: str | None = None
    expires: str | None = None
    #: Hard and soft limit in seconds.
    timelimit: tuple[float | None, float | None] = (None, None)
    reply_to: str | None = None
    correlation_id: str | None = None
    ignore_result: bool | None = None
    serializer: str | None = None
    is_eager: bool = False
    called_directly: bool = True

    @classmethod
    def of(
        cls,
        headers: TaskHeaders,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        delivery_info: Mapping[str, Any],
        hostname: str | None,
        labels: Labels,
        serializer: str | None,
    ) -> "Request":
        """The run that a message with *headers* and *labels* asks for, as it came and where it is.

        *serializer* is the name of the one by which its arguments came.
        """
        return cls(  # by position, because by name takes three times as long
            headers.task,
            headers.id,
            args,
            kwargs,
            headers.retries,
            headers.root_id,
            headers.parent_id,
            headers.group,
            headers.group_index,
            headers.shadow,
            headers.extra or None,
            delivery_info,
            hostname,
            headers.origin,
            _iso(headers.eta),
            _iso(headers.expires),
            (headers.time_limit, headers.soft_time_limit),
            labels.reply_to,
            labels.correlation_id,
            headers.ignore_result,
            serializer,
            False,  # not eager
            False,  # not called directly
        )


def _iso(moment: float | None) -> str | None:
    return None if moment is None else clock.utc(moment).isoformat()


_current: ContextVar[Request | None] = ContextVar("taskq_request", default=None)


def current_request() -> Request | None:
    """The run that this code is part of, None outside of tasks."""
    return _current.get()


class running:  # noqa: N801  # read as a verb: `with running(request):`
    """Makes *request* the current one for the length of the block."""

    __slots__ = ("_request", "_token")

    def __init__(self, request: Request) -> None:
        self._request = request

    def __enter__(self) -> Request:
        self._token = _current.set(self._request)
        return self._request

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
