"""How one call is to be sent, merged once from what call, route, task and settings say."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypedDict, Unpack

from taskq.settings import closest


class CallOptions(TypedDict, total=False):
    """What `apply_async` and `send_task` take, with Celery's names; None leaves it to others.

    *countdown* is seconds from now, *eta* a moment; *expires* is either.  *headers* are the
    sender's own and travel with the task.  *confirm* matters inside a task only: wait until the
    broker has the message, not just the worker.
    """

    queue: str | None
    exchange: str | None
    routing_key: str | None
    priority: int | None
    expires: float | timedelta | datetime | None
    countdown: float | None
    eta: datetime | None
    task_id: str | None
    headers: Mapping[str, Any] | None
    serializer: str | None
    compression: str | None
    ignore_result: bool | None
    time_limit: float | None
    soft_time_limit: float | None
    shadow: str | None
    confirm: bool | None


class Options(NamedTuple):
    """One call's options, merged; None means that nobody said anything."""

    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    expires: float | timedelta | datetime | None = None
    countdown: float | None = None
    eta: datetime | None = None
    task_id: str | None = None
    headers: Mapping[str, Any] | None = None
    serializer: str | None = None
    compression: str | None = None
    ignore_result: bool | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    shadow: str | None = None
    confirm: bool | None = None
    # -- set by taskq itself when it sends a task again --------------------------------------
    retries: int | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    reply_to: str | None = None

    @classmethod
    def merged(cls, *layers: Mapping[str, Any]) -> "Options":
        """The options of *layers*, strongest last; None gives way to anything.

        A layer that names a queue or an exchange says where to go alone: nothing of a weaker
        layer's place is mixed in.  TypeError for an option that there is not, with the one that was
        probably meant.
        """
        found: dict[str, Any] = {}
        for layer in layers:
            if layer.get("queue") or layer.get("exchange"):
                for name in _PLACE:
                    found.pop(name, None)
            for name, value in layer.items():
                if value is not None:
                    found[name] = value
        if not _NAMES.issuperset(found):
            unknown = next(name for name in found if name not in _NAMES)
            near = closest(unknown, _NAMES)
            raise TypeError(
                f"there is no option {unknown!r}" + (f"; did you mean {near!r}?" if near else "")
            )
        return cls(**found)


_NAMES = frozenset(Options._fields)
_PLACE = ("queue", "exchange", "routing_key")


@dataclass(frozen=True, slots=True)
class Signature:
    """A call that is not made yet: a task's name with arguments and options."""

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    #: The result of a task before it is not put in front of its arguments.
    immutable: bool = False
    #: The task itself, where its code is known.
    type: Any = field(default=None, compare=False, repr=False)

    def set(self, **options: Unpack[CallOptions]) -> "Signature":
        """This call with further *options*."""
        return replace(self, options={**self.options, **options})
