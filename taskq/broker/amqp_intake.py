"""Consuming from RabbitMQ: deliveries with acks for a worker, replies without for a caller.

Which queues, and what becomes of a delivery, is their owners' business; lost connections are
mended by `connection`.
"""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker

from taskq import clock
from taskq.broker import fastpath, topology
from taskq.broker.base import BrokerOptions, Delivery, Queue
from taskq.broker.connection import Link, Scratch, ignore, why
from taskq.broker.fastpath import FastConnection
from taskq.log import event
from taskq.loop import Loop, Timer
from taskq.wire.message import Message

#: Seconds between two looks at the queues that bring nothing.
_LOOK_INTERVAL = 5.0
#: RabbitMQ's quorum queues have 32 settlements of a channel on their way at once and keep more of
#: them back; those are lost when the channel closes meanwhile, and the messages come again.  So
#: after more than _STREWN acks within _SINK seconds a channel stays open for that time.
_STREWN, _SINK = 16, 0.25
#: Acks wait for each other, until they free this part of the window: RabbitMQ keeps a record of
#: each frame with an ack, and one frame can ack all before it.  Not longer than
#: `BrokerOptions.ack_delay`; nobody waits for them before that.
_SHARE = 4
#: After so many looks that found nothing at all to do, consuming begins anew.
_IDLE_LOOKS = 12


class AmqpIntake:
    """Consumes and settles on one channel; a lost channel is mended by a new connection.

    `Delivery.hold` is the channel's life: what was delivered in an earlier one cannot be settled
    any more, and comes again.  What the broker had sent before it heard of `cancel` or `pause`
    still arrives at `on_delivery`.

    A consumer may be dead without anybody being told: when a quorum queue is deleted and declared
    again at once, RabbitMQ 3.10 cancels nobody, and delivers no more.  So a queue that is silent is
    looked at now and then; messages that stay in it while there is room for them say that the
    connection is of no use.  What such a consumer was given in vain is in no count, and comes back
    only when its channel is closed: that happens to every channel that has been idle for a minute.
    """

    def __init__(
        self,
        loop: Loop,
        options: BrokerOptions,
        on_delivery: Callable[[Delivery], None],
        on_ready: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._options = options
        self._on_delivery, self._on_ready, self._on_lost = on_delivery, on_ready, on_lost
        self._window = 1
        self._wanted: dict[str, Queue] = {}
        self._starting: set[str] = set()  # queues not consumed from yet, before on_ready
        self._is_ready = False
        self._closed = False
        self._link: Link
        self._is_linked = False
        self._connection: FastConnection
        self._scratch: Scratch
        self._channel: Channel | None = None
        self._hold: object | None = None
        #: Queue -> its consumers and how much each may bring; from `_start` to `cancel`.  Together
        #: with what cancelled ones brought and is unsettled that makes the window.
        self._consumers: dict[str, dict[bytes, int]] = {}
        self._queues: dict[bytes, str] = {}  # consumer tag -> queue, also after cancel
        self._short: set[str] = set()  # queues whose consumers may not bring a window yet
        self._tags = itertools.count(1)
        #: Delivery tag -> who brought it, or None once its ack waits to be sent; ascending.
        self._unsettled: dict[int, bytes | None] = {}
        self._acked: list[int] = []
        self._ack_timer: Timer | None = None
        self._joining = False
        self._looker: Timer | None = None
        self._lively: set[str] = set()  # queues that brought something since the last look
        self._doubted: set[str] = set()  # ... that at the last look had something, and did not
        self._idle = 0  # looks in a row
        #: Frames with acks that were sent without a pause of _SINK, and when the last of them was.
        self._strewn, self._strewn_at = 0, 0.0

    def consume(self, queues: Sequence[Queue], window: int) -> None:
        self._window = window
        if not self._is_linked:
            self._is_linked = True
            self._wanted = {queue.name: queue for queue in queues}
            self._link = Link(
                self._loop, self._options, "intake", on_up=self._up, on_down=self._down
            )
        else:
            for queue in queues:
                self.add(queue)

    def resize(self, window: int) -> None:
        old, self._window = self._window, window
        if self._channel is None or self._closed:
            return
        for queue, consumers in self._consumers.items():
            # Of several consumers only one would be active there: it keeps what it has.
            if consumers and not _is_exclusive(self._wanted[queue]):
                if window < old:
                    self._cancel(consumers)
                self._short.add(queue)
        # At the end of the turn, because what the owner gives back meanwhile leaves room.
        self._loop.at_turn_end(self._top_up)

    def add(self, queue: Queue) -> None:
        self._wanted[queue.name] = queue
        if self._channel is not None and not self._closed and queue.name not in self._consumers:
            self._start(queue)

    def cancel(self, queue: str) -> None:
        self._wanted.pop(queue, None)
        self._starting.discard(queue)
        self._short.discard(queue)
        self._cancel(self._consumers.pop(queue, {}))
        self._be_ready()

    def _cancel(self, consumers: dict[bytes, int]) -> None:
        for tag in consumers:
            if self._channel is not None and not self._closed:
                self._channel.basic_cancel(tag.decode(), callback=ignore)
        consumers.clear()

    def pause(self) -> None:
        for queue in list(self._wanted):
            self.cancel(queue)

    def ack(self, delivery: Delivery, *, at_once: bool = False) -> None:
        if delivery.hold is not self._hold or not self._unsettled.get(delivery.tag):
            return
        self._unsettled[delivery.tag] = None
        self._acked.append(delivery.tag)
        if at_once or not self._options.ack_delay:
            self._loop.at_turn_end(self._send_acks)
        elif len(self._acked) >= self._window // _SHARE and not self._joining:
            self._joining = True
            self._loop.at_turn_end(self._join_acks)
        elif self._ack_timer is None:
            self._ack_timer = self._loop.call_later(self._options.ack_delay, self._send_acks)

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        if delivery.hold is self._hold and self._unsettled.get(delivery.tag):
            del self._unsettled[delivery.tag]
            assert self._channel is not None
            number = self._channel.channel_number
            self._connection.send(fastpath.reject(number, delivery.tag, requeue=requeue))

    def close(self, timeout: float = 5.0) -> None:
        if self._closed:
            return
        self._closed = True
        self._stop_looking()
        if self._is_linked:
            self._send_acks()
            self._hold = None
            if self._strewn > _STREWN:
                self._link.wait(lambda: False, self._strewn_at + _SINK - clock.monotonic())
            self._link.close(timeout)

    def _join_acks(self) -> None:
        self._joining = False
        self._send_acks(strewn=False)

    def _send_acks(self, *, strewn: bool = True) -> None:
        """Write the acks that wait: one for all that nothing unsettled precedes, then one each.

        Without *strewn* the latter are left for the next time, unless they are most of all.
        """
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        acked, self._acked = self._acked, []
        if not acked or self._channel is None:
            return
        number, last = self._channel.channel_number, 0
        for tag, consumer in self._unsettled.items():
            if consumer:
                break
            last = tag
        frames = [fastpath.ack(number, last, multiple=True)] if last else []
        single = [tag for tag in acked if tag > last]
        if not strewn and 2 * len(single) < len(acked):
            self._acked, single = single, []
            if self._acked:
                self._ack_timer = self._loop.call_later(self._options.ack_delay, self._send_acks)
        frames += [fastpath.ack(number, tag) for tag in single]
        for tag in itertools.chain(single, (tag for tag in acked if tag <= last)):
            del self._unsettled[tag]
        self._connection.send(b"".join(frames))
        now = clock.monotonic()
        self._strewn = len(frames) + (self._strewn if now < self._strewn_at + _SINK else 0)
        self._strewn_at = now
        self._top_up()

    def _top_up(self) -> None:
        """Let queues whose consumers may bring less than a window bring what is missing."""
        for queue in list(self._short):
            consumers = self._consumers.get(queue)
            if consumers is None or self._channel is None or self._closed:
                self._short.discard(queue)
                continue
            others = sum(
                1
                for tag in self._unsettled.values()
                if tag and tag not in consumers and self._queues[tag] == queue
            )
            # A claim stands beside the one that it replaces, until that is acked.
            window = self._window * (2 if self._wanted[queue].kind == "claim" else 1)
            room = window - others - sum(consumers.values())
            if room > 0:
                self._consume(queue, consumers, room)
            if not others:
                self._short.discard(queue)

    # -- what the broker says ----------------------------------------------------------------

    def _up(self, connection: FastConnection) -> None:
        self._connection = connection
        self._scratch = Scratch(self._link, connection)
        connection.open_channel(self._channel_opened)

    def _channel_opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_cancel_callback(
            lambda cancel: self._cancelled(cancel.method.consumer_tag.encode())
        )
        self._connection.reader.deliveries[channel.channel_number] = self._delivered
        self._channel = channel
        self._hold = object()
        self._is_ready = False
        self._starting = set(self._wanted)
        for queue in list(self._wanted.values()):
            self._start(queue)
        self._be_ready()  # where all queues are paused, nothing has to begin first

    def _start(self, queue: Queue, *more: topology.Declaration) -> None:
        consumers = self._consumers[queue.name] = {}
        needed = topology.declarations(queue, self._options.dead_letter_max_length)
        self._scratch.ensure((*needed, *more), partial(self._declared, queue.name, consumers))

    def _declared(self, queue: str, consumers: dict[bytes, int], refusal: str | None) -> None:
        known = self._consumers.get(queue)
        if self._channel is None or self._closed or known is not consumers:
            return
        if refusal is not None:
            self._connection.abandon(f"queue {queue!r} cannot be declared: {refusal}")
            return
        self._short.add(queue)
        self._top_up()

    def _consume(self, queue: str, consumers: dict[bytes, int], count: int) -> None:
        assert self._channel is not None
        tag = f"taskq-{next(self._tags)}"
        consumers[tag.encode()] = count
        self._queues[tag.encode()] = queue
        self._channel.basic_qos(prefetch_count=count)
        self._channel.basic_consume(
            queue,
            on_message_callback=ignore,  # the reader has deliveries first
            consumer_tag=tag,
            callback=lambda _ok: self._consuming(queue),
        )

    def _consuming(self, queue: str) -> None:
        self._starting.discard(queue)
        self._be_ready()

    def _be_ready(self) -> None:
        is_up = self._channel is not None and not self._closed
        if is_up and not self._starting and not self._is_ready:
            self._is_ready = True
            self._link.prove()
            self._on_ready()
            self._look_later()

    def _delivered(
        self,
        consumer: bytes,
        tag: int,
        redelivered: bool,
        exchange: bytes,
        routing_key: bytes,
        message: Message,
    ) -> None:
        if self._closed or self._hold is None:
            return
        self._unsettled[tag] = consumer
        queue = self._queues[consumer]
        self._lively.add(queue)
        first_exchange = exchange.decode("utf-8", "replace")
        first_key = routing_key.decode("utf-8", "replace")
        count = 0
        # Looked for in the undecoded bytes, because decoding is for the few that need it.
        if b"taskq-route" in message.raw:
            first_exchange, first_key = topology.origin(message.headers, first_exchange, first_key)
        if b"x-delivery-count" in message.raw:
            told = message.headers.get("x-delivery-count")
            count = told if isinstance(told, int) else 0
        self._on_delivery(
            Delivery(
                tag,
                self._hold,
                queue,
                message,
                first_exchange,
                first_key,
                redelivered,
                count,
            )
        )

    def _cancelled(self, consumer: bytes) -> None:
        queue = self._wanted.get(self._queues.get(consumer, ""))
        if queue is None or self._closed or consumer not in self._consumers.get(queue.name, {}):
            return
        event("queue-gone", queue=queue.name)
        self._scratch.forget()
        # With the queue went its binding to the delay ladder, where messages for it may wait.
        arrivals = topology.arrivals(queue.name, self._options.dead_letter_max_length)
        self._start(queue, *arrivals)

    def _channel_closed(self, channel: Channel, error: Exception) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        self._hold = None
        if isinstance(error, ChannelClosedByBroker):
            self._connection.abandon(why(error))

    # -- the watchdog ------------------------------------------------------------------------

    def _look_later(self) -> None:
        self._cancel_looker()
        self._looker = self._loop.call_later(_LOOK_INTERVAL, self._look)

    def _look(self) -> None:
        """Ask after the queues that were silent, one after the other; then again in a while."""
        silent = deque(
            queue
            for queue in self._consumers.keys() - self._lively
            if not _is_exclusive(self._wanted[queue])
        )
        is_idle = len(silent) == len(self._consumers) and not self._unsettled
        self._idle = self._idle + 1 if is_idle else 0
        self._lively.clear()
        if not silent:
            self._look_later()
            return
        if self._idle == _IDLE_LOOKS:
            self._begin_anew()
            return

        def ask(channel: Channel) -> None:
            if silent:
                channel.queue_declare(silent[0], passive=True, callback=partial(answer, channel))
            else:
                channel.close()

        def answer(channel: Channel, declared: Any) -> None:
            self._looked(silent.popleft(), declared.method.message_count)
            ask(channel)

        def closed(_channel: Channel, error: Exception) -> None:
            if silent and isinstance(error, ChannelClosedByBroker):
                self._looked(silent[0], why(error))
            if self._connection.is_open and not self._closed:
                self._look_later()

        def opened(channel: Channel) -> None:
            channel.add_on_close_callback(closed)
            ask(channel)

        if self._connection.is_open:
            self._connection.open_channel(opened)
            self._await_answer()

    def _begin_anew(self) -> None:
        """Change over to a fresh channel while nothing is in hand."""
        if self._channel is not None and self._connection.is_open:
            channel, self._channel, self._hold = self._channel, None, None
            self._forget_consumers()
            del self._connection.reader.deliveries[channel.channel_number]
            channel.close()
            self._connection.open_channel(self._channel_opened)
            self._await_answer()

    def _await_answer(self) -> None:
        """Give the connection up if nothing at all is heard, where no heartbeats tell that."""
        asked, timeout = clock.monotonic(), self._options.declare_timeout

        def judge() -> None:
            if self._connection.heard < asked:
                self._connection.abandon(f"no word from it for {timeout:g} s")
            else:
                self._await_answer()

        self._looker = self._loop.call_later(timeout, judge)

    def _looked(self, queue: str, found: int | str) -> None:
        """*found* so many messages in *queue*, or why the broker does not say: twice is enough."""
        is_quiet = queue in self._consumers and queue not in self._lively
        if not found or not is_quiet or len(self._unsettled) >= self._window:
            self._doubted.discard(queue)
        elif queue not in self._doubted:
            self._doubted.add(queue)
        else:
            self._connection.abandon(
                f"it delivers nothing from queue {queue!r}, found there: {found}"
            )

    def _cancel_looker(self) -> None:
        if self._looker is not None:
            self._looker.cancel()
            self._looker = None

    def _stop_looking(self) -> None:
        self._cancel_looker()
        self._lively.clear()
        self._doubted.clear()

    def _forget_consumers(self) -> None:
        self._consumers.clear()
        self._queues.clear()
        self._short.clear()
        self._idle = 0

    def _down(self, reason: str, _error: BaseException) -> None:
        self._stop_looking()
        self._channel = None
        self._hold = None
        self._forget_consumers()
        self._unsettled.clear()
        self._acked.clear()
        self._on_lost(reason)


def _is_exclusive(queue: Queue) -> bool:
    return "x-single-active-consumer" in queue.arguments


class AmqpReplies:
    """Consumes one reply queue, for as long as it takes with a new connection each time."""

    def __init__(
        self,
        loop: Loop,
        options: BrokerOptions,
        queue: Queue,
        on_reply: Callable[[Message], None],
    ) -> None:
        self._queue = queue
        self._on_reply = on_reply
        self._connection: FastConnection
        self._link = Link(
            loop, options, "replies", on_up=self._up, on_down=lambda _reason, _error: None
        )

    def close(self) -> None:
        self._link.close(1.0)

    def _up(self, connection: FastConnection) -> None:
        self._connection = connection
        Scratch(self._link, connection).ensure(
            topology.declarations(self._queue, 0), self._declared
        )

    def _declared(self, refusal: str | None) -> None:
        if refusal is None:
            self._connection.open_channel(self._channel_opened)
        else:
            self._connection.abandon(f"queue {self._queue.name!r} cannot be declared: {refusal}")

    def _channel_opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_cancel_callback(
            lambda _cancel: self._connection.abandon(f"queue {self._queue.name!r} was deleted")
        )
        self._connection.reader.deliveries[channel.channel_number] = (
            lambda _consumer, _tag, _again, _exchange, _key, message: self._on_reply(message)
        )
        channel.basic_consume(
            self._queue.name,
            on_message_callback=ignore,
            auto_ack=True,
            callback=lambda _ok: self._link.prove(),
        )

    def _channel_closed(self, _channel: Channel, error: Exception) -> None:
        if isinstance(error, ChannelClosedByBroker):
            self._connection.abandon(why(error))
