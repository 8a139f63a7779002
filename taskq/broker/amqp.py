"""RabbitMQ as a broker: what its URL names, and the holds on it that it hands out.

Each hold keeps one connection of its own (`connection.Link`): `amqp_outlet` publishes with
confirms, `amqp_intake` consumes, `amqp_lease` does both on one channel, `amqp_broadcast` speaks to
whoever listens, and listens itself.  What is declared, and under which names, is decided by
`topology`; how bytes are cut and joined by `fastpath`.
"""

from collections.abc import Callable
from typing import Any

from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker

from taskq import clock
from taskq.broker import fastpath
from taskq.broker.amqp_broadcast import AmqpListening
from taskq.broker.amqp_intake import AmqpIntake, AmqpReplies
from taskq.broker.amqp_lease import AmqpLease
from taskq.broker.amqp_outlet import AmqpOutlet
from taskq.broker.base import BrokerOptions, Delivery, Queue, Token, unheard
from taskq.broker.connection import NOT_FOUND, Link, parameters, why
from taskq.errors import BrokerUnavailable
from taskq.loop import Loop
from taskq.url import masked
from taskq.wire.message import Message

#: RabbitMQ counts 0 where the leader of a quorum queue does not answer it in this time (seconds);
#: so a 0 that took so long is asked for again, and believed in the end, for the way may be long.
_LEADER_PATIENCE, _MORE_ASKING = 0.25, 8


class AmqpBroker:
    """One RabbitMQ, or the nodes of a fail-over list."""

    needs_loop = True
    takes_back = True

    def __init__(self, options: BrokerOptions) -> None:
        fastpath.require_known_pika()
        for url in options.urls:
            parameters(url, options, "")
        self._options = options

    @property
    def url(self) -> str:
        return ";".join(masked(url) for url in self._options.urls)

    def outlet(
        self, loop: Loop | None, *, on_blocked: Callable[[bool], None] = unheard
    ) -> AmqpOutlet:
        assert loop is not None, "an outlet to RabbitMQ needs a loop"
        return AmqpOutlet(loop, self._options, on_blocked)

    def intake(
        self,
        loop: Loop,
        *,
        on_delivery: Callable[[Delivery], None],
        on_ready: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> AmqpIntake:
        return AmqpIntake(loop, self._options, on_delivery, on_ready, on_lost)

    def replies(self, loop: Loop, queue: Queue, on_reply: Callable[[Message], None]) -> AmqpReplies:
        return AmqpReplies(loop, self._options, queue, on_reply)

    def listen(
        self,
        loop: Loop,
        exchange: str,
        pattern: str,
        *,
        on_message: Callable[[Message], None],
        on_ready: Callable[[], None],
    ) -> AmqpListening:
        return AmqpListening(loop, self._options, exchange, pattern, on_message, on_ready)

    def lease(
        self,
        loop: Loop,
        name: str,
        length: float,
        *,
        granted: Callable[[Token], None],
        lost: Callable[[str], None],
    ) -> AmqpLease:
        return AmqpLease(loop, self._options, name, length, granted, lost)

    def count(self, queue: str) -> int:
        """How many messages are ready in *queue*; BrokerUnavailable after the connect timeout."""
        loop = Loop()
        answers: list[int | str] = []

        def opened(channel: Channel) -> None:
            channel.add_on_close_callback(refuse)
            ask(channel, _MORE_ASKING)

        def ask(channel: Channel, more: int) -> None:
            asked = clock.monotonic()

            def count(answer: Any) -> None:
                ready = int(answer.method.message_count)
                if not ready and more and clock.monotonic() - asked >= _LEADER_PATIENCE:
                    ask(channel, more - 1)
                else:
                    answers.append(ready)

            channel.queue_declare(queue, passive=True, callback=count)

        def refuse(_channel: Channel, error: Exception) -> None:
            if isinstance(error, ChannelClosedByBroker):
                answers.append(0 if error.reply_code == NOT_FOUND else why(error))

        link = Link(
            loop,
            self._options,
            "count",
            on_up=lambda connection: connection.channel(on_open_callback=opened),
            on_down=lambda _reason, _error: None,
            tell=lambda *_, **__: None,
        )
        try:
            link.wait(lambda: bool(answers), self._options.connect_timeout)
            reason = link.reason
        finally:
            link.close(1.0)
            loop.close()
        match answers:
            case [int(ready), *_]:
                return ready
            case [str(refusal), *_]:
                raise BrokerUnavailable(f"{self.url} does not count queue {queue!r}: {refusal}")
        raise BrokerUnavailable(f"no answer from {self.url}: {reason}")

    def close(self) -> None:
        """Nothing to release: every hold closes its own connection."""
