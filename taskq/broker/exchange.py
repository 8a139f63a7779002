"""What a message broker does with a message, for the brokers that have no server to do it.

Which queues a message goes to, how early it comes there and how long it may stay: arithmetic on
names and bytes, by RabbitMQ's rules.  Where bindings and messages are kept is the business of
`sqlite` and `memory`.
"""

from collections.abc import Iterable
from typing import NamedTuple

from taskq.broker.base import Queue, Route
from taskq.broker.topology import dead
from taskq.errors import ConfigurationError, Undeliverable

#: The rank of a message without a priority; the highest priority (9 and more) has rank 0.
LAST_RANK = 9

# Flags of the properties up to `expiration`, in the order of the wire; see `wire.message`.
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_PRIORITY, _CORRELATION_ID, _REPLY_TO, _EXPIRATION = 1 << 11, 1 << 10, 1 << 9, 1 << 8


class Binding(NamedTuple):
    """A queue's wish for the messages of *exchange* whose key fits *routing_key*."""

    exchange: str
    type: str
    routing_key: str
    queue: str


def bindings(queue: Queue) -> list[Binding]:
    """The bindings that declaring *queue* makes; ConfigurationError for an unknown exchange type.

    As on RabbitMQ, the default exchange "" leads to every queue by its name.
    """
    made = [Binding("", "direct", queue.name, queue.name)]
    if queue.kind == "work":
        made.append(Binding("", "direct", dead(queue.name), dead(queue.name)))
    if queue.exchange:
        if queue.exchange_type not in ("direct", "topic", "fanout"):
            raise ConfigurationError(
                f"queue {queue.name!r} is bound to exchange {queue.exchange!r} of type "
                f"{queue.exchange_type!r}; brokers without a server know direct, topic and fanout"
            )
        made.append(Binding(queue.exchange, queue.exchange_type, queue.routing_key, queue.name))
    return made


def targets(known: Iterable[Binding], route: Route, *, mandatory: bool) -> list[str]:
    """The queues that get a message sent to *route*, each once.

    *known* are the bindings of its exchange.  Undeliverable if there is no such exchange,
    or if nothing fits and it is *mandatory*.
    """
    every = list(known)
    if route.exchange and not every:
        raise Undeliverable(
            f"not queued: there is no {route}; declare a queue that is bound to that exchange"
        )
    found = [binding.queue for binding in every if _fits(binding, route.routing_key)]
    if mandatory and not found:
        raise Undeliverable(
            f"not queued: {route} leads to no queue; declare it first, or start a worker for it"
        )
    return list(dict.fromkeys(found))


def _fits(binding: Binding, routing_key: str) -> bool:
    return fits(binding.type, binding.routing_key, routing_key)


def fits(kind: str, pattern: str, routing_key: str) -> bool:
    """Whether an exchange of type *kind* sends what has *routing_key* to who is bound by *pattern*.

    Anything but a topic and a fanout exchange compares them.
    """
    if kind == "topic":
        return topic_fits(pattern, routing_key)
    return kind == "fanout" or pattern == routing_key


def topic_fits(pattern: str, routing_key: str) -> bool:
    """Whether the words of *routing_key* fit *pattern*: `*` is one word, `#` any number of them."""
    words = routing_key.split(".") if routing_key else []
    reached = {0}  # how many words the pattern so far may have used up
    for part in pattern.split(".") if pattern else []:
        if part == "#":
            reached = set(range(min(reached), len(words) + 1))
        else:
            reached = {n + 1 for n in reached if n < len(words) and part in ("*", words[n])}
        if not reached:
            return False
    return len(words) in reached


def rank_and_lifetime(raw: bytes) -> tuple[int, float | None]:
    """How early a message comes in its queue (0 first), and its seconds to live there, if bounded.

    Priority and expiration are read past the headers, whose decoding would cost more than storing
    the message does.  Broken properties are carried like any other: they get the defaults.
    """
    try:
        flags = raw[0] << 8 | raw[1]
        if not flags & (_PRIORITY | _EXPIRATION):
            return LAST_RANK, None
        return _read(raw, flags)
    except (IndexError, ValueError):
        return LAST_RANK, None


def _read(raw: bytes, flags: int) -> tuple[int, float | None]:
    at, rank = 2, LAST_RANK
    for flag in (_CONTENT_TYPE, _CONTENT_ENCODING):
        if flags & flag:
            at += 1 + raw[at]
    if flags & _HEADERS:
        at += 4 + int.from_bytes(raw[at : at + 4])
    if flags & _DELIVERY_MODE:
        at += 1
    if flags & _PRIORITY:
        rank = LAST_RANK - min(raw[at], LAST_RANK)
        at += 1
    if not flags & _EXPIRATION:
        return rank, None
    for flag in (_CORRELATION_ID, _REPLY_TO):
        if flags & flag:
            at += 1 + raw[at]
    return rank, int(raw[at + 1 : at + 1 + raw[at]]) / 1000
