"""RabbitMQ as a broker: what its URL names, and the holds on it that it hands out.

Each hold keeps one connection of its own (`connection.Link`): `amqp_outlet` publishes with
confirms, `amqp_intake` consumes, `amqp_lease` does both on one channel, `amqp_broadcast` speaks to
whoever listens, and listens itself, `amqp_history` plays what was said before.  What is declared,
and under which names, is decided by `topology`; how bytes are cut and joined by `fastpath`.
"""

from collections.abc import Callable

from taskq.broker import fastpath, topology
from taskq.broker.amqp_broadcast import AmqpListening
from taskq.broker.amqp_history import AmqpHistory
from taskq.broker.amqp_intake import AmqpIntake, AmqpReplies
from taskq.broker.amqp_keeper import AmqpKeeper
from taskq.broker.amqp_lease import AmqpLease
from taskq.broker.amqp_outlet import AmqpOutlet
from taskq.broker.base import BrokerOptions, Delivery, Queue, Token, unheard
from taskq.broker.connection import parameters
from taskq.loop import Loop
from taskq.url import masked
from taskq.wire.message import Message


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
        queue: str | None = None,
    ) -> AmqpListening:
        return AmqpListening(loop, self._options, exchange, pattern, on_message, on_ready, queue)

    def history(
        self,
        loop: Loop,
        name: str,
        exchange: str,
        *,
        on_message: Callable[[Message], None],
        on_ready: Callable[[], None],
    ) -> AmqpHistory:
        log = topology.log(name, exchange)
        return AmqpHistory(loop, self._options, log, on_message, on_ready)

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
        keeper = AmqpKeeper(self._options, self.url, role="count")
        try:
            return keeper.count(queue)
        finally:
            keeper.close()

    def keeper(self, management: str | None = None) -> AmqpKeeper:
        return AmqpKeeper(self._options, self.url, management)

    def close(self) -> None:
        """Nothing to release: every hold closes its own connection."""
