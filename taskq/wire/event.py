"""Events as Celery's monitors read them: made from templates, and taken apart again.

An event is a JSON object that says what a worker or a task came to; several travel together as a
list.  When one is made, and who reads it, is the business of the room `events`.  Three of them are
made for each task, so what they have in common stands ready as text.  Facts about the format are
from Celery 5.7, seen on the wire.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quote
from typing import Any, NamedTuple

from taskq.wire import codec
from taskq.wire.headers import TaskHeaders
from taskq.wire.message import Message, Properties, encode_properties

#: The topic exchange, durable, that all of Celery's programs send their events to.
EXCHANGE = "celeryev"
#: The routing key of several events about tasks in one message.
SEVERAL = "task.multi"

#: A time (seconds since the epoch) beyond this is none.
_LATEST = 1e12

#: Names of tasks whose templates are kept; names come from outside.
_MOST_NAMES = 1024


class Where(NamedTuple):
    """Where a task was sent, for `task-sent`."""

    queue: str | None
    exchange: str
    routing_key: str


class EventWriter:
    """Makes the events of one sender: the node *hostname*, a process with the id *pid*.

    Each event carries a number from the sender's logical *clock*, which only grows, and the
    sender's *utcoffset*: hours west of UTC, as Celery counts them.
    """

    def __init__(self, hostname: str, pid: int, utcoffset: float) -> None:
        self.clock = 0
        self._hostname = hostname
        self._pid = pid
        self._utcoffset = utcoffset
        #: What its messages are labelled with.
        self.properties = encode_properties(
            Properties(
                headers={"hostname": hostname},
                content_type="application/json",
                content_encoding="utf-8",
                delivery_mode=1,
                priority=0,
            )
        )
        self._start()

    def _start(self) -> None:
        """Make the templates that all else is put into."""
        self._who = (
            f'"hostname":{quote(self._hostname)},"pid":{self._pid},"utcoffset":{self._utcoffset!r}'
        )
        self._started = f'{{"type":"task-started",{self._who},"uuid":'
        self._succeeded = f'{{"type":"task-succeeded",{self._who},"uuid":'
        #: For each name of a task the beginning of its task-received.
        self._received: dict[str, str] = {}

    def move(self, utcoffset: float) -> None:
        """From now on the sender's clocks show another zone's time, or daylight saving time."""
        if utcoffset != self._utcoffset:
            self._utcoffset = utcoffset
            self._start()

    def hear(self, clock: int) -> None:
        """Another's logical clock stood at *clock*: what is said from now on comes after that."""
        self.clock = max(self.clock, clock)

    def tick(self) -> int:
        """Count the logical clock one on, and say where it stands."""
        self.clock += 1
        return self.clock

    def event(self, kind: str, now: float, fields: Mapping[str, Any]) -> str:
        """An event of any *kind* (`worker-online`), with *fields* that JSON knows."""
        self.clock += 1
        own = f",{json.dumps(fields)[1:-1]}" if fields else ""
        return f'{{"type":{quote(kind)},{self._who}{own},"timestamp":{now!r},"clock":{self.clock}}}'

    def received(self, headers: TaskHeaders, now: float) -> str:
        """A worker has taken the task over."""
        name = headers.shadow or headers.task
        begin = self._received.get(name)
        if begin is None:
            if len(self._received) >= _MOST_NAMES:
                self._received.clear()
            begin = f'{{"type":"task-received",{self._who},"name":{quote(name)}'
            self._received[name] = begin
        self.clock += 1
        return f'{begin},{_call(headers)},"timestamp":{now!r},"clock":{self.clock}}}'

    def started(self, uuid: str, now: float) -> str:
        """A child has the task."""
        self.clock += 1
        return f'{self._started}{quote(uuid)},"timestamp":{now!r},"clock":{self.clock}}}'

    def succeeded(self, uuid: str, now: float, result: str | None, runtime: float | None) -> str:
        """The task has returned *result*, shown as text, after *runtime* seconds."""
        self.clock += 1
        shown = "null" if result is None else quote(result)
        took = "null" if runtime is None else repr(runtime)
        return (
            f'{self._succeeded}{quote(uuid)},"result":{shown},"runtime":{took},'
            f'"timestamp":{now!r},"clock":{self.clock}}}'
        )

    def sent(self, headers: TaskHeaders, now: float, where: Where) -> str:
        """The task is in its queue."""
        self.clock += 1
        return (
            f'{{"type":"task-sent",{self._who},"name":{quote(headers.task)},{_call(headers)},'
            f'"queue":{_text(where.queue)},"exchange":{quote(where.exchange)},'
            f'"routing_key":{quote(where.routing_key)},'
            f'"timestamp":{now!r},"clock":{self.clock}}}'
        )

    def message(self, *events: str) -> Message:
        """One message with several events about tasks, for the routing key `SEVERAL`."""
        return Message(self.properties, f"[{','.join(events)}]".encode())

    def single(self, event: str) -> Message:
        """One message with just that event, for the routing key of its kind."""
        return Message(self.properties, event.encode())


def routing_key(kind: str) -> str:
    """The routing key of a message with one event of that *kind*: `worker.heartbeat`."""
    return kind.replace("-", ".")


def read_events(message: Message) -> list[dict[str, Any]]:
    """The events in *message*; MessageMalformed if it is no such message.

    Whatever lacks a type, a sender or a time is left out: nobody could make sense of it.
    """
    labels = message.labels
    body = codec.loads(message.body, labels.content_type, labels.content_encoding, ("json",))
    found = body if isinstance(body, list) else [body]
    return [event for event in found if _is_event(event)]


def _is_event(event: object) -> bool:
    return (
        isinstance(event, dict)
        and isinstance(event.get("type"), str)
        and isinstance(event.get("hostname"), str)
        and type(event.get("timestamp")) in (int, float)
        and abs(event["timestamp"]) < _LATEST
        and (event.get("clock") is None or type(event["clock"]) is int)
        and (not event["type"].startswith("task-") or isinstance(event.get("uuid"), str))
    )


def _call(headers: TaskHeaders) -> str:
    """The fields that say what was called."""
    uuid = quote(headers.id)
    root = uuid if headers.root_id == headers.id else _text(headers.root_id)
    return (
        f'"uuid":{uuid},"args":{quote(headers.argsrepr)},"kwargs":{quote(headers.kwargsrepr)},'
        f'"root_id":{root},"parent_id":{_text(headers.parent_id)},"retries":{headers.retries},'
        f'"eta":{_date(headers.eta)},"expires":{_date(headers.expires)}'
    )


def _text(value: str | None) -> str:
    return "null" if value is None else quote(value)


def _date(moment: float | None) -> str:
    if moment is None:
        return "null"
    try:
        return f'"{datetime.fromtimestamp(moment, UTC).isoformat()}"'
    except (ValueError, OverflowError, OSError):  # of the last hours of the year 9999
        return "null"
