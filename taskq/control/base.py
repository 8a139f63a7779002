"""What a remote command may ask of a worker, without knowing how a worker is made.

`Worker` is implemented by the worker's desk and used by `commands`; everything here runs on the
worker's loop, and nothing may block it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from taskq.control.memory import Change, Remembered
from taskq.errors import TaskqError

__all__ = [
    "LOG",
    "REPLIES",
    "REQUESTS",
    "Change",
    "Clock",
    "CommandError",
    "Later",
    "Remembered",
    "Reply",
    "Worker",
]

#: The exchanges of requests and replies: Celery's, where nobody sets `control_exchange`.
REQUESTS = "celery.pidbox"
REPLIES = "reply.celery.pidbox"
#: The log of all requests, from which workers learn what was decided before they came.
LOG = "taskq.control"

#: What JSON knows: a mapping, a list, a text, a number or None.
Reply = Any


class CommandError(TaskqError):
    """A command cannot be obeyed; its text is the reply `{"error": text}`."""


class Later:
    """A reply that comes later; whoever promised it must `set` it, and soon."""

    def __init__(self) -> None:
        self._reply: Reply = None
        self._is_set = False
        self._callbacks: list[Callable[[Reply], None]] = []

    def set(self, reply: Reply) -> None:
        """This is the reply; what comes after the first counts no more."""
        if self._is_set:
            return
        self._reply, self._is_set = reply, True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(reply)

    def then(self, callback: Callable[[Reply], None]) -> None:
        """Call *callback* with the reply: at once if it is there."""
        if self._is_set:
            callback(self._reply)
        else:
            self._callbacks.append(callback)


class Clock(Protocol):
    """The node's logical clock, which its events show, too."""

    def hear(self, clock: int) -> None:
        """Another's stood at *clock*: what is said from now on comes after that."""

    def tick(self) -> int:
        """Count one on, and say where it stands."""


class Worker(Protocol):
    """One worker, as its operators see it.

    A request info is a mapping of `id`, `name`, `args`, `kwargs`, `type`, `hostname`, `time_start`,
    `acknowledged`, `delivery_info` and `worker_pid`, as Celery's workers show them.  Whatever
    cannot be done raises CommandError.
    """

    @property
    def node(self) -> str:
        """The name that it answers to: `taskq@host`."""

    @property
    def clock(self) -> Clock:
        """The node's logical clock."""

    @property
    def remembered(self) -> Remembered:
        """What it knows that operators decided; changed by the mailbox alone, before `apply`."""

    def apply(self, change: Change) -> None:
        """*change* is in `remembered` from now on: act on what is in hand.

        Called again for what is known already.  At boot it is called before anything is consumed.
        """

    # -- what it is doing ----------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Numbers about it."""

    def active(self, safe: bool) -> list[dict[str, Any]]:
        """Request infos of what is in children's hands; *safe*: arguments as text only."""

    def reserved(self, safe: bool) -> list[dict[str, Any]]:
        """Request infos of what waits for a child."""

    def scheduled(self, safe: bool) -> list[dict[str, Any]]:
        """What waits for its time: `{"eta": ISO text, "priority": number, "request": info}`."""

    def query(self, ids: Collection[str]) -> dict[str, list[Any]]:
        """Of those *ids* that are here: `[state, info]`; active, reserved, scheduled or ready."""

    def registered(self, attributes: Sequence[str]) -> list[str]:
        """Names of its tasks, sorted, each with those *attributes* that it has.

        As `name [rate_limit=10/s]`.
        """

    def knows(self, task: str) -> bool:
        """Whether it has a task of that name."""

    def stamped(self, stamps: Mapping[str, Collection[str]]) -> list[str]:
        """Ids of tasks in children's hands that carry one of these *stamps*: name -> values."""

    def conf(self, with_defaults: bool) -> dict[str, Any]:
        """Its settings, secrets masked: those that were set, or all of them."""

    def report(self) -> str:
        """Versions and settings, for people who ask for help."""

    def active_queues(self) -> list[dict[str, Any]]:
        """The queues it takes from, described as Celery does."""

    def dump(self) -> Later:
        """The Python stacks of its children: process id as text -> text; none is stopped."""

    # -- what it should do ---------------------------------------------------------------------

    def terminate(self, ids: Collection[str], signum: int) -> list[str]:
        """End those tasks of *ids* that run here by a signal, as REVOKED; which they are."""

    def add_consumer(
        self,
        queue: str,
        exchange: str | None,
        exchange_type: str | None,
        routing_key: str | None,
        options: Mapping[str, Any],
    ) -> None:
        """Take from *queue*, too, which is its physical name.

        What is None is as the app's settings say of it.  *options* is whatever else was sent.
        """

    def cancel_consumer(self, queue: str) -> None:
        """Take no more from *queue*, which is its physical name."""

    def pool_grow(self, count: int) -> None:
        """Have so many more children."""

    def pool_shrink(self, count: int) -> None:
        """Have so many children less; what they run is finished."""

    def pool_restart(self) -> None:
        """Import the app afresh, and replace children as they finish."""

    def autoscale(self, most: int | None, least: int | None) -> tuple[int, int]:
        """Have between *least* and *most* children, where it scales itself; what holds now."""

    def enable_events(self) -> bool:
        """Tell monitors what becomes of tasks; whether that is new."""

    def disable_events(self) -> bool:
        """Tell monitors of tasks no more; whether that is new."""

    def heartbeat(self) -> None:
        """Tell monitors now that it lives."""

    def drain(self) -> None:
        """Take nothing more from any queue, finish what is held, and stay up."""

    def undrain(self) -> None:
        """Take messages again."""

    def shutdown(self) -> None:
        """Stop as on TERM: finish what runs."""
