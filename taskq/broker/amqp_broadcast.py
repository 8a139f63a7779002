"""Messages for whoever listens, on RabbitMQ: sent without being kept, heard without being acked.

What is broadcast shares its connection with messages that must arrive.  So it has a channel of its
own, whose mishaps are nobody else's, and only so much of it is on its way at a time: RabbitMQ stops
reading a connection that floods a slow queue, and with it everything else that is sent there.
Confirms tell how much is on its way; nobody waits for them, and nothing is sent twice.
"""

import secrets
from collections.abc import Callable

from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker

from taskq import clock
from taskq.broker import fastpath
from taskq.broker.base import BrokerOptions
from taskq.broker.connection import PRECONDITION_FAILED, Link, Scratch, ignore, why
from taskq.broker.fastpath import FastConnection
from taskq.broker.topology import told
from taskq.log import event
from taskq.loop import Loop, Timer
from taskq.retry import RetryPolicy
from taskq.wire.message import Message

#: So many messages may be on their way.  RabbitMQ lets a channel have 400 before it is throttled
#: (`credit_flow_default_credit`).
_AT_ONCE = 100

#: Milliseconds that a message waits for a slow listener, and that the queue of one that is gone
#: waits for its return: Celery's figures for its monitors.
_TTL_MS, _EXPIRES_MS = 5_000, 60_000
#: The same for queues with a name: Celery's figures for the mailboxes of its workers, which must be
#: these, for whoever had the name before may have left the queue behind.
_MAILBOX_TTL_MS, _MAILBOX_EXPIRES_MS = 300_000, 10_000

#: A name that is in use is asked for again after up to this long.
_TAKEN = RetryPolicy(limit=None, backoff=0.25, longest=10.0)
#: RabbitMQ gives up a silent connection, and what is exclusive to it, after 2.4 to 2.6 heartbeats.
_HEARTBEATS = 3
#: AMQP's code for what is exclusive to another connection.
_RESOURCE_LOCKED = 405


class Broadcasts:
    """The channel for broadcasts of an outlet's *link*; opened when there is something to say."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._connection: FastConnection
        self._scratch: Scratch
        #: The number of the channel, once it confirms.
        self._channel: int | None = None
        self._opening = False
        self._known: set[str] = set()
        #: What waits for exchange and channel to be there.
        self._held: list[tuple[Message, str, str]] = []
        #: Exchanges that cannot be had on this connection.
        self._refused: set[str] = set()
        self._sent = 0
        self._confirmed = 0

    def up(self, connection: FastConnection, scratch: Scratch) -> None:
        """There is a new connection."""
        self._connection = connection
        self._scratch = scratch
        self.down()

    def down(self) -> None:
        """The connection is gone, and the channel with it."""
        self._channel = None
        self._opening = False
        self._known.clear()
        self._refused.clear()
        self._held.clear()

    @property
    def idle(self) -> bool:
        """Whether all that was taken is written."""
        return not self._held

    def send(self, message: Message, exchange: str, routing_key: str) -> bool:
        """As `Outlet.broadcast`."""
        if self._link.connection is None or self._link.blocked:
            return False
        if self._channel is None or exchange not in self._known:
            if exchange in self._refused or len(self._held) >= _AT_ONCE:
                return False
            self._held.append((message, exchange, routing_key))
            self._prepare(exchange)
            return True
        if self._sent - self._confirmed >= _AT_ONCE:
            return False
        self._sent += 1
        size = self._connection.frame_max
        self._connection.send(
            fastpath.publish_method(self._channel, exchange, routing_key, False)
            + fastpath.content(self._channel, message.raw, message.body, size)
        )
        return True

    def _prepare(self, exchange: str) -> None:
        if self._opening:
            return
        self._opening = True
        scratch = self._scratch

        def declared(refusal: str | None) -> None:
            if scratch is not self._scratch:
                return
            if refusal is None:
                self._known.add(exchange)
                self._open()
            else:
                self._opening = False
                self._refused.add(exchange)
                event("broadcast-refused", exchange=exchange, reason=refusal)
                self._release()

        scratch.ensure([told(exchange)], declared)

    def _open(self) -> None:
        if self._channel is not None:
            self._opening = False
            self._release()
        else:
            self._connection.open_channel(self._opened)

    def _opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._closed)
        channel.confirm_delivery(ignore, callback=lambda _ok: self._ready(channel))

    def _ready(self, channel: Channel) -> None:
        self._channel = channel.channel_number
        self._opening = False
        self._sent = self._confirmed = 0
        self._connection.reader.confirms[channel.channel_number] = self._on_confirm
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, []
        for message, exchange, routing_key in held:
            self.send(message, exchange, routing_key)

    def _on_confirm(self, tag: int, multiple: bool, _taken: bool) -> None:
        # They need not come in order: this is how many there are at least, which is enough.
        self._confirmed = max(self._confirmed, tag) if multiple else self._confirmed + 1

    def _closed(self, channel: Channel, error: Exception) -> None:
        if isinstance(error, ChannelClosedByBroker):  # the exchange is gone
            self._connection.reader.confirms.pop(channel.channel_number, None)
            self._channel = None
            self._opening = False
            self._known.clear()
            self._held.clear()
            self._scratch.forget()


class AmqpListening:
    """Consumes a queue of its own until it is closed: *name*, or a new one on each connection.

    A name that somebody else has is asked for again and again.  That may be ourselves: after a cut
    the broker keeps the name for a lost connection until it misses its heartbeats.
    """

    def __init__(
        self,
        loop: Loop,
        options: BrokerOptions,
        exchange: str,
        pattern: str,
        on_message: Callable[[Message], None],
        on_ready: Callable[[], None],
        name: str | None = None,
    ) -> None:
        self._loop = loop
        self._patience = _HEARTBEATS * options.heartbeat
        self._exchange = exchange
        self._pattern = pattern
        self._on_message = on_message
        self._on_ready = on_ready
        self._name = name
        #: How often the name was found taken, and since when; and whether the log was told.
        self._refusals = 0
        self._taken_since = 0.0
        self._is_told = False
        self._retry: Timer | None = None
        self._connection: FastConnection
        self._link = Link(
            loop, options, "listener", on_up=self._up, on_down=lambda _reason, _error: self._stop()
        )

    def close(self) -> None:
        self._stop()
        self._link.close(1.0)

    def _stop(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _up(self, connection: FastConnection) -> None:
        self._connection = connection
        Scratch(self._link, connection).ensure([told(self._exchange)], self._declared)

    def _declared(self, refusal: str | None) -> None:
        if refusal is None:
            self._open()
        else:
            self._connection.abandon(f"exchange {self._exchange!r} cannot be declared: {refusal}")

    def _open(self) -> None:
        self._retry = None
        self._connection.open_channel(self._opened)

    def _opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._closed)
        queue = self._name or f"{self._exchange}.{secrets.token_hex(16)}"
        channel.add_on_cancel_callback(
            lambda _cancel: self._connection.abandon(f"queue {queue!r} was deleted")
        )
        ttl, expires = (
            (_MAILBOX_TTL_MS, _MAILBOX_EXPIRES_MS) if self._name else (_TTL_MS, _EXPIRES_MS)
        )
        channel.queue_declare(
            queue,
            exclusive=True,
            auto_delete=True,
            arguments={"x-message-ttl": ttl, "x-expires": expires},
            callback=ignore,
        )
        channel.queue_bind(queue, self._exchange, self._pattern, callback=ignore)
        self._connection.reader.deliveries[channel.channel_number] = (
            lambda _consumer, _tag, _again, _exchange, _key, message: self._on_message(message)
        )
        channel.basic_consume(
            queue, on_message_callback=ignore, auto_ack=True, callback=self._consuming
        )

    def _consuming(self, _ok: object) -> None:
        self._refusals = 0
        self._is_told = False
        self._link.prove()
        self._on_ready()

    def _closed(self, channel: Channel, error: Exception) -> None:
        if not isinstance(error, ChannelClosedByBroker):
            return
        if self._name and error.reply_code in (_RESOURCE_LOCKED, PRECONDITION_FAILED):
            del self._connection.reader.deliveries[channel.channel_number]
            self._ask_again(self._name, error.reply_text)
        else:
            self._connection.abandon(why(error))

    def _ask_again(self, name: str, reason: str) -> None:
        now = clock.monotonic()
        if not self._refusals:
            self._taken_since = now
        self._refusals += 1
        if now - self._taken_since >= self._patience and not self._is_told:
            self._is_told = True
            event("node-name-taken", node=name.removesuffix(f".{self._exchange}"), reason=reason)
        delay = _TAKEN.delay_before(self._refusals)
        self._retry = self._loop.call_later(delay, self._open)
