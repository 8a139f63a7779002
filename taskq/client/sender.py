"""What becomes of a call: its options merged, its place found, its message made and published.

::

    name, args, kwargs, options
      ── task.check ─▶ before_publish ─▶ Options ─▶ Route ─▶ Message ─▶ producer ─▶ after_publish
"""

import math
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from taskq import clock, hooks
from taskq.broker.base import Done, Queue, Route
from taskq.client.base import App
from taskq.client.context import Request, current_request
from taskq.client.line import Parcel
from taskq.client.options import Options, Signature
from taskq.client.producer import Producer
from taskq.client.result import AsyncResult, hold
from taskq.client.router import RouterTable
from taskq.client.task import Again, Task
from taskq.errors import EncodeError, PublishError
from taskq.settings import Settings
from taskq.wire import event
from taskq.wire import task as wire
from taskq.wire.headers import TaskHeaders, read_headers
from taskq.wire.message import Message


class _Call(NamedTuple):
    """A call that is ready to be published."""

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    headers: Mapping[str, Any]
    result: AsyncResult[Any]
    parcel: Parcel


class _Usual(NamedTuple):
    """What the calls of a task without options of their own come to, as *router* has it."""

    router: RouterTable
    settled: tuple[Options, Route]


class Sender:
    """Sends the calls of one *app*; *router* and *producer* are asked for at each use."""

    def __init__(
        self, app: App, router: Callable[[], RouterTable], producer: Callable[[], Producer]
    ) -> None:
        self._app = app
        self._router = router
        self._producer = producer
        self._usual: dict[Task[Any, Any], _Usual] = {}
        #: A route, the queue of replies that goes with it, and both together, as last used.
        self._answered: tuple[Route, Queue, Route] | None = None

    def send(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        task: Task[Any, Any] | None = None,
    ) -> AsyncResult[Any]:
        """Send one call, and return when the broker has it."""
        call = self._prepare(name, args, kwargs, options, task)
        self._publish(call)
        return call.result.was_sent()

    async def asend(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        task: Task[Any, Any] | None = None,
    ) -> AsyncResult[Any]:
        """As `send`, without holding up the event loop."""
        call = self._prepare(name, args, kwargs, options, task)
        await self._producer().apublish(call.parcel)
        self._say_sent(call)
        return call.result

    def send_many(self, signatures: Iterable[Signature]) -> list[AsyncResult[Any]]:
        """Send all of them, their confirms awaited together.

        Nothing is sent if one of them cannot be encoded.  An ExceptionGroup of PublishErrors, each
        naming its task and id, says which were not confirmed; the others are queued.
        """
        calls = [
            self._prepare(each.task, each.args, each.kwargs, each.options, each.type)
            for each in signatures
        ]
        answers = self._producer().publish_many([call.parcel for call in calls])
        for call, error in zip(calls, answers, strict=True):
            if error is None:
                self._say_sent(call)
        if errors := [error for error in answers if error is not None]:
            raise ExceptionGroup(f"{len(errors)} of {len(calls)} calls were not confirmed", errors)
        return [call.result for call in calls]

    def hand_over(
        self, call: Signature, publish: Callable[[Message, Route, Done], None], done: Done
    ) -> None:
        """Have *publish* send one call at once; *done* hears what became of it.

        Raises what is wrong with the call itself.
        """
        prepared = self._prepare(call.task, call.args, call.kwargs, call.options, call.type)

        def settle(error: PublishError | None) -> None:
            if error is None:
                self._say_sent(prepared)
            done(error)

        publish(prepared.parcel.message, prepared.parcel.route, settle)

    def send_again(self, task: Task[Any, Any], request: Request, again: Again) -> None:
        """Send the next try of *request*: same id, back to where it came from, as *again* says."""
        info, expires = request.delivery_info, request.expires
        kept = {
            "task_id": request.id,
            "retries": request.retries + 1,
            "root_id": request.root_id,
            "parent_id": request.parent_id,
            "group": request.group,
            "group_index": request.group_index,
            "shadow": request.shadow,
            "headers": request.headers,
            "expires": None if expires is None else datetime.fromisoformat(expires),
            "time_limit": request.timelimit[0],
            "soft_time_limit": request.timelimit[1],
            "ignore_result": request.ignore_result,
            "priority": info.get("priority"),
            "reply_to": request.reply_to,
            "serializer": request.serializer,
            "eta" if isinstance(again.when, datetime) else "countdown": again.when,
        }
        args = request.args if again.new_args is None else again.new_args
        kwargs = request.kwargs if again.new_kwargs is None else again.new_kwargs
        task.check(args, kwargs)
        args, kwargs = task.outgoing(args, kwargs)
        options = Options.merged(task.call_options, kept, again.options)
        if again.options.keys() & {"queue", "exchange", "routing_key"}:
            route = self._router().resolve(options)
        elif "queue" in info:
            # Back to the very queue: its exchange might give the next try to others, too.
            route = Route("", info["queue"])
        else:  # the broker's own names: the router would take them for logical ones
            route = Route(info.get("exchange") or "", info.get("routing_key") or "")
        # It has no new result: what the first try promised is kept by whichever try is the last.
        result: AsyncResult[Any] = AsyncResult(
            options.task_id or new_id(), self._app, task=task.name
        )
        self._publish(self._call(result, args, kwargs, options, route, options.reply_to))

    # -- from call to message ------------------------------------------------------------------

    def _prepare(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        given: Mapping[str, Any],
        task: Task[Any, Any] | None,
    ) -> _Call:
        """A call as its caller means it: routed, part of the running task, its result awaited."""
        if task is not None:
            task.check(args, kwargs)
            args, kwargs = task.outgoing(args, kwargs)
        options, route = self._settled(name, args, kwargs, given, task)
        if (parent := current_request()) is not None:
            root_id, parent_id = options.root_id or parent.root_id or parent.id, parent.id
            options = options._replace(root_id=root_id, parent_id=options.parent_id or parent_id)
        reply_to = options.reply_to
        result: AsyncResult[Any] = AsyncResult(options.task_id or new_id(), self._app, task=name)
        if not options.ignore_result and (replies := self._app.backend.reply_queue()):
            hold(result, self._app)
            route = self._with_replies(route, replies)
            reply_to = replies.name
        return self._call(result, args, kwargs, options, route, reply_to)

    def _settled(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        given: Mapping[str, Any],
        task: Task[Any, Any] | None,
    ) -> tuple[Options, Route]:
        """The options of a call, merged, and where they lead.

        For calls of a task without options of their own these are the same each time, unless a
        router looks at more than the name.
        """
        router = self._router()
        if given or task is None or not router.is_by_name:
            return self._settle(router, name, args, kwargs, given, task)
        known = self._usual.get(task)
        if known is None or known.router is not router:
            settled = self._settle(router, name, args, kwargs, given, task)
            known = self._usual[task] = _Usual(router, settled)
        return known.settled

    def _with_replies(self, route: Route, replies: Queue) -> Route:
        """*route*, with the queue to which its results come."""
        known = self._answered
        if known is None or known[0] is not route or known[1] is not replies:
            both = replace(route, declare=(*route.declare, replies))
            self._answered = known = (route, replies, both)
        return known[2]

    def _settle(
        self,
        router: RouterTable,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        given: Mapping[str, Any],
        task: Task[Any, Any] | None,
    ) -> tuple[Options, Route]:
        defaults: dict[str, Any] = {}
        own: Mapping[str, Any] = {}
        if task is not None:
            own = task.call_options
        if task is not None or self._conf.task_ignore_result:
            defaults["ignore_result"] = self._conf.task_ignore_result
        said = router.said(name, args, kwargs, given, task)
        options = Options.merged(defaults, own, said, given)
        return options, router.resolve(options)

    def _call(
        self,
        result: AsyncResult[Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Options,
        route: Route,
        reply_to: str | None,
    ) -> _Call:
        """The call whose outcome will be *result*, with its message made."""
        conf, name, task_id = self._conf, result.task or "", result.id
        headers = dict(options.headers) if options.headers else {}
        if hooks.before_publish:
            hooks.before_publish.send(
                app=self._app, task=name, task_id=task_id, args=args, kwargs=kwargs, headers=headers
            )
        due, expires = options.countdown or options.eta, options.expires
        if due is not None:
            due = self._moment(due)
        message = wire.encode(
            TaskHeaders(
                task=name,
                id=task_id,
                root_id=options.root_id or task_id,
                parent_id=options.parent_id,
                retries=options.retries or 0,
                eta=due,
                expires=None if expires is None else self._moment(expires),
                time_limit=options.time_limit,
                soft_time_limit=options.soft_time_limit,
                ignore_result=options.ignore_result,
                group=options.group,
                group_index=options.group_index,
                shadow=options.shadow,
                origin=_origin(),
                extra=headers or None,
            ),
            args,
            kwargs,
            serializer=options.serializer or conf.task_serializer,
            compression=options.compression or conf.task_compression,
            priority=_priority(options.priority, conf.task_default_priority),
            reply_to=reply_to,
            longest_repr=conf.repr_max_length,
        )
        if len(message.body) > conf.task_max_payload:
            raise EncodeError(
                f"the arguments of {name}[{task_id}] take {len(message.body):,} bytes, and "
                f"task_max_payload allows {conf.task_max_payload:,}: send where they are kept "
                "instead, or raise that setting here and in the workers"
            )
        if due is not None and due <= clock.wall():
            due = None
        parcel = Parcel(message, route, due, bool(options.confirm))
        return _Call(name, args, kwargs, headers, result, parcel)

    def _publish(self, call: _Call) -> None:
        (error,) = self._producer().publish_many((call.parcel,))
        if error is not None:
            raise error
        self._say_sent(call)

    def _say_sent(self, call: _Call) -> None:
        if self._conf.task_send_sent_event:
            self._tell_monitors(call.parcel)
        if hooks.after_publish:
            hooks.after_publish.send(
                app=self._app,
                task=call.name,
                task_id=call.result.id,
                args=call.args,
                kwargs=call.kwargs,
                headers=call.headers,
                exchange=call.parcel.route.exchange,
                routing_key=call.parcel.route.routing_key,
            )

    def _tell_monitors(self, parcel: Parcel) -> None:
        route, writer = parcel.route, _writer()
        queues = [queue.name for queue in route.declare if queue.kind == "work"]
        queue = queues[0] if queues else route.routing_key if not route.exchange else None
        where = event.Where(queue, route.exchange, route.routing_key)
        told = writer.sent(read_headers(parcel.message), clock.wall(), where)
        key = event.routing_key("task-sent")
        self._producer().broadcast(writer.single(told), event.EXCHANGE, key)

    @property
    def _conf(self) -> Settings:
        return self._app.conf

    def _moment(self, when: float | timedelta | datetime) -> float:
        """*when* as seconds since the epoch: a number or timedelta counts from now.

        A datetime without zone is in the app's `timezone`.  ValueError for what is no time.
        """
        if isinstance(when, datetime):
            if when.utcoffset() is None:
                zone = self._conf.timezone
                when = when.replace(tzinfo=ZoneInfo(zone) if zone else UTC)
            return when.timestamp()
        seconds = when.total_seconds() if isinstance(when, timedelta) else when
        if not isinstance(seconds, int | float) or not math.isfinite(seconds):
            raise ValueError(f"countdown, eta or expires is {when!r}: give seconds or a datetime")
        return clock.wall() + seconds


def new_id() -> str:
    """A random UUID (RFC 9562, version 4) as text; the `uuid` module takes twice as long."""
    drawn = os.urandom(16)
    digits = drawn.hex()
    variant = "89ab"[drawn[8] & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


@cache
def _origin() -> str:
    """The name of this process as a sender."""
    return f"gen{os.getpid()}@{socket.gethostname()}"


def _priority(given: int | None, default: int | None) -> int | None:
    priority = default if given is None else given
    if priority is not None and (not isinstance(priority, int) or not 0 <= priority <= 255):
        raise ValueError(f"priority is {priority!r}: give a number from 0 (lowest) to 255")
    return priority


@cache
def _writer() -> event.EventWriter:
    """Makes this process's events."""
    return event.EventWriter(_origin(), os.getpid(), clock.hours_west())


def _forget_process() -> None:
    _origin.cache_clear()
    _writer.cache_clear()


os.register_at_fork(after_in_child=_forget_process)
