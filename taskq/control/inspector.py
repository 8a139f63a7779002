"""The caller's side of remote control: `app.control`, with the names that Celery's users know.

What must outlive a worker goes out as the app's tasks do, confirmed, and into a log; all else is
said, and replies are heard, in the caller's own thread (`conversation`).  How workers obey is the
business of `mailbox`.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from taskq import clock
from taskq.broker.base import Broker, Route
from taskq.broker.topology import logged
from taskq.control import commands
from taskq.control.arguments import QUEUE
from taskq.control.base import LOG, REPLIES, REQUESTS, Reply
from taskq.control.conversation import Conversation
from taskq.errors import PublishError
from taskq.wire.control import Request, write_request
from taskq.wire.message import Message

#: One id or name, or several.
Several = str | Sequence[str]


class Asking(TypedDict, total=False):
    """Who is meant and how long replies are waited for; see `Control.broadcast`."""

    destination: Sequence[str] | None
    reply: bool
    timeout: float
    limit: int | None
    callback: Callable[[Mapping[str, Reply]], object] | None
    pattern: str | None
    matcher: str | None


class Control:
    """Steers workers; any thread may use it, and a forked child, too.

    *publish* sends a message and returns when the broker has it; *physical* gives the name on the
    broker of a queue; *patience* is how many seconds may pass until replies can be heard.
    """

    def __init__(
        self,
        broker: Callable[[], Broker],
        publish: Callable[[Message, Route], None],
        physical: Callable[[str], str],
        patience: Callable[[], float],
    ) -> None:
        self._broker = broker
        self._publish = publish
        self._physical = physical
        self._patience = patience

    def inspect(
        self,
        destination: Several | None = None,
        timeout: float = 1.0,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> "Inspect":
        """Questions to the nodes in *destination*, or to all; see `broadcast`."""
        named = [destination] if isinstance(destination, str) else destination
        return Inspect(self, named, timeout, pattern, matcher)

    # -- sending -------------------------------------------------------------------------------

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        reply: bool = False,
        timeout: float = 1.0,
        limit: int | None = None,
        callback: Callable[[Mapping[str, Reply]], object] | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> list[dict[str, Reply]]:
        """Send *command* to the nodes in *destination*, to those that fit *pattern*, or to all.

        *matcher* says what the pattern is: "glob" or "pcre".  With *reply* this waits, and returns
        `{node: reply}` for each that came; *callback* hears each as it comes.  Waiting ends when
        all of *destination*, or *limit* nodes, have answered, else when none has for *timeout*
        seconds.

        What outlives a worker (revoke, pause, limits) is there for those that start later when this
        returns, PublishError if the broker has not got it.  BrokerUnavailable if it cannot be
        reached.  CommandError for arguments that no worker would take; a command that taskq does
        not know is sent all the same, as other workers may.
        """
        if not reply:
            request = self._request(command, arguments, destination, timeout, pattern, matcher)
            if _lasts(command):
                self._publish_lasting(request)
            else:
                with self._conversation(None) as conversation:
                    conversation.say(write_request(request))
            return []
        found = []
        for node, said in self.stream(
            command, arguments, destination, timeout, limit, pattern, matcher
        ):
            found.append({node: said})
            if callback is not None:
                callback(found[-1])
        return found

    def stream(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        timeout: float = 1.0,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> Iterator[tuple[str, Reply]]:
        """Nodes and their replies as they come; as `broadcast`.

        The command is sent when the first is asked for.
        """
        request = self._request(
            command, arguments, destination, timeout, pattern, matcher, secrets.token_hex(16)
        )
        if limit is None and destination:
            limit = len(set(destination))
        return self._replies(request, timeout, limit)

    def _replies(
        self, request: Request, timeout: float, limit: int | None
    ) -> Iterator[tuple[str, Reply]]:
        lasts = _lasts(request.method)
        with self._conversation(request.ticket, speaks=not lasts) as conversation:
            if lasts:
                self._publish_lasting(request)
            else:
                conversation.say(write_request(request))
            while limit is None or limit > 0:
                if (heard := conversation.next(timeout)) is None:
                    return
                limit = None if limit is None else limit - 1
                yield heard

    def _conversation(self, ticket: str | None, *, speaks: bool = True) -> Conversation:
        return Conversation(self._broker(), ticket, speaks, self._patience())

    def _publish_lasting(self, request: Request) -> None:
        try:
            self._publish(write_request(request), logged(LOG, REQUESTS))
        except PublishError as error:
            why = error.__cause__ or error
            told = f"the command {request.method} was not sent to {self._broker().url}: {why}"
            raise type(error)(told) from error

    def _request(
        self,
        command: str,
        arguments: Mapping[str, Any] | None,
        destination: Sequence[str] | None,
        timeout: float,
        pattern: str | None,
        matcher: str | None,
        ticket: str | None = None,
    ) -> Request:
        given = {name: value for name, value in (arguments or {}).items() if value is not None}
        if (known := commands.BY_NAME.get(command)) is not None:
            known.read(given)
            for argument in known.arguments:
                if argument.kind is QUEUE:
                    given[argument.name] = self._physical(given[argument.name])
        return Request(
            command,
            given,
            tuple(destination) if destination else None,
            pattern,
            matcher,
            ticket,
            None if ticket is None else (REPLIES, ticket),
            expires=clock.wall() + timeout,
        )

    # -- commands ------------------------------------------------------------------------------

    def ping(
        self, destination: Sequence[str] | None = None, timeout: float = 1.0
    ) -> list[dict[str, Reply]]:
        """Who is there: `[{node: {"ok": "pong"}}]`."""
        return self.broadcast("ping", destination=destination, reply=True, timeout=timeout)

    def revoke(
        self,
        task_id: Several,
        terminate: bool = False,
        signal: str | int | None = None,
        **asking: Unpack[Asking],
    ) -> list[dict[str, Reply]]:
        """Have tasks never run, also on workers that start later; with *terminate*, end those that
        do by *signal*, SIGTERM if nothing else is said.
        """
        given = {"task_id": _list(task_id), "terminate": terminate, "signal": signal}
        return self._tell("revoke", given, asking)

    def terminate(
        self,
        task_id: Several,
        signal: str | int | None = None,
        **asking: Unpack[Asking],
    ) -> list[dict[str, Reply]]:
        """As `revoke`, with *terminate*."""
        return self.revoke(task_id, True, signal, **asking)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Several],
        terminate: bool = False,
        signal: str | int | None = None,
        **asking: Unpack[Asking],
    ) -> list[dict[str, Reply]]:
        """As `revoke`, for all tasks that carry one of these stamps: name -> value, or several."""
        stamps = {name: _list(values) for name, values in headers.items()}
        given = {"headers": stamps, "terminate": terminate, "signal": signal}
        return self._tell("revoke_by_stamped_headers", given, asking)

    def rate_limit(
        self,
        task_name: str,
        rate_limit: str | float | None,
        **asking: Unpack[Asking],
    ) -> list[dict[str, Reply]]:
        """Have each worker begin a task no more often than that: "10/s", "100/m", "5/h", 0: any."""
        given = {"task_name": task_name, "rate_limit": rate_limit or "0"}
        return self._tell("rate_limit", given, asking)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        **asking: Unpack[Asking],
    ) -> list[dict[str, Reply]]:
        """Limit the seconds of a task's runs from now on; None lifts that limit."""
        given = {"task_name": task_name, "hard": hard, "soft": soft}
        return self._tell("time_limit", given, asking)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str | None = None,
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        **asking: Unpack[Asking],
    ) -> list[dict[str, Reply]]:
        """Have workers take from one more queue."""
        given = {
            **(options or {}),
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
        }
        return self._tell("add_consumer", given, asking)

    def cancel_consumer(self, queue: str, **asking: Unpack[Asking]) -> list[dict[str, Reply]]:
        """Have workers take no more from a queue."""
        return self._tell("cancel_consumer", {"queue": queue}, asking)

    def pause(self, queue: str, **asking: Unpack[Asking]) -> list[dict[str, Reply]]:
        """Have no worker take from a queue, also those that start later."""
        return self._tell("pause", {"queue": queue}, asking)

    def resume(self, queue: str, **asking: Unpack[Asking]) -> list[dict[str, Reply]]:
        """Have workers take from a paused queue again."""
        return self._tell("resume", {"queue": queue}, asking)

    def drain(self, **asking: Unpack[Asking]) -> list[dict[str, Reply]]:
        """Have workers take nothing more, finish what they hold, and stay up."""
        return self._tell("drain", {}, asking)

    def undrain(self, **asking: Unpack[Asking]) -> list[dict[str, Reply]]:
        """Have drained workers take messages again."""
        return self._tell("undrain", {}, asking)

    def pool_grow(self, n: int = 1, **asking: Unpack[Asking]) -> list[dict[str, Reply]]:
        """Give workers *n* more children."""
        return self._tell("pool_grow", {"n": n}, asking)

    def pool_shrink(self, n: int = 1, **asking: Unpack[Asking]) -> list[dict[str, Reply]]:
        """Take *n* children from workers, when they have finished what they run."""
        return self._tell("pool_shrink", {"n": n}, asking)

    def pool_restart(self, **asking: Unpack[Asking]) -> list[dict[str, Reply]]:
        """Have workers import their app afresh; children are replaced as they finish."""
        return self._tell("pool_restart", {}, asking)

    def autoscale(
        self,
        max: int,
        min: int,
        **asking: Unpack[Asking],
    ) -> list[dict[str, Reply]]:
        """Give workers that scale themselves other bounds."""
        return self._tell("autoscale", {"max": max, "min": min}, asking)

    def enable_events(self, **asking: Unpack[Asking]) -> list[dict[str, Reply]]:
        """Have workers tell monitors what becomes of tasks."""
        return self._tell("enable_events", {}, asking)

    def disable_events(self, **asking: Unpack[Asking]) -> list[dict[str, Reply]]:
        """Have workers tell monitors of tasks no more."""
        return self._tell("disable_events", {}, asking)

    def heartbeat(self, **asking: Unpack[Asking]) -> list[dict[str, Reply]]:
        """Have workers tell monitors now that they live."""
        return self._tell("heartbeat", {}, asking)

    def shutdown(self, **asking: Unpack[Asking]) -> list[dict[str, Reply]]:
        """Have workers stop as on TERM; none replies."""
        return self._tell("shutdown", {}, asking)

    def _tell(
        self, command: str, given: Mapping[str, Any], asking: Asking
    ) -> list[dict[str, Reply]]:
        return self.broadcast(command, given, **asking)


class Inspect:
    """Questions to some workers; each gives `{node: reply}`, or None where none answered."""

    def __init__(
        self,
        control: Control,
        destination: Sequence[str] | None,
        timeout: float,
        pattern: str | None,
        matcher: str | None,
    ) -> None:
        self._control = control
        self._destination = destination
        self._timeout = timeout
        self._pattern = pattern
        self._matcher = matcher

    def ping(self, destination: Sequence[str] | None = None) -> dict[str, Reply] | None:
        """Who is there: `{"ok": "pong"}`."""
        if destination:
            return self._control.inspect(destination, self._timeout).ping()
        return self._ask("ping")

    def stats(self) -> dict[str, Reply] | None:
        """Numbers about each worker."""
        return self._ask("stats")

    def active(self, safe: bool | None = None) -> dict[str, Reply] | None:
        """Tasks that children have in hand; *safe*: their arguments as text."""
        return self._ask("active", safe=safe)

    def reserved(self, safe: bool | None = None) -> dict[str, Reply] | None:
        """Tasks that wait for a child."""
        return self._ask("reserved", safe=safe)

    def scheduled(self, safe: bool | None = None) -> dict[str, Reply] | None:
        """Tasks that wait in the worker for their time, which is short; the broker has the rest."""
        return self._ask("scheduled", safe=safe)

    def revoked(self) -> dict[str, Reply] | None:
        """Ids of revoked tasks that are remembered."""
        return self._ask("revoked")

    def registered(self, *taskinfoitems: str) -> dict[str, Reply] | None:
        """Names of tasks, with those of their attributes that are asked for."""
        return self._ask("registered", taskinfoitems=list(taskinfoitems) or None)

    def active_queues(self) -> dict[str, Reply] | None:
        """The queues that each takes from."""
        return self._ask("active_queues")

    def conf(self, with_defaults: bool = False) -> dict[str, Reply] | None:
        """Settings, secrets masked."""
        return self._ask("conf", with_defaults=with_defaults)

    def report(self) -> dict[str, Reply] | None:
        """Versions and settings as text."""
        return self._ask("report")

    def query_task(self, *ids: Several) -> dict[str, Reply] | None:
        """Where these tasks are: `{id: [state, request info]}` of those that are in a worker."""
        return self._ask("query_task", ids=[each for some in ids for each in _list(some)])

    def clock(self) -> dict[str, Reply] | None:
        """The logical clock of each."""
        return self._ask("clock")

    def hello(self, from_node: str, revoked: Sequence[str] = ()) -> dict[str, Reply] | None:
        """What each remembers of revoked tasks; it remembers those that are told, too."""
        return self._ask("hello", from_node=from_node, revoked=list(revoked))

    def memsample(self) -> dict[str, Reply] | None:
        """How much memory the parent process of each takes, as text."""
        return self._ask("memsample")

    def dump(self) -> dict[str, Reply] | None:
        """Python stacks of all children, none of which is stopped: process id -> text."""
        return self._ask("dump")

    def _ask(self, command: str, **arguments: Any) -> dict[str, Reply] | None:
        replies = self._control.stream(
            command,
            arguments,
            self._destination,
            self._timeout,
            None,
            self._pattern,
            self._matcher,
        )
        return dict(replies) or None


def _lasts(command: str) -> bool:
    known = commands.BY_NAME.get(command)
    return known is not None and known.change is not None


def _list(several: Several) -> list[str]:
    return [several] if isinstance(several, str) else list(several)
