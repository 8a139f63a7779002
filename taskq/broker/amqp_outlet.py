"""Publishing to RabbitMQ: every message is written, confirmed or refused, whatever happens.

What a route needs is declared first, on a channel beside; lost connections are mended by
`connection`, and what was not confirmed is sent again.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial

from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from taskq import clock
from taskq.broker import fastpath, topology
from taskq.broker.amqp_broadcast import Broadcasts
from taskq.broker.base import BrokerOptions, Done, Queue, Route, unheard
from taskq.broker.connection import CONNECTION_FORCED, Link, Scratch, ignore, why
from taskq.broker.fastpath import FastConnection
from taskq.errors import PublishError, PublishRefused, PublishUnconfirmed, Undeliverable
from taskq.log import event
from taskq.loop import Loop, Timer
from taskq.retry import RetryPolicy
from taskq.wire.message import Message, priority

#: A reply queue is declared again this often (seconds) by who sends tasks: it must not expire
#: before its owner, busy or without a connection, listens to it.
_REPLY_REFRESH = topology.REPLY_EXPIRES / 3

#: AMQP's code for what the broker did not expect: a stream, for one, where there are none.
_INTERNAL_ERROR = 541

#: RabbitMQ rejects what comes for a quorum queue that another connection is just declaring, or that
#: is choosing a leader; a full queue also rejects.  Tried again within a second and a half.
_REJECTED = RetryPolicy(limit=5, backoff=0.05, jitter=False)

#: A channel that rejects is replaced once it is so many seconds old.  If its first message for a
#: quorum queue came while that was without a leader, RabbitMQ 3.10 asks the node of the old leader
#: from then on, and rejects each message for the queue; a channel that is opened later is not so.
_STALE = 0.5

#: A queue that was deleted is declared again after so many seconds.  RabbitMQ 3.10 takes about 0.03
#: to tell its consumers that it is gone; if it is there again by then, they never hear of it, and
#: get nothing any more.
_MOURNING = 0.5

#: How RabbitMQ begins its answer to who looks for what is not there, or binds to it.
_NOT_THERE = ("NOT_FOUND - no exchange", "NOT_FOUND - no queue")

#: So many first frames of a publish are kept: one for each route in use.
_MOST_HEADS = 1024


class _Letter:
    """One message on its way, until its `done` was called."""

    __slots__ = (
        "copies", "deadline", "done", "due", "mandatory", "mended", "message", "number",
        "rejections", "returned", "route", "suspected",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        message: Message,
        route: Route,
        done: Done,
        due: float | None,
        mandatory: bool,
        deadline: float,
    ) -> None:
        self.number = number
        self.message = message
        self.route = route
        self.done: Done | None = done  # None once called
        self.due = due
        self.mandatory = mandatory
        self.deadline = deadline
        self.copies = 0  # written, and of unknown fate: each of them may be queued
        self.returned: str | None = None  # why the broker sent it back, which its ack follows
        self.mended = False  # what its route needs was declared again for it
        self.rejections = 0
        self.suspected = False  # it was in flight when the broker closed the connection


class AmqpOutlet:
    """Publishes on a channel with confirms, and declares on another what that needs.

    A letter is always in one of these places, until it is settled::

        held        no connection, an alarm, or caution (see `_stumble`)
        planned     waits for a declaration
        resting     was rejected or came back, and is tried again in a moment
        unconfirmed written on this channel
    """

    def __init__(
        self,
        loop: Loop,
        options: BrokerOptions,
        on_blocked: Callable[[bool], None] = unheard,
    ) -> None:
        self._loop = loop
        self._options = options
        self._on_blocked = on_blocked
        self._numbers = itertools.count()
        self._held: deque[_Letter] = deque()
        self._planned: dict[tuple[Hashable, ...], list[_Letter]] = {}
        self._resting: set[_Letter] = set()
        self._unconfirmed: dict[int, _Letter] = {}  # by sequence number, ascending
        self._outstanding = 0
        self._sequence = 0
        self._last_returned = 0
        self._careful = False
        self._closed = False
        self._channel: int | None = None  # the number, once it confirms
        self._current: Channel
        self._base = 0  # the last sequence number before its first
        self._opened = math.inf  # when, and as long as no other is being opened
        self._replaced: Channel | None = None  # the one before, until all on it is answered
        self._connection: FastConnection
        self._scratch: Scratch
        self._known: set[Hashable] = set()  # declared on this connection, see `_missing`
        self._heads: dict[tuple[str, str, bool], bytes] = {}
        self._alarm: Timer | None = None  # at the earliest deadline, or before it
        self._reply_queues: dict[str, Queue] = {}
        self._refresher: Timer | None = None
        self._without_priority: set[str] = set()
        self._without_logs = False  # the broker keeps none: such letters go to who listens now
        self._link = Link(
            loop,
            options,
            "outlet",
            on_up=self._up,
            on_down=self._down,
            on_blocked=self._block,
        )
        self._broadcasts = Broadcasts(self._link)

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
        now = clock.monotonic()
        deadline = now + (self._options.publish_timeout if timeout is None else timeout)
        letter = _Letter(next(self._numbers), message, route, done, due, mandatory, deadline)
        self._outstanding += 1
        if self._closed:
            self._fail(letter, "the outlet is closed")
            return
        if self._alarm is None or deadline < self._alarm.when:
            self._set_alarm(deadline - now)
        if self._flowing and not self._careful:
            self._send(letter)
        else:
            self._held.append(letter)
            self._flow()

    def broadcast(self, message: Message, exchange: str, routing_key: str) -> bool:
        return self._broadcasts.send(message, exchange, routing_key)

    def close(self, timeout: float = 5.0) -> None:
        if self._closed:
            return
        self._closed = True
        self._link.wait(lambda: not self._outstanding and self._broadcasts.idle, timeout)
        for letter in self._letters():
            self._fail(letter, f"the outlet was closed after {timeout:g} s")
        for timer in (self._alarm, self._refresher):
            if timer is not None:
                timer.cancel()
        self._link.close(1.0)

    # -- sending -----------------------------------------------------------------------------

    def _block(self, blocked: bool) -> None:
        self._on_blocked(blocked)
        self._flow()

    @property
    def _flowing(self) -> bool:
        return self._channel is not None and not self._link.blocked

    def _flow(self) -> None:
        """Send what is held, as far as it may go."""
        while self._held and self._flowing and not (self._careful and self._unconfirmed):
            self._send(self._held.popleft())
        if not (self._held or self._planned or self._resting or self._unconfirmed):
            self._careful = False

    def _send(self, letter: _Letter) -> None:
        if letter.done is None:
            return
        route, climb = letter.route, None
        if letter.due is not None:
            try:
                climb = topology.climb(route.exchange, route.routing_key, letter.due - clock.wall())
            except ValueError as error:
                self._fail(letter, str(error), Undeliverable)
                return
        if missing := self._missing(route, climb):
            self._plan(letter, missing)
            return
        try:
            frames = self._frames(letter, climb)
        except ValueError as error:
            self._fail(letter, str(error), Undeliverable)
            return
        self._sequence += 1
        self._unconfirmed[self._sequence] = letter
        letter.copies += 1
        self._connection.send(frames)

    def _frames(self, letter: _Letter, climb: topology.Climb | None) -> bytes:
        assert self._channel is not None
        route, message = letter.route, letter.message
        if priority(message.raw):
            self._check_priority(route)
        if climb is not None:
            if message.properties.malformed:
                raise ValueError(f"it cannot be delayed: {message.properties.malformed}")
            origin = [route.exchange, route.routing_key]
            # `expiration` would end the wait on the first level.
            message = message.copy(
                headers={**message.headers, topology.ROUTE_HEADER: origin}, expiration=None
            )
            head = fastpath.publish_method(
                self._channel, climb.exchange, climb.routing_key, letter.mandatory
            )
        else:
            key = (route.exchange, route.routing_key, letter.mandatory)
            known_head = self._heads.get(key)
            if known_head is None:
                if len(self._heads) >= _MOST_HEADS:
                    self._heads.clear()
                known_head = self._heads[key] = fastpath.publish_method(self._channel, *key)
            head = known_head
        return head + fastpath.content(
            self._channel, message.raw, message.body, self._connection.frame_max
        )

    def _check_priority(self, route: Route) -> None:
        """Say once for each queue that it takes no notice of priorities."""
        if self._link.server_version >= (4,):
            return
        for queue in route.declare:
            if queue.name in self._without_priority:
                continue
            if topology.arguments(queue, 0).get("x-queue-type") == "quorum":
                self._without_priority.add(queue.name)
                version = ".".join(map(str, self._link.server_version))
                event("priority-useless", queue=queue.name, version=version)

    # -- declaring ---------------------------------------------------------------------------

    def _missing(
        self, route: Route, climb: topology.Climb | None
    ) -> list[tuple[Hashable, Sequence[topology.Declaration]]]:
        """What is not known to be there, each by a name for it and the declarations it needs."""
        missing: list[tuple[Hashable, Sequence[topology.Declaration]]] = []
        for queue in route.declare:
            if self._without_logs and queue.kind == "log":
                if queue.exchange not in self._known:
                    missing.append((queue.exchange, (topology.told(queue.exchange),)))
            elif _key(queue) not in self._known:
                missing.append((_key(queue), self._declarations(queue)))
        if route.exchange and route.exchange not in self._known:
            exchange = topology.DeclareExchange(route.exchange, passive=True)
            missing.append((route.exchange, (exchange,)))
        if climb is not None and (climb.exchange, climb.queue) not in self._known:
            ladder = topology.ladder(climb, self._options.dead_letter_max_length)
            missing.append(((climb.exchange, climb.queue), ladder))
        return missing

    def _plan(
        self,
        letter: _Letter,
        missing: list[tuple[Hashable, Sequence[topology.Declaration]]],
    ) -> None:
        keys = tuple(key for key, _ in missing)
        if keys in self._planned:
            self._planned[keys].append(letter)
            return
        self._planned[keys] = [letter]
        for queue in letter.route.declare:
            if queue.kind == "reply":
                self._reply_queues[queue.name] = queue
                if self._refresher is None:
                    self._refresher = self._loop.call_later(_REPLY_REFRESH, self._refresh_replies)
        self._scratch.ensure(
            [declaration for _, needed in missing for declaration in needed],
            partial(self._declared, keys),
        )

    def _declared(self, keys: tuple[Hashable, ...], refusal: str | None) -> None:
        letters = self._planned.pop(keys)
        if refusal is None:
            self._known.update(keys)
            self._held.extend(letters)
            self._flow()
            return
        if self._do_without_logs(letters, refusal):
            self._held.extend(letters)
            self._flow()
            return
        # Other refusals may pass: of a queue that is choosing its leader, for one.
        kind = Undeliverable if refusal.startswith(_NOT_THERE) else PublishRefused
        for letter in letters:
            self._fail(letter, refusal, kind)

    def _do_without_logs(self, letters: Iterable[_Letter], reason: str) -> bool:
        """Give logs up for *reason*, if one of *letters* wanted one and that is new."""
        log = next(filter(None, (letter.route.log for letter in letters)), None)
        if log is None or self._without_logs:
            return False
        self._without_logs = True
        event("log-unusable", log=log, reason=reason)
        return True

    def _forget(self, letter: _Letter) -> None:
        """Declare again, when it is next needed, what *letter* needs."""
        if letter.due is not None:  # something of the ladder, which nobody should have touched
            self._known.clear()
            self._scratch.forget()
        for queue in letter.route.declare:
            self._known.discard(_key(queue))
            self._scratch.forget(self._declarations(queue))

    def _refresh_replies(self) -> None:
        self._refresher = self._loop.call_later(_REPLY_REFRESH, self._refresh_replies)
        if self._link.connection is not None:
            for queue in self._reply_queues.values():
                self._scratch.forget(self._declarations(queue))
                self._scratch.ensure(self._declarations(queue), ignore)

    def _declarations(self, queue: Queue) -> Sequence[topology.Declaration]:
        return topology.declarations(queue, self._options.dead_letter_max_length)

    # -- what the broker says ----------------------------------------------------------------

    def _up(self, connection: FastConnection) -> None:
        self._connection = connection
        self._scratch = Scratch(self._link, connection)
        self._broadcasts.up(connection, self._scratch)
        self._known.clear()
        connection.open_channel(self._channel_opened)

    def _channel_opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._channel_closed)
        # Confirms never reach pika: the reader has them first.
        channel.confirm_delivery(ignore, callback=lambda _ok: self._confirming(channel))

    def _confirming(self, channel: Channel) -> None:
        if self._channel is not None:
            self._replaced = self._current
        self._current, self._channel = channel, channel.channel_number
        self._base = self._sequence
        self._opened = clock.monotonic()
        self._heads.clear()  # they hold the channel's number
        self._connection.reader.returns[channel.channel_number] = self._returned
        self._connection.reader.confirms[channel.channel_number] = partial(
            self._confirmed, self._base
        )
        self._link.prove()
        self._flow()

    def _confirmed(self, base: int, tag: int, multiple: bool, taken: bool) -> None:
        last = base + tag
        answered: Iterable[int] = (last,)
        if multiple:
            older = itertools.takewhile(lambda sequence: sequence <= last, self._unconfirmed)
            answered = [sequence for sequence in older if sequence > base]
        for sequence in answered:
            letter = self._unconfirmed.pop(sequence, None)
            if letter is None or letter.done is None:
                continue
            letter.copies -= 1
            if not taken:
                self._reject(letter)
            elif letter.returned is None:
                self._settle(letter, None)
            elif (letter.route.declare or letter.due is not None) and not letter.mended:
                # What its route needs was there, and is gone.
                letter.mended, letter.returned = True, None
                self._rest(letter, _MOURNING, self._mend)
            else:
                why_not = f"unroutable ({letter.returned}): no queue is bound for it"
                self._fail(letter, why_not, Undeliverable)
        if self._replaced is not None and next(iter(self._unconfirmed), math.inf) > self._base:
            self._replaced.close()
            self._replaced = None
        if self._held or self._careful:
            self._flow()

    def _reject(self, letter: _Letter) -> None:
        is_old = clock.monotonic() - self._opened > _STALE
        if is_old and self._replaced is None and self._connection.is_open:
            self._opened = math.inf
            self._connection.open_channel(self._channel_opened)
        letter.rejections += 1
        if not _REJECTED.allows(letter.rejections):
            self._fail(letter, "the broker rejected it (is the queue full?)")
            return
        letter.returned = None  # by one queue of several
        self._rest(letter, _REJECTED.delay_before(letter.rejections), self._rested)

    def _rest(self, letter: _Letter, delay: float, then: Callable[[_Letter], None]) -> None:
        self._resting.add(letter)
        self._loop.call_later(delay, partial(then, letter))

    def _mend(self, letter: _Letter) -> None:
        if letter in self._resting:
            self._forget(letter)
            self._rested(letter)

    def _rested(self, letter: _Letter) -> None:
        if letter in self._resting:  # not if the connection was lost meanwhile
            self._resting.remove(letter)
            self._held.append(letter)
            self._flow()

    def _returned(self, text: str, exchange: bytes, routing_key: bytes, message: Message) -> None:
        """Find the letter that was sent back.

        The broker returns in the order of publishing, and before it acks.  Letters that are equal
        in what is compared here are interchangeable.
        """
        target = (exchange.decode("utf-8", "replace"), routing_key.decode("utf-8", "replace"))
        first = max(self._last_returned + 1, next(iter(self._unconfirmed), 0))
        for sequence in itertools.chain(range(first, self._sequence + 1), self._unconfirmed):
            letter = self._unconfirmed.get(sequence)
            if letter is not None and _is_return_of(letter, target, message):
                letter.returned = text
                self._last_returned = sequence
                return

    def _channel_closed(self, channel: Channel, error: Exception) -> None:
        self._connection.reader.returns.pop(channel.channel_number, None)
        self._connection.reader.confirms.pop(channel.channel_number, None)
        if channel is self._replaced:
            self._replaced = None
        if self._channel == channel.channel_number:
            self._channel = None
        if isinstance(error, ChannelClosedByBroker):
            self._known.clear()  # an exchange may be gone
            self._scratch.forget()
            self._stumble(why(error), queued=False)
            self._connection.open_channel(self._channel_opened)

    def _down(self, reason: str, error: BaseException) -> None:
        self._channel = self._replaced = None
        self._broadcasts.down()
        if isinstance(error, ConnectionClosedByBroker) and error.reply_code != CONNECTION_FORCED:
            self._stumble(reason, queued=True)
            if error.reply_code == _INTERNAL_ERROR:
                self._do_without_logs(itertools.chain(*self._planned.values()), reason)
        self._held = deque(self._letters())
        self._planned.clear()
        self._resting.clear()
        self._unconfirmed.clear()

    def _stumble(self, reason: str, *, queued: bool) -> None:
        """The broker closed the channel, or the connection, because of something in flight.

        It does not say because of what.  So all is sent again one by one, and whatever is alone in
        flight when it happens again is the culprit; no innocent letter is refused for it.  On the
        channel there is nothing but letters, so one that was alone is the culprit at once.
        *queued* says whether the culprit may be in its queue all the same.
        """
        suspects = [letter for letter in self._unconfirmed.values() if letter.done is not None]
        self._unconfirmed.clear()
        if len(suspects) == 1 and (suspects[0].suspected or not queued):
            suspects[0].copies *= queued
            told = f"the broker closed the connection on it: {reason}"
            self._fail(suspects[0], told, Undeliverable)
        elif suspects:
            self._careful = True
            self._held = deque(sorted([*suspects, *self._held], key=_number))
            for letter in suspects:
                letter.suspected = True

    # -- settling ----------------------------------------------------------------------------

    def _letters(self) -> list[_Letter]:
        """All that is outstanding, in the order of publishing."""
        planned = self._planned.values()
        places = (self._unconfirmed.values(), *planned, self._resting, self._held)
        letters = [letter for place in places for letter in place if letter.done is not None]
        return sorted(letters, key=_number)

    def _set_alarm(self, delay: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_later(delay, self._sweep)

    def _sweep(self) -> None:
        """Give up what is over its deadline: one timer for all letters, at the first deadline."""
        now = clock.monotonic()
        self._alarm = None
        waiting = self._letters()
        late = [letter for letter in waiting if letter.deadline <= now]
        if len(late) < len(waiting):
            self._set_alarm(min(x.deadline for x in waiting if x.deadline > now) - now)
        stopped = self._link.blocked or self._link.connection is None
        for letter in late:
            self._fail(letter, self._link.reason if stopped else "no confirm in time")
        self._held = deque(letter for letter in self._held if letter.done is not None)
        if late and not stopped and not self._options.heartbeat:
            timeout = self._options.publish_timeout
            if self._connection.heard < now - timeout:  # no heartbeats would tell
                self._connection.abandon(f"no word from it for {timeout:g} s")

    def _fail(
        self, letter: _Letter, reason: str, refused: type[PublishRefused] = PublishRefused
    ) -> None:
        """Report *letter* as *refused*, or as unconfirmed where a copy of it may be queued."""
        if letter.done is None:
            return
        name = letter.message.properties.correlation_id or letter.message.properties.message_id
        what = f"{f'message {name}' if name else 'a message'} to {letter.route}"
        where = f"on {self._link.url}: {reason}"
        self._settle(
            letter,
            PublishUnconfirmed(f"{what} may or may not be queued {where}")
            if letter.copies
            else refused(f"{what} was not queued {where}"),
        )

    def _settle(self, letter: _Letter, error: PublishError | None) -> None:
        done, letter.done = letter.done, None
        if done is not None:
            self._outstanding -= 1
            done(error)


def _key(queue: Queue) -> Hashable:
    return queue.name, queue.exchange, queue.routing_key


def _number(letter: _Letter) -> int:
    return letter.number


def _is_return_of(letter: _Letter, target: tuple[str, str], returned: Message) -> bool:
    route, sent = letter.route, letter.message
    if not letter.mandatory or letter.returned is not None or sent.body != returned.body:
        return False
    if letter.due is None and target != (route.exchange, route.routing_key):
        return False
    return sent.raw == returned.raw or (
        sent.properties.correlation_id == returned.properties.correlation_id
        and sent.properties.message_id == returned.properties.message_id
    )
