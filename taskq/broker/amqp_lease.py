"""A lease on RabbitMQ: whoever has the token of a single-active-consumer queue holds it.

Tokens are messages in the lease's queue.  The broker delivers them to one consumer at a time, and
to another only when it has closed that one's channel.  What is done under the lease is published on
this very channel, so that no clock decides whether a late message still counts: from a process that
was frozen or cut off, the broker takes none once another holds the lease.

::

    waiting ── a token comes ──▶ probing ── the probe comes round ──▶ holding ─┐ renewed token
       ▲                            │                                 ▲   │    │ comes round
       └────────── channel lost, or the lease ran out ◀───────────────┴───┴────┘

- A *probe* is written by each newcomer, so that there is a token to be delivered.  Whoever is
  delivered one writes another probe: when that comes, all that lay in the queue before has come,
  and the newest token among it tells where the last holder was.
- *Renewing* writes a new token.  When it comes round, it is safe in the queue and this is still the
  consumer that counts; only then the old ones are acknowledged, so that one token is there always.

What the note in a token means is for those who hold the lease.
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from pika.channel import Channel

from taskq import clock
from taskq.broker import fastpath, topology
from taskq.broker.amqp_outlet import AmqpOutlet
from taskq.broker.base import BrokerOptions, Done, Route, Token
from taskq.broker.connection import ignore, why
from taskq.errors import PublishRefused
from taskq.loop import Loop, Timer
from taskq.wire.message import Message, Properties

#: Heartbeats in the length of a lease.  RabbitMQ gives up a silent peer after 2.4 to 2.6 of them.
_HEARTBEATS = 4

#: How long (seconds) a holder that goes waits for its last token to be safe.
_FAREWELL = 2.0


@dataclass(frozen=True, slots=True)
class _Written:
    """A token as it lies in the queue; epoch 0 is a probe's."""

    epoch: int = 0
    serial: int = 0
    note: str = ""
    #: Who wrote it, so that it knows its own.
    author: str = ""

    def message(self) -> Message:
        properties = Properties(content_type="application/json", delivery_mode=2)
        return Message.of(properties, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, body: bytes) -> "_Written":
        """The token in *body*; what is none counts as a probe of nobody's."""
        try:
            found = json.loads(body)
            return cls(
                int(found["epoch"]), int(found["serial"]), str(found["note"]), str(found["author"])
            )
        except (ValueError, TypeError, KeyError):
            return cls()


class AmqpLease(AmqpOutlet):
    """The lease *name*, of *length* seconds, and an outlet that is open while it is held."""

    def __init__(
        self,
        loop: Loop,
        options: BrokerOptions,
        name: str,
        length: float,
        granted: Callable[[Token], None],
        lost: Callable[[str], None],
    ) -> None:
        self._name = name
        self._length = length
        self._granted = granted
        self._lost = lost
        self._author = secrets.token_hex(8)
        self._serial = 0
        #: Delivered and not acknowledged on this channel, by delivery tag.
        self._tokens: dict[int, _Written] = {}
        #: Number and time of the token of ours that is to come round.
        self._awaited: tuple[int, float] | None = None
        #: The number of this tenure; 0 while the lease is not held.
        self._epoch = 0
        self._deadline = 0.0
        self._end: Timer | None = None
        super().__init__(loop, replace(options, heartbeat=length / _HEARTBEATS))

    def publish(self, message: Message, route: Route, done: Done, **options: Any) -> None:
        if not self._epoch or clock.monotonic() >= self._deadline:
            done(PublishRefused(f"the lease {self._name} is not held by this process"))
        else:
            super().publish(message, route, done, **options)

    def renew(self, note: str) -> None:
        if self._epoch and self._awaited is None:
            self._write(note)

    def release(self, note: str, timeout: float = 5.0) -> None:
        self._lost = ignore
        if self._epoch:
            self._link.wait(lambda: self._awaited is None, _FAREWELL)
            self.renew(note)
            self._link.wait(lambda: self._awaited is None, _FAREWELL)
        self._stop()
        super().close(timeout)

    # -- tokens ------------------------------------------------------------------------------

    def _confirming(self, channel: Channel) -> None:
        super()._confirming(channel)
        self._scratch.ensure([topology.lease_queue(self._name)], partial(self._consume, channel))

    def _consume(self, channel: Channel, refusal: str | None) -> None:
        if refusal is not None:
            self._connection.abandon(f"the lease's queue {self._name!r} cannot be used: {refusal}")
            return
        channel.add_on_cancel_callback(
            lambda _: self._connection.abandon(f"the lease's queue {self._name!r} was deleted")
        )
        self._connection.reader.deliveries[channel.channel_number] = self._delivered
        channel.basic_consume(self._name, on_message_callback=ignore, callback=ignore)
        self._write()
        self._awaited = None  # another may hold the lease, and get it

    def _delivered(
        self, _consumer: bytes, tag: int, _again: bool, _to: bytes, _key: bytes, message: Message
    ) -> None:
        token = _Written.read(message.body)
        self._tokens[tag] = token
        if self._awaited is None:
            if not self._epoch:
                self._write()
            return
        serial, asked = self._awaited
        if token.author != self._author or token.serial != serial:
            return
        self._awaited = None
        if not token.epoch:
            last = max(self._tokens.values(), key=lambda each: (each.epoch, each.serial))
            self._hold(last, asked)
        else:
            self._keep_only(tag)
            self._hold_until(asked + self._length)

    def _write(self, note: str = "") -> None:
        self._serial += 1
        self._awaited = self._serial, clock.monotonic()
        token = _Written(self._epoch, self._serial, note, self._author)
        super().publish(token.message(), Route("", self._name), ignore)

    def _keep_only(self, tag: int) -> None:
        assert self._channel is not None
        for old in [each for each in self._tokens if each != tag]:
            del self._tokens[old]
            self._connection.send(fastpath.ack(self._channel, old))

    # -- holding -----------------------------------------------------------------------------

    def _hold(self, last: _Written, asked: float) -> None:
        self._epoch = last.epoch + 1
        self._hold_until(asked + self._length)
        self._granted(Token(self._epoch, last.note))

    def _hold_until(self, deadline: float) -> None:
        self._deadline = deadline
        if self._end is not None:
            self._end.cancel()
        self._end = self._loop.call_later(max(0.0, deadline - clock.monotonic()), self._run_out)

    def _run_out(self) -> None:
        self._connection.abandon(f"the lease was not renewed for {self._length:g} s")

    def _channel_closed(self, channel: Channel, error: Exception) -> None:
        self._lose(why(error))
        super()._channel_closed(channel, error)

    def _down(self, reason: str, error: BaseException) -> None:
        self._lose(reason)
        super()._down(reason, error)

    def _lose(self, reason: str) -> None:
        was_held = bool(self._epoch)
        self._stop()
        if was_held:
            self._lost(reason)
        for letter in self._letters():
            self._fail(letter, reason)

    def _stop(self) -> None:
        self._epoch = 0
        self._awaited = None
        self._tokens.clear()
        if self._end is not None:
            self._end.cancel()
            self._end = None
