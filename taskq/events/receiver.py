"""Hearing events: from the broker to the handlers of a monitor, as they come.

A receiver listens on a connection of its own, and nobody waits for it: what it does not take within
seconds is gone.  What all of it amounts to is the business of `state`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from taskq import clock
from taskq.app import TaskQ
from taskq.errors import BrokerUnavailable, MessageMalformed
from taskq.loop import Loop
from taskq.wire.event import EXCHANGE, read_events
from taskq.wire.message import Message

#: An event: `type`, `hostname`, `timestamp`, `clock` and what its type has besides.
Event = dict[str, Any]


class Receiver:
    """Hands events of all workers and programs on the broker of *app* to *handlers*.

    A handler is found by the event's type (`task-failed`), or is that for the rest, `*`.  It is
    called with the event, a mapping, in which `local_received` says when it was heard.  What a
    handler raises leaves `capture`.  One thread uses a receiver.
    """

    def __init__(self, app: TaskQ, handlers: Mapping[str, Callable[[Event], object]]) -> None:
        self._handlers = dict(handlers)
        self._for_rest = self._handlers.pop("*", None)
        #: This receiver's logical clock, after that of all events that were heard.
        self.clock = 0
        #: How many events were handed over.
        self.count = 0
        #: How many messages were none that can be read.
        self.unreadable = 0
        self._stopped = False
        self._open = False
        self._url = app.broker.url
        self._loop = Loop()
        self._listening = app.broker.listen(
            self._loop, EXCHANGE, "#", on_message=self._on_message, on_ready=self._on_ready
        )

    def open(self, timeout: float = 10.0) -> None:
        """Wait until what is told is heard; BrokerUnavailable after *timeout* seconds."""
        deadline = clock.monotonic() + timeout
        while not self._open:
            left = deadline - clock.monotonic()
            if left <= 0:
                raise BrokerUnavailable(f"no events can be heard from {self._url} yet")
            self._loop.turn(left)

    def capture(self, limit: int | None = None, timeout: float | None = None) -> None:
        """Call handlers until `stop`, for *timeout* seconds, or for about *limit* events."""
        self._stopped = False
        deadline = None if timeout is None else clock.monotonic() + timeout
        last = None if limit is None else self.count + limit
        while not self._stopped and (last is None or self.count < last):
            left = None if deadline is None else deadline - clock.monotonic()
            if left is not None and left <= 0:
                return
            self._loop.turn(left)

    def stop(self) -> None:
        """Have `capture` return soon; for handlers."""
        self._stopped = True

    def close(self) -> None:
        """Listen no more."""
        self._listening.close()
        self._loop.close()

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_ready(self) -> None:
        self._open = True

    def _on_message(self, message: Message) -> None:
        try:
            events = read_events(message)
        except MessageMalformed:
            self.unreadable += 1
            return
        for event in events:
            self._process(event)

    def _process(self, event: Event) -> None:
        if event["type"] == "task-sent":
            # Producers are many and short-lived: their clocks say nothing about the workers'.
            event["clock"] = self.clock
        else:
            self.clock = max(self.clock, event["clock"] or 0) + 1
        event["local_received"] = clock.wall()
        self.count += 1
        handler = self._handlers.get(event["type"], self._for_rest)
        if handler is not None:
            handler(event)
