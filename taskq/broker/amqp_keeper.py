"""Queues of RabbitMQ seen from outside: counted, purged and deleted, and never consumed.

AMQP itself tells little: a passive declaration counts what is ready and who consumes.  The rest is
asked of the management plugin where it answers (`amqp_management`).
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker

from taskq import clock
from taskq.broker.amqp_management import Management
from taskq.broker.base import BrokerOptions, Queue, Stock
from taskq.broker.connection import NOT_FOUND, Link, why
from taskq.broker.fastpath import FastConnection
from taskq.broker.topology import DEAD, arguments, delay_queues
from taskq.errors import BrokerUnavailable, QueueError
from taskq.loop import Loop

#: RabbitMQ counts 0 where the leader of a quorum queue does not answer it in this time (seconds);
#: so a 0 that took so long is asked for again, and believed in the end, for the way may be long.
_LEADER_PATIENCE, _MORE_ASKING = 0.25, 8

#: A type that no queue has.  To declare a queue of it changes nothing and makes nothing, whether
#: there is such a queue or not, and the refusal tells the type that it has.
_NO_TYPE = "taskq-asks"
#: RabbitMQ complains of one argument at a time, and of the type last: so often it is asked.
_MOST_COMPLAINTS = 12
_COMPLAINT = re.compile(
    r"inequivalent arg '(?P<name>[\w-]+)' for queue .*: received .* but current is "
    r"(none|(the value )?'(?P<value>[^']*)'( of type '(?P<type>\w+)')?)$"
)
#: What only a classic queue can be.
_CLASSIC = ("durable", "auto_delete", "exclusive")

#: AMQP's code for what a queue of some type cannot do, told to the whole connection.
_NOT_IMPLEMENTED = 540

#: Asks a channel for something; the second argument is to be called with the answer.
_Question = Callable[[Channel, Callable[[Any], None]], object]


class AmqpKeeper:
    """One connection on a loop of its own, opened when first used."""

    def __init__(
        self, options: BrokerOptions, url: str, management: str | None = None, role: str = "keeper"
    ) -> None:
        self._options = options
        self._url = url
        self._management = Management(management)
        self._role = role
        self._loop: Loop | None = None
        self._link: Link
        self._channel: Channel | None = None
        #: The answer, or why there is none, once it is there.
        self._answers: list[Any] = []
        #: Types do not change while a queue lives, and each question is an error in the broker's
        #: log.
        self._types: dict[str, str | None] = {}

    def look(self, queues: Sequence[str]) -> dict[str, Stock]:
        return {stock.queue: stock for stock in map(self._stock, dict.fromkeys(queues)) if stock}

    def count(self, queue: str) -> int:
        """How many messages are ready in *queue*, 0 if there is none."""
        answer = self._declared(queue)
        return int(answer.message_count) if answer else 0

    def delayed(self) -> int:
        total = 0
        for queue in delay_queues():
            answer = self._declared(queue)
            if answer is None:
                break
            total += answer.message_count
        return total

    def purge(self, queue: str) -> int:
        answer = self._ask(lambda channel, told: channel.queue_purge(queue, callback=told))
        return int(self._granted(answer, queue, "purge").message_count)

    def delete(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> None:
        stock = self._stock(queue)
        if stock is None:
            raise QueueError(f"there is no queue {queue!r} on {self._url}")
        if if_unused and stock.consumers:
            raise QueueError(f"queue {queue!r} is in use: it has {stock.consumers} consumers")
        if if_empty and stock.ready:
            raise QueueError(f"queue {queue!r} is not empty: it has {stock.ready} messages")
        # RabbitMQ asks again itself, where it can: not for quorum queues.
        flags = stock.type != "quorum"
        answer = self._ask(
            lambda channel, told: channel.queue_delete(
                queue, if_unused=if_unused and flags, if_empty=if_empty and flags, callback=told
            )
        )
        self._granted(answer, queue, "delete")
        self._types.pop(queue, None)

    def close(self) -> None:
        self._management.close()
        if self._loop is not None:
            self._link.close(1.0)
            self._loop.close()
            self._loop = None

    # -- looking -----------------------------------------------------------------------------

    def _stock(self, queue: str) -> Stock | None:
        answer = self._declared(queue)
        if answer is None:
            self._types.pop(queue, None)
            return None
        told = self._management.queue(self._connected(), queue)
        told["type"] = told.get("type") or self._type(queue)
        return Stock(queue, answer.message_count, consumers=answer.consumer_count, **told)

    def _declared(self, queue: str) -> Any:
        """What RabbitMQ says of *queue*, None if it does not exist."""
        for _ in range(_MORE_ASKING):
            asked = clock.monotonic()
            answer = self._ask(
                lambda channel, told: channel.queue_declare(queue, passive=True, callback=told)
            )
            if isinstance(answer, ChannelClosedByBroker) and answer.reply_code == NOT_FOUND:
                return None
            granted = self._granted(answer, queue, "count")
            if granted.message_count or clock.monotonic() - asked < _LEADER_PATIENCE:
                break
        return granted

    def _type(self, queue: str) -> str | None:
        """What sort of queue it is, from RabbitMQ's refusal to declare it as another."""
        if queue not in self._types:
            self._types[queue] = self._asked_type(queue)
        return self._types[queue]

    def _asked_type(self, queue: str) -> str | None:
        kind: Literal["work", "dead"] = "dead" if queue.endswith(DEAD) else "work"
        guess = arguments(Queue(queue, kind=kind), self._options.dead_letter_max_length)
        for _ in range(_MOST_COMPLAINTS):
            answer = self._ask(
                lambda channel, told: channel.queue_declare(
                    queue,
                    durable=True,
                    arguments=guess | {"x-queue-type": _NO_TYPE},
                    callback=told,
                )
            )
            if "RESOURCE_LOCKED" in str(answer):  # another connection's own
                return "classic"
            found = _COMPLAINT.search(why(answer)) if isinstance(answer, Exception) else None
            if found is None or found["name"] in _CLASSIC:
                return "classic" if found else None
            if found["name"] == "x-queue-type":
                return found["value"] or "classic"
            guess.pop(found["name"], None)
            if found["value"] is not None:
                is_text = found["type"] == "longstr" or not found["value"].isdigit()
                guess[found["name"]] = found["value"] if is_text else int(found["value"])
        return None

    # -- asking ------------------------------------------------------------------------------

    def _granted(self, answer: Any, queue: str, verb: str) -> Any:
        if not isinstance(answer, Exception):
            return answer.method
        if isinstance(answer, ChannelClosedByBroker) and answer.reply_code == NOT_FOUND:
            raise QueueError(f"there is no queue {queue!r} on {self._url}") from answer
        raise QueueError(f"{self._url} does not {verb} queue {queue!r}: {why(answer)}") from answer

    def _ask(self, question: _Question) -> Any:
        """The answer of RabbitMQ to *question*, or the error with which it closed the channel."""
        connection = self._connected()
        self._answers = []
        if self._channel is None or not self._channel.is_open:
            connection.channel(on_open_callback=self._opened)
            self._channel = self._answer(self._options.connect_timeout)
            self._answers = []
        question(self._channel, self._answers.append)
        return self._answer(self._options.declare_timeout)

    def _opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(lambda _channel, error: self._answers.append(error))
        self._answers.append(channel)

    def _answer(self, timeout: float) -> Any:
        self._link.wait(lambda: bool(self._answers), timeout)
        if not self._answers:
            raise BrokerUnavailable(f"no answer from {self._url} within {timeout:g} s")
        if isinstance(self._answers[0], str):
            raise BrokerUnavailable(f"the connection to {self._url} was lost: {self._answers[0]}")
        return self._answers[0]

    def _connected(self) -> FastConnection:
        if self._loop is None:
            self._loop = Loop()
            self._link = Link(
                self._loop,
                self._options,
                self._role,
                on_up=lambda _connection: self._link.prove(),
                on_down=self._down,
                tell=lambda *_, **__: None,
            )
        self._link.wait(lambda: self._link.connection is not None, self._options.connect_timeout)
        if self._link.connection is None:
            raise BrokerUnavailable(f"no answer from {self._url}: {self._link.reason}")
        return self._link.connection

    def _down(self, reason: str, error: BaseException) -> None:
        self._channel = None
        is_refusal = getattr(error, "reply_code", 0) == _NOT_IMPLEMENTED
        self._answers.append(error if is_refusal else reason)
