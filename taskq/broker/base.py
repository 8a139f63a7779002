"""The contract of a broker: how messages are published, consumed and settled.

`Broker` stands for one URL and hands out two kinds of hold on it: an `Outlet` publishes and never
consumes, an `Intake` consumes and never publishes.  They are apart because RabbitMQ stops reading a
connection that publishes while an alarm is on, its acks included.  Everything here runs on the
loop it was opened with and is not thread-safe, unless it says so.  Errors of use (a wrong URL)
raise at once; whatever depends on the other side is reported to a callback.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from taskq.errors import PublishError
from taskq.loop import Loop
from taskq.wire.message import Message


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue as it should be declared.

    *name* is the physical name.  A work queue has a dead-letter queue beside it, named by
    `topology.dead`; *exchange* "" is AMQP's default exchange, which needs no binding.
    *arguments* are added to, and win over, those of `topology`.
    """

    name: str
    exchange: str = ""
    exchange_type: str = "direct"
    routing_key: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    max_priority: int | None = None
    #: A "log" is not consumed from: it keeps what is sent to it for `Broker.history`.
    kind: Literal["work", "dead", "reply", "claim", "log"] = "work"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a message goes; the queues in *declare* are made sure of before the first publish."""

    exchange: str
    routing_key: str
    declare: tuple[Queue, ...] = ()

    @property
    def log(self) -> str | None:
        """The name of the log that this way leads into, if any; see `Broker.history`."""
        return next((queue.name for queue in self.declare if queue.kind == "log"), None)

    def __str__(self) -> str:
        if not self.exchange:
            return f"queue {self.routing_key!r}"
        return f"exchange {self.exchange!r} with routing key {self.routing_key!r}"


class Delivery:
    """One message in a worker's hands, not yet settled.

    *tag* and *hold* mean something only to the intake that made it.  *exchange* and *routing_key*
    are where the message was first sent, also after a delay.  *count* is how often the broker says
    that it was delivered before (0 where it does not count).
    """

    __slots__ = (
        "count",
        "exchange",
        "hold",
        "message",
        "queue",
        "redelivered",
        "routing_key",
        "tag",
    )

    def __init__(
        self,
        tag: int,
        hold: object,
        queue: str,
        message: Message,
        exchange: str = "",
        routing_key: str = "",
        redelivered: bool = False,
        count: int = 0,
    ) -> None:
        self.tag = tag
        self.hold = hold
        self.queue = queue
        self.message = message
        self.exchange = exchange
        self.routing_key = routing_key
        self.redelivered = redelivered
        self.count = count

    def __repr__(self) -> str:
        return f"Delivery({self.tag} from {self.queue!r})"


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """What a broker is told besides its URLs; all times in seconds, none of them unbounded."""

    urls: tuple[str, ...]
    name: str = "taskq"
    heartbeat: float = 30.0
    connect_timeout: float = 5.0
    declare_timeout: float = 10.0
    publish_timeout: float = 10.0
    blocked_timeout: float = 30.0
    #: How long acks may wait to be sent together; for 0 nothing turns the loop meanwhile.
    ack_delay: float = 0.005
    dead_letter_max_length: int = 1_000_000
    #: Of what the embedded broker itself dead-letters; workers set that of their own dead letters.
    dead_letter_ttl: float = 7 * 86_400.0
    result_expires: float = 86_400.0
    ssl: Mapping[str, Any] = field(default_factory=dict)
    #: Where relative SQLite paths start from.
    root: str = "."


#: Called exactly once: None when the broker has the message, else why it has not.
Done = Callable[[PublishError | None], None]


def unheard(_blocked: bool) -> None:
    """The `on_blocked` of an outlet whose owner can wait."""


class Outlet(Protocol):
    """A way to publish.  Each call of `publish` ends in exactly one call of its *done*."""

    def publish(
        self,
        message: Message,
        route: Route,
        done: Done,
        *,
        due: float | None = None,
        mandatory: bool = True,
        timeout: float | None = None,
        confirm: bool = True,
    ) -> None:
        """Send *message* to *route*; *done* hears None once the broker has it on disk.

        Before the first publish the queues of the route are declared.  With *due* (seconds since
        the epoch) the broker holds the message until then.  *done* hears PublishRefused when the
        message is certainly not queued: rejected, no connection; Undeliverable, which is one, when
        another attempt would be in vain: unroutable (if *mandatory*), a missing exchange;
        PublishUnconfirmed when *timeout* (None: the option's) passes without a word.  A lost
        connection is mended within the timeout and the message sent again with its id.
        *confirm* False means the caller's own process need not wait (a relay calls *done* at once;
        brokers confirm all the same).
        """

    def broadcast(self, message: Message, exchange: str, routing_key: str) -> bool:
        """Send *message* to whoever listens to *exchange* now; see `Broker.listen`.

        For what has no value later: nothing is waited for, kept or sent again.  False if it cannot
        go out at this moment, because there is no connection or the broker is slow to take more.
        What must not get lost, and is for those who come later, too, is published along
        `topology.logged` instead.
        """

    def close(self, timeout: float = 5.0) -> None:
        """Give what is unconfirmed up to *timeout* seconds, report the rest, release everything.

        Idempotent.  May be called from a callback of the loop; turns the loop itself to wait.
        """


class Intake(Protocol):
    """A worker's hold on some queues: consumes and settles, never publishes.

    Created with the callbacks of its owner::

        on_delivery(delivery)      a message, unsettled, never more than the window
        on_ready()                 consuming from all queues (after each connection made)
        on_lost(reason)            all unsettled deliveries are gone and will come again
    """

    def consume(self, queues: Sequence[Queue], window: int) -> None:
        """Declare *queues* and begin: at most *window* unsettled deliveries of each.

        Returns at once; a lost connection is mended for ever, with backoff.
        """

    def resize(self, window: int) -> None:
        """From now on at most *window* unsettled deliveries of each queue.

        What is in hand stays there; where the broker counts by consumer it comes on top.
        """

    def add(self, queue: Queue) -> None:
        """Consume from one more queue."""

    def cancel(self, queue: str) -> None:
        """Stop consuming from *queue*; what is unsettled stays in hand and can be settled."""

    def pause(self) -> None:
        """Cancel all consumers; what is unsettled stays in hand and can be settled."""

    def ack(self, delivery: Delivery, *, at_once: bool = False) -> None:
        """Say the work is done, for good.  Nothing happens if the hold is lost meanwhile.

        The broker may hear of it a moment later, together with others (`BrokerOptions.ack_delay`);
        not with *at_once*, for work that must not be done twice.
        """

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        """Give *delivery* back to its queue, or to its dead-letter queue.  As `ack` if lost."""

    def close(self, timeout: float = 5.0) -> None:
        """Flush settlements, give everything unsettled back uncounted, release.  Idempotent.

        Turns the loop itself while it waits, at most *timeout* seconds.
        """


class Replies(Protocol):
    """A reply queue of this process, consumed on a connection of its own."""

    def close(self) -> None:
        """Stop consuming.  Idempotent."""


class Listening(Protocol):
    """An ear for what is broadcast from now on."""

    def close(self) -> None:
        """Stop listening.  Idempotent."""


class Token(NamedTuple):
    """What one holder of a lease hands on to the next: its number, and what it wrote down last."""

    epoch: int
    #: Empty if nobody ever held the lease.
    note: str


class Lease(Protocol):
    """The right to do what one process at a time may do, and a way to publish for it.

    It is asked for again and again, from the beginning until `release`::

        waiting ── granted(token) ──▶ holding ── renew(note) ──▶ holding
           ▲                             │
           └─── lost(reason) ────────────┘── release(note) ──▶ over

    Whoever holds it must renew it several times in its length, given in seconds.
    """

    def publish(self, message: Message, route: Route, done: Done) -> None:
        """Send under the lease; *done* as that of `Outlet.publish`.

        PublishRefused when this process does not hold it, or has not renewed it in time by its own
        clock: others may hold it then.  What is not confirmed when it is lost is not sent again.
        """

    def renew(self, note: str) -> None:
        """Hold on to the lease, and have the next holder find *note*.  Does nothing if not held."""

    def release(self, note: str, timeout: float = 5.0) -> None:
        """Let another have it at once, and release everything; *lost* is not called.  Idempotent.

        As `Outlet.close`; *note* counts only while it is held.
        """


@dataclass(frozen=True, slots=True)
class Stock:
    """What a broker tells of *queue* at one moment; None where it does not tell.

    *ready* messages wait for a consumer, *unacked* are in consumers' hands, *delayed* wait for
    their time.  *oldest* is when the oldest of those that are ready was sent, or became due, in
    seconds since the epoch.  *arriving* and *leaving* are messages a second as the broker counts.
    """

    queue: str
    ready: int
    unacked: int | None = None
    consumers: int | None = None
    #: quorum, classic or stream; sqlite, memory.
    type: str | None = None
    oldest: float | None = None
    delayed: int | None = None
    arriving: float | None = None
    leaving: float | None = None


class Keeper(Protocol):
    """A look at queues from outside, and power over them, for operators.

    No look takes a message, changes the order of messages, or makes a queue.  Each call blocks; all
    of them raise BrokerUnavailable when the broker is away, and QueueError for what it refuses.
    """

    def look(self, queues: Sequence[str]) -> dict[str, Stock]:
        """What there is to know of *queues*, by physical name; those that do not exist left out."""

    def delayed(self) -> int:
        """How many messages wait for their time, for whatever queue."""

    def purge(self, queue: str) -> int:
        """Throw away what is ready in *queue*, for good; how many messages that were."""

    def delete(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> None:
        """Delete *queue* with all that is ready in it or in consumers' hands.

        QueueError if it has consumers and *if_unused*, or ready messages and *if_empty*.
        """

    def close(self) -> None:
        """Release the connection.  Idempotent."""


class Broker(Protocol):
    """What one broker URL (or fail-over list) names.  Cheap to make: connects only when used."""

    #: Whether an outlet needs a turning loop; otherwise `publish` is done when it returns, and
    #: may be called from any thread.
    needs_loop: bool

    #: Whether a delivery that stays unsettled for long is taken back (see `worker.claims`).
    takes_back: bool

    @property
    def url(self) -> str:
        """The URL for people, with the password masked."""

    def outlet(self, loop: Loop | None, *, on_blocked: Callable[[bool], None] = unheard) -> Outlet:
        """Open a way to publish; *loop* may be None where `needs_loop` is False.

        *on_blocked* hears True when the broker takes no messages for a while (an alarm), which
        `publish` waits out as far as its timeout goes, and False when it takes them again.
        """

    def intake(
        self,
        loop: Loop,
        *,
        on_delivery: Callable[[Delivery], None],
        on_ready: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> Intake:
        """Open a hold on queues for a worker."""

    def replies(self, loop: Loop, queue: Queue, on_reply: Callable[[Message], None]) -> Replies:
        """Consume the reply *queue* without acks; ConfigurationError where there are none."""

    def listen(
        self,
        loop: Loop,
        exchange: str,
        pattern: str,
        *,
        on_message: Callable[[Message], None],
        on_ready: Callable[[], None],
        queue: str | None = None,
    ) -> Listening:
        """Hear what is sent to *exchange* from now on with a routing key that fits *pattern*.

        The exchange is of the type that its name says (`topology.told`).  *on_ready* is called when
        the ear is open, and again after each connection lost: what was said meanwhile is not heard.

        With *queue* the ear bears a name that only one may have at a time, Celery's for the mailbox
        of a worker; elsewhere names mean nothing.  While another has it, this ear tries again and
        again, tells the log after three heartbeats, and is not ready: let no work wait for it.
        """

    def history(
        self,
        loop: Loop,
        name: str,
        exchange: str,
        *,
        on_message: Callable[[Message], None],
        on_ready: Callable[[], None],
    ) -> Listening:
        """Play what the log *name* of *exchange* has kept, oldest first, then call *on_ready* once.

        Whatever was confirmed along `topology.logged` before this call is played, for as long as a
        log keeps it; other messages to *exchange* may be.  After a connection that was lost on the
        way it begins anew.  When the broker keeps no logs, or says nothing for some seconds once it
        is connected, *on_ready* is called all the same, and an event tells.  Then it is over.

        Nothing is missed or heard in the wrong order by who listens to *exchange* first, then has
        the history played, again each time the ear is ready anew, and holds back what is heard
        meanwhile until that has ended.
        """

    def lease(
        self,
        loop: Loop,
        name: str,
        length: float,
        *,
        granted: Callable[[Token], None],
        lost: Callable[[str], None],
    ) -> Lease | None:
        """Ask for the lease *name*, of *length* seconds; None where the broker keeps no leases."""

    def count(self, queue: str) -> int:
        """How many messages are ready in *queue* (0 if it does not exist); blocks, any thread."""

    def keeper(self, management: str | None = None) -> Keeper:
        """Open a look at queues, for one thread.

        *management* is the URL of RabbitMQ's HTTP API, which tells more than AMQP does; without it
        that is looked for at its usual port.
        """

    def close(self) -> None:
        """Release what the broker itself holds.  Idempotent."""
