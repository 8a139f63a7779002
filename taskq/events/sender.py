"""Sending events without ever waiting: gathered into messages, kept a while, dropped if need be.

Which events there are is for others to say.  What is told here is worth nothing later and holds up
nobody: if the broker takes none, the oldest are thrown away and counted.
"""

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any

from taskq import clock, log
from taskq.broker.base import Outlet
from taskq.loop import Loop, Timer
from taskq.wire.event import EXCHANGE, SEVERAL, EventWriter, routing_key

#: So many events about tasks travel in one message, and none waits longer for others (seconds).
_BATCH = 100
_HOLD = 0.1
#: Seconds between two attempts while the broker takes none.
_RETRY = 0.25
#: Characters of events that wait; of more the oldest are dropped.
_MOST = 8 * 1024 * 1024
#: Seconds between two reports that events were dropped.
_REPORT = 10.0


class EventSender:
    """Sends the events of one node through *outlet*; on the loop's thread only."""

    def __init__(self, loop: Loop, outlet: Outlet, writer: EventWriter) -> None:
        self.writer = writer
        #: Events about tasks that were thrown away.
        self.dropped = 0
        self._loop = loop
        self._outlet = outlet
        self._waiting: deque[str] = deque()
        self._size = 0
        self._timer: Timer | None = None
        #: The broker took none at the last attempt.
        self._held_up = False
        self._reported = 0

    def tell(self, kind: str, fields: Mapping[str, Any]) -> bool:
        """Send an event about the node itself, now or never; False if it could not go out."""
        event = self.writer.event(kind, clock.wall(), fields)
        return self._outlet.broadcast(self.writer.single(event), EXCHANGE, routing_key(kind))

    def put(self, event: str) -> None:
        """Send an *event* about a task, made by `writer`, soon and with others."""
        self._waiting.append(event)
        self._size += len(event)
        if self._timer is None:
            self._timer = self._loop.call_later(_HOLD, self._send)
        elif len(self._waiting) >= _BATCH and not self._held_up:
            self._send_waiting()
        while self._size > _MOST:
            self._drop()

    def flush(self) -> None:
        """Send what waits, as far as the broker takes it at this moment."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._send_waiting()

    def close(self) -> None:
        """Send what waits if it can go out at once, and forget the rest."""
        self.flush()
        while self._waiting:
            self._drop()
        self._report()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send(self) -> None:
        self._timer = None
        self._send_waiting()
        if self._waiting:
            self._timer = self._loop.call_later(_RETRY, self._send)

    def _send_waiting(self) -> None:
        while self._waiting:
            batch = list(islice(self._waiting, _BATCH))
            message = self.writer.message(*batch)
            self._held_up = not self._outlet.broadcast(message, EXCHANGE, SEVERAL)
            if self._held_up:
                return
            for event in batch:
                self._waiting.popleft()
                self._size -= len(event)

    def _drop(self) -> None:
        self._size -= len(self._waiting.popleft())
        if self.dropped == self._reported:
            self._loop.call_later(_REPORT, self._report)
        self.dropped += 1

    def _report(self) -> None:
        """Say how many were dropped since the last time this was said."""
        if self.dropped != self._reported:
            log.event("events-dropped", count=self.dropped - self._reported)
            self._reported = self.dropped
