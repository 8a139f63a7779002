"""Names and arguments of everything taskq declares on RabbitMQ: arithmetic on names.

Work queues with their dead-letter queues, reply queues, the exchanges of who speaks to all and the
log of what they said, and the delay ladder; who declares them, and when, is the business of `amqp`.
RabbitMQ compares arguments at each declaration and refuses (406) what differs, so a change here
separates old processes from new ones.

**The delay ladder.**  A message that has to wait passes through queues whose time to live doubles
from level to level, and thus waits in the broker and not in somebody's memory::

    exchange taskq.delay.2 --1--> queue taskq.delay.2 (250 ms) --expired--+
                     +--0-------------------------------------------------+--> taskq.delay.1 ...

    ... taskq.delay.0 --> taskq.delay.due --*.*. ... .*.orders--> queue orders

The delay in units of `UNIT` is written into the routing key, one word for each bit from the highest
to the lowest, and the target behind them.  The exchange of level L sends a key whose bit L is 1
into its queue and any other one level down; the last exchange reads over all bits and compares the
target exactly, so that queue `b` gets nothing that is meant for `a.b`.

The target is always a queue.  Routing to a named exchange needs the original key, and nothing in
RabbitMQ rewrites keys except dead-lettering: so such a message goes through a queue of its own
(`_forwarder`), where it expires at once towards that exchange and key.  The way through a queue
also holds back trouble: when the exchange is gone, only its own messages wait.  A direct binding
serves the default exchange, by far the usual case, with one queue and one hop less.

A message whose target queue is gone leaves the last exchange for `taskq.undeliverable`.  Without
that, 32 of them would stop a level for everyone, because RabbitMQ's dead-lettering waits for
confirms and takes only so many on the way.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from taskq.broker.base import Queue, Route

#: The shortest delay in seconds; delays are rounded down to a multiple.
UNIT = 1 / 16
LEVELS = 32
#: The longest delay in seconds, eight and a half years.
LONGEST = (2**LEVELS - 1) * UNIT

#: The header that remembers where a delayed message was sent: [exchange, routing key].
ROUTE_HEADER = "taskq-route"

UNDELIVERABLE = "taskq.undeliverable"
_DUE = "taskq.delay.due"

#: For queues that only pass messages on; a positive number means the same on every RabbitMQ.
_NO_DELIVERY_LIMIT = 1_000_000
#: The broker's own net under taskq's count of crashes; without it RabbitMQ 4 stops at 20.
_DELIVERY_LIMIT = 100
#: A caller that is away for longer than this (seconds) finds its results gone.
REPLY_EXPIRES = 600

#: What a log keeps: for so long (seconds), of so many messages where it has a row for each, and of
#: so many bytes on RabbitMQ, which drops whole segments of these sizes.
LOG_AGE, LOG_LENGTH = 7 * 86_400.0, 50_000
_LOG_BYTES, _LOG_SEGMENT_BYTES = 20_000_000, 1_000_000

#: How long (seconds) a claim waits for the worker that it belongs to before it goes home.
_CLAIM_WAITS = 10
#: A claim queue that nobody consumes goes after so many seconds.
_CLAIM_EXPIRES = 3600

#: A routing key may take 255 bytes; the bits and their dots take 64.
_LONGEST_TARGET = 255 - 2 * LEVELS

#: A forwarder of delays below this level (24 days) is removed when unused for twice as long; those
#: of longer delays stay, since nothing tells how long they are needed.
_SHORT_LEVELS = 25
_FORWARDER_EXPIRES_MS = int(2 * 2**_SHORT_LEVELS * UNIT * 1000)


@dataclass(frozen=True, slots=True)
class DeclareQueue:
    """A durable queue; equal to any other of its name, for a broker has one of a name."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class DeclareExchange:
    """A durable exchange, or not; with *passive* it must exist already, of whatever kind."""

    name: str
    type: str = field(default="direct", compare=False)
    arguments: Mapping[str, Any] = field(default_factory=dict, compare=False)
    passive: bool = field(default=False, compare=False)
    durable: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class BindQueue:
    """A binding of *queue* to *exchange*."""

    queue: str
    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class BindExchange:
    """A binding that leads from the exchange *source* to the exchange *target*."""

    target: str
    source: str
    routing_key: str


Declaration = DeclareQueue | DeclareExchange | BindQueue | BindExchange


class Climb(NamedTuple):
    """A message's way up the ladder: what it is published with, and the *queue* it will reach."""

    exchange: str
    routing_key: str
    level: int
    queue: str
    forwarder: DeclareQueue | None


def physical(queue: str, prefix: str = "") -> str:
    """The name on the broker of the queue that users call *queue*."""
    return prefix + queue


#: What the name of a dead-letter queue ends in.
DEAD = ".dead"


def dead(queue: str) -> str:
    """The name of the dead-letter queue of *queue*."""
    return queue + DEAD


def arguments(queue: Queue, dead_letter_max_length: int) -> dict[str, Any]:
    """The arguments that *queue* is declared with; its own win over those of its kind."""
    if queue.kind == "reply":
        own = {"x-queue-type": "classic", "x-expires": REPLY_EXPIRES * 1000}
    elif queue.kind == "dead":
        own = _dead_arguments(dead_letter_max_length)
    elif queue.kind == "claim":
        own = {}  # all of `claim_arguments`
    elif queue.kind == "log":
        own = _log_arguments()
    else:
        own = _work_arguments(queue)
    return own | dict(queue.arguments)


def claim_arguments(work_queue: str) -> dict[str, Any]:
    """Of a claim queue: what nobody holds there goes back to *work_queue*, and none is lost."""
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": _CLAIM_WAITS * 1000,
        "x-expires": _CLAIM_EXPIRES * 1000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": work_queue,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": _NO_DELIVERY_LIMIT,
    }


def lease_queue(name: str) -> DeclareQueue:
    """The queue in which the token of the lease *name* lies: one consumer at a time has it."""
    return DeclareQueue(
        name,
        {
            "x-queue-type": "quorum",
            "x-single-active-consumer": True,
            "x-delivery-limit": _NO_DELIVERY_LIMIT,
        },
    )


def consumer_timeout(reason: str) -> float | None:
    """The broker's patience in seconds, if *reason* is its complaint that it was exceeded.

    It cannot be asked for over AMQP; the text of the 406 is the only place that tells.
    """
    found = re.search(r"Timeout value used: (\d+) ms", reason)
    return int(found[1]) / 1000 if found else None


def declarations(queue: Queue, dead_letter_max_length: int) -> tuple[Declaration, ...]:
    """What makes *queue* usable, in order: a dead-letter queue comes before what points at it."""
    needed: list[Declaration] = []
    if queue.kind == "work":
        needed.append(DeclareQueue(dead(queue.name), _dead_arguments(dead_letter_max_length)))
    needed.append(DeclareQueue(queue.name, arguments(queue, dead_letter_max_length)))
    if queue.kind == "log":
        needed.append(told(queue.exchange))
    elif queue.exchange:
        needed.append(DeclareExchange(queue.exchange, queue.exchange_type))
    if queue.exchange:
        needed.append(BindQueue(queue.name, queue.exchange, queue.routing_key))
    return tuple(needed)


def told(exchange: str) -> DeclareExchange:
    """The exchange of who speaks to all that listen: its name says what it is.

    Those of Celery's remote control, `NAME.pidbox` and `reply.NAME.pidbox`, do not outlive the
    broker; all else is for events.
    """
    if not exchange.endswith(_PIDBOX):
        return DeclareExchange(exchange, "topic")
    is_for_replies = exchange.startswith(_REPLY)
    return DeclareExchange(exchange, "direct" if is_for_replies else "fanout", durable=False)


_PIDBOX, _REPLY = ".pidbox", "reply."


def log(name: str, exchange: str) -> Queue:
    """The queue that keeps what is sent to *exchange* for those who come later."""
    return Queue(name, exchange, told(exchange).type, "#", kind="log")


def logged(name: str, exchange: str) -> Route:
    """The way to all who listen to *exchange*, and into its log *name*: see `Broker.history`."""
    return Route(exchange, "", (log(name, exchange),))


def _log_arguments() -> dict[str, Any]:
    # A stream is read without being emptied, by many.
    return {
        "x-queue-type": "stream",
        "x-max-age": f"{LOG_AGE / 86_400:.0f}D",
        "x-max-length-bytes": _LOG_BYTES,
        "x-stream-max-segment-size-bytes": _LOG_SEGMENT_BYTES,
    }


def _dead_arguments(max_length: int) -> dict[str, Any]:
    # drop-head, because a full queue that refuses would keep dead letters invisibly at their source
    return {
        "x-queue-type": "quorum",
        "x-max-length": max_length,
        "x-overflow": "drop-head",
        "x-delivery-limit": _NO_DELIVERY_LIMIT,
    }


def _work_arguments(queue: Queue) -> dict[str, Any]:
    given = dict(queue.arguments)
    if queue.max_priority is not None:
        given = {"x-queue-type": "classic", "x-max-priority": queue.max_priority} | given
    kind = given.get("x-queue-type", "quorum")
    if kind == "quorum":
        to_dead = _at_least_once("", dead(queue.name))
        given = to_dead | {"x-delivery-limit": _DELIVERY_LIMIT} | given
    elif kind == "classic":
        target = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead(queue.name)}
        given = target | given
    return given


def _at_least_once(exchange: str, routing_key: str | None = None) -> dict[str, Any]:
    """Arguments of a quorum queue whose dead letters wait until their target has them.

    Without `x-overflow: reject-publish` RabbitMQ silently makes that at-most-once.
    """
    key = {} if routing_key is None else {"x-dead-letter-routing-key": routing_key}
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": exchange,
        **key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


# -- the delay ladder ----------------------------------------------------------------------------


def climb(exchange: str, routing_key: str, delay: float) -> Climb | None:
    """How a message for *exchange* and *routing_key* waits *delay* seconds; None: not at all.

    ValueError for a delay over `LONGEST`.
    """
    units = int(delay / UNIT)
    if units <= 0:
        return None
    if units >= 2**LEVELS:
        raise ValueError(
            f"a delay of {delay:.0f} seconds is over the longest, {LONGEST:.0f} (8.5 years)"
        )
    level = units.bit_length() - 1
    forwarder = _forwarder(exchange, routing_key, level) if exchange else None
    queue = forwarder.name if forwarder else routing_key
    bits = ".".join(f"{units:0{LEVELS}b}")
    return Climb(_level(level), f"{bits}.{_word(queue)}", level, queue, forwarder)


def ladder(climb: Climb, dead_letter_max_length: int) -> tuple[Declaration, ...]:
    """What *climb* needs, in order: from below, so that no level leads nowhere."""
    declared: list[Declaration] = list(_landing(dead_letter_max_length))
    for level in range(climb.level + 1):
        declared += _rung(level)
    if climb.forwarder:
        declared.append(climb.forwarder)
    declared.append(_arrival(climb.queue))
    return tuple(declared)


def arrivals(queue: str, dead_letter_max_length: int) -> tuple[Declaration, ...]:
    """What lets messages that are on the ladder already arrive in *queue*, newly declared."""
    return (*_landing(dead_letter_max_length), _arrival(queue))


def origin(headers: Mapping[str, Any], exchange: str, routing_key: str) -> tuple[str, str]:
    """Where a message with *headers* was sent first, if it came by way of the ladder.

    *exchange* and *routing_key*, with which it arrived, where its headers do not tell.
    """
    match headers.get(ROUTE_HEADER):
        case [str(first_exchange), str(first_key)]:
            return first_exchange, first_key
    return exchange, routing_key


def delay_queues() -> list[str]:
    """The queues of the ladder from the lowest; where one is missing, so are those above it."""
    return [_level(number) for number in range(LEVELS)]


def _level(number: int) -> str:
    return f"taskq.delay.{number}" if number >= 0 else _DUE


def _rung(level: int) -> tuple[Declaration, ...]:
    name, below = _level(level), _level(level - 1)
    higher_bits = "*." * (LEVELS - 1 - level)
    waiting = {
        **_at_least_once(below),
        "x-message-ttl": int(2**level * UNIT * 1000),
        "x-delivery-limit": _NO_DELIVERY_LIMIT,
    }
    return (
        DeclareExchange(name, "topic"),
        DeclareQueue(name, waiting),
        BindQueue(name, name, f"{higher_bits}1.#"),
        BindExchange(below, name, f"{higher_bits}0.#"),
    )


def _landing(dead_letter_max_length: int) -> tuple[Declaration, ...]:
    """The last exchange, and the queue for what no longer has a target."""
    return (
        DeclareExchange(UNDELIVERABLE, "fanout"),
        DeclareQueue(UNDELIVERABLE, _dead_arguments(dead_letter_max_length)),
        BindQueue(UNDELIVERABLE, UNDELIVERABLE, ""),
        DeclareExchange(_DUE, "topic", {"alternate-exchange": UNDELIVERABLE}),
    )


def _arrival(queue: str) -> BindQueue:
    return BindQueue(queue, _DUE, "*." * LEVELS + _word(queue))


def _forwarder(exchange: str, routing_key: str, level: int) -> DeclareQueue:
    digest = _digest(f"{exchange}\0{routing_key}")
    passing = {
        **_at_least_once(exchange, routing_key),
        "x-message-ttl": 0,
        "x-delivery-limit": _NO_DELIVERY_LIMIT,
    }
    if level < _SHORT_LEVELS:
        return DeclareQueue(
            f"taskq.delay.to.{digest}", passing | {"x-expires": _FORWARDER_EXPIRES_MS}
        )
    return DeclareQueue(f"taskq.delay.long.to.{digest}", passing)


def _word(queue: str) -> str:
    """*queue* as the end of a routing key; a digest where its own name would not match exactly."""
    if "*" in queue or "#" in queue or len(queue.encode()) > _LONGEST_TARGET:
        return f"taskq.digest.{_digest(queue)}"
    return queue


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:32]
