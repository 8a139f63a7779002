"""The log of what was told to all, on RabbitMQ: a stream, played from its beginning to a mark.

A stream never says that it was read to its end.  So a mark is published straight into it: when that
comes, all that was in it before has come.  Marks of others are passed over; what was told came
through an exchange, which no mark does.  What is in a log, and for how long, is decided by
`topology`.
"""

import secrets
from collections.abc import Callable

from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from taskq.broker import fastpath
from taskq.broker.base import BrokerOptions, Queue
from taskq.broker.connection import CONNECTION_FORCED, Link, Scratch, ignore, why
from taskq.broker.fastpath import FastConnection
from taskq.broker.topology import declarations
from taskq.log import event
from taskq.loop import Loop
from taskq.wire.message import Message, Properties

#: Streams are consumed with acks, and so many messages may be without.
_AT_ONCE = 1000

#: A broker that plays nothing for so long (seconds) has nothing to play, or trouble.
_PATIENCE = 5.0


class AmqpHistory:
    """Makes sure that *log* is there and bound, and plays it once."""

    def __init__(
        self,
        loop: Loop,
        options: BrokerOptions,
        log: Queue,
        on_message: Callable[[Message], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._log = log
        self._on_message, self._on_ready = on_message, on_ready
        self._mark = secrets.token_hex(16)
        #: The last delivery, and whether it is acked.
        self._tag, self._is_acked = 0, True
        self._is_over = False
        self._has_moved = False
        self._connection: FastConnection
        self._channel = 0
        self._link = Link(loop, options, "history", on_up=self._up, on_down=self._down)
        self._timer = loop.call_later(_PATIENCE, self._judge)

    def close(self) -> None:
        self._is_over = True
        self._timer.cancel()
        self._link.close(1.0)

    # -- what the broker says ----------------------------------------------------------------

    def _up(self, connection: FastConnection) -> None:
        self._has_moved = True
        self._connection = connection
        Scratch(self._link, connection).ensure(declarations(self._log, 0), self._declared)

    def _declared(self, refusal: str | None) -> None:
        if refusal is not None:
            self._end(f"it cannot be declared: {refusal}")
        elif not self._is_over:
            self._connection.open_channel(self._opened)

    def _opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._closed)
        self._channel = channel.channel_number
        self._tag, self._is_acked = 0, True
        self._connection.reader.deliveries[self._channel] = self._delivered
        mark = Message.of(Properties(delivery_mode=2, message_id=self._mark), b"")
        self._connection.send(
            fastpath.publish_method(self._channel, "", self._log.name, False)
            + fastpath.content(self._channel, mark.raw, mark.body, self._connection.frame_max)
        )
        channel.basic_qos(prefetch_count=_AT_ONCE)
        channel.basic_consume(
            self._log.name,
            on_message_callback=ignore,
            arguments={"x-stream-offset": "first"},
            callback=ignore,
        )

    def _delivered(
        self, _consumer: bytes, tag: int, _again: bool, exchange: bytes, _key: bytes, said: Message
    ) -> None:
        if self._is_over:
            return
        self._has_moved = True
        self._tag = tag
        if self._is_acked:
            self._is_acked = False
            self._loop.at_turn_end(self._ack)
        if exchange:
            self._on_message(said)
        elif said.properties.message_id == self._mark:
            self._end(None)

    def _ack(self) -> None:
        if not self._is_acked and self._link.connection is not None:
            self._is_acked = True
            self._connection.send(fastpath.ack(self._channel, self._tag, multiple=True))

    def _closed(self, _channel: Channel, error: Exception) -> None:
        if isinstance(error, ChannelClosedByBroker):
            self._end(why(error))

    def _down(self, reason: str, error: BaseException) -> None:
        self._is_acked = True
        # A broker that knows no streams may take the wish for one so ill.
        if isinstance(error, ConnectionClosedByBroker) and error.reply_code != CONNECTION_FORCED:
            self._end(reason)

    # -- the end -----------------------------------------------------------------------------

    def _judge(self) -> None:
        # Without a connection it waits: whoever cannot be told can be sent no work either.
        if self._has_moved or self._link.connection is None:
            self._has_moved = False
            self._timer = self._loop.call_later(_PATIENCE, self._judge)
        else:
            self._end(f"nothing was heard of it for {_PATIENCE:g} s")

    def _end(self, trouble: str | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        if trouble is not None:
            event("log-unusable", log=self._log.name, reason=trouble)
        self._loop.add_callback(self.close)
        self._on_ready()
