"""Queues in the memory of one process, for tests and for programs that are their own worker.

All brokers of one URL (`memory://name`) share their queues, on whatever thread they are used;
nothing outlives the process, and a fork goes on with a copy of its own.  The rules of routing are
in `exchange`.
"""

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from taskq import clock
from taskq.broker import exchange
from taskq.broker.base import (
    BrokerOptions,
    Delivery,
    Done,
    Queue,
    Replies,
    Route,
    Stock,
    unheard,
)
from taskq.broker.exchange import Binding
from taskq.broker.topology import DEAD, LOG_AGE, LOG_LENGTH, dead, told
from taskq.errors import ConfigurationError, PublishRefused, QueueError, Undeliverable
from taskq.loop import Loop, Timer
from taskq.wire.message import Message

#: So many broadcasts are kept for a listener that is slow.
_NEWS = 10_000


@dataclass(slots=True)
class _Kept:
    """A message in a queue, or in the hands of an intake."""

    message: Message
    exchange: str
    routing_key: str
    expires: float | None
    again: bool = False
    tries: int = 0
    #: When it was put here, or became due.
    since: float = field(default_factory=clock.wall)


#: Rank, number, message: as queues are ordered.
_Entry = tuple[int, int, _Kept]


@dataclass(slots=True)
class _Shelf:
    """What all brokers of one URL share.  Whoever touches it holds *lock*."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    bindings: dict[Binding, None] = field(default_factory=dict)
    #: A heap for each queue.
    ready: dict[str, list[_Entry]] = field(default_factory=dict)
    #: A heap by due time: due, number, queue, and the entry for it.
    waiting: list[tuple[float, int, str, _Entry]] = field(default_factory=list)
    intakes: list["_Intake"] = field(default_factory=list)
    ears: list["_Ear"] = field(default_factory=list)
    #: When, and what.
    logs: dict[str, deque[tuple[float, Message]]] = field(default_factory=dict)

    def declare(self, queue: Queue) -> None:
        """Make sure of *queue* and its bindings."""
        for binding in exchange.bindings(queue):
            self.bindings.setdefault(binding)
            self.ready.setdefault(binding.queue, [])

    def publish(self, message: Message, route: Route, due: float | None, mandatory: bool) -> None:
        """Put *message* into the queues that *route* leads to; raises Undeliverable."""
        if route.log is not None:
            log = self.logs.setdefault(route.log, deque(maxlen=LOG_LENGTH))
            log.append((clock.wall(), message))
            self.tell(message, route.exchange, route.routing_key)
            return
        for wanted in route.declare:
            self.declare(wanted)
        bound = [binding for binding in self.bindings if binding.exchange == route.exchange]
        rank, lifetime = exchange.rank_and_lifetime(message.raw)
        expires = None if lifetime is None else (due or clock.wall()) + lifetime
        for queue in exchange.targets(bound, route, mandatory=mandatory):
            number = next(self.numbers)
            kept = _Kept(message, route.exchange, route.routing_key, expires)
            if due is None:
                self.put(queue, (rank, number, kept))
            else:
                heapq.heappush(self.waiting, (due, number, queue, (rank, number, kept)))
        self.wake()

    def tell(self, message: Message, exchange: str, routing_key: str) -> None:
        """Let every ear hear *message*."""
        for ear in self.ears:
            ear.hear(message, exchange, routing_key)

    def put(self, queue: str, entry: _Entry) -> None:
        """Make *entry* ready in *queue*, at its place."""
        heapq.heappush(self.ready.setdefault(queue, []), entry)

    def wake(self) -> None:
        """Let every intake look for messages."""
        for intake in self.intakes:
            intake.wake()

    def take(self, queue: str) -> _Entry | None:
        """The next entry of *queue* whose time has not passed, no longer in it."""
        entries = self.ready.get(queue, [])  # it may have been deleted
        while entries:
            entry = heapq.heappop(entries)
            if not _is_over(entry):
                return entry
            self._expire(queue, entry)
        return None

    def bury(self, queue: str) -> None:
        """Put what has expired in the queue whose dead letters go to *queue* there."""
        source = queue.removesuffix(DEAD)
        if source == queue or source not in self.ready:
            return
        entries = self.ready[source]
        over = [entry for entry in entries if _is_over(entry)]
        for entry in over:
            entries.remove(entry)
            self._expire(source, entry)
        heapq.heapify(entries)

    def _expire(self, queue: str, entry: _Entry) -> None:
        rank, number, kept = entry
        if not queue.endswith(DEAD):
            queue = dead(queue)
            self.put(queue, (rank, number, _Kept(kept.message, "", queue, expires=None)))

    def promote(self) -> None:
        """Make ready what is due."""
        now = clock.wall()
        while self.waiting and self.waiting[0][0] <= now:
            entry_due, _, queue, entry = heapq.heappop(self.waiting)
            entry[2].since = entry_due
            self.put(queue, entry)


def _is_over(entry: _Entry) -> bool:
    expires = entry[2].expires
    return expires is not None and expires <= clock.wall()


_shelves: dict[str, _Shelf] = {}


class MemoryBroker:
    """The queues of one `memory://` URL; a message is queued when `publish` returns."""

    needs_loop = False
    takes_back = False

    def __init__(self, options: BrokerOptions) -> None:
        if len(options.urls) != 1:
            raise ConfigurationError(f"broker_url names {len(options.urls)} memories, not one")
        self._url = options.urls[0]
        self._shelf = _shelves.setdefault(self._url, _Shelf())

    @property
    def url(self) -> str:
        return self._url

    def outlet(
        self, loop: Loop | None, *, on_blocked: Callable[[bool], None] = unheard
    ) -> "_Outlet":
        return _Outlet(self._shelf)

    def intake(
        self,
        loop: Loop,
        *,
        on_delivery: Callable[[Delivery], None],
        on_ready: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> "_Intake":
        return _Intake(self._shelf, loop, on_delivery, on_ready)

    def replies(self, loop: Loop, queue: Queue, on_reply: Callable[[Message], None]) -> Replies:
        raise ConfigurationError(
            f"{self.url} has no reply queues: set result_backend to a store, such as memory://"
        )

    def listen(
        self,
        loop: Loop,
        exchange: str,
        pattern: str,
        *,
        on_message: Callable[[Message], None],
        on_ready: Callable[[], None],
        queue: str | None = None,
    ) -> "_Ear":
        loop.add_callback(on_ready)
        return _Ear(self._shelf, loop, exchange, pattern, on_message)

    def history(
        self,
        loop: Loop,
        name: str,
        exchange: str,
        *,
        on_message: Callable[[Message], None],
        on_ready: Callable[[], None],
    ) -> "_History":
        with self._shelf.lock:
            kept = list(self._shelf.logs.get(name, ()))
        begin = clock.wall() - LOG_AGE
        messages = [message for at, message in kept if at >= begin]
        return _History(loop, messages, on_message, on_ready)

    def lease(self, *_: object, **__: object) -> None:
        """One host's processes find another place for it."""

    def count(self, queue: str) -> int:
        stock = self.keeper().look([queue]).get(queue)
        return stock.ready if stock else 0

    def keeper(self, management: str | None = None) -> "_Keeper":
        return _Keeper(self._shelf, self.url)

    def close(self) -> None:
        """Nothing is held here; the queues stay for others of the same URL."""


class _Keeper:
    """Sees the shelf as it is at the moment."""

    def __init__(self, shelf: _Shelf, url: str) -> None:
        self._shelf = shelf
        self._url = url

    def look(self, queues: Sequence[str]) -> dict[str, Stock]:
        with self._shelf.lock:
            self._shelf.promote()
            for queue in queues:
                self._shelf.bury(queue)
            return {queue: self._stock(queue) for queue in queues if queue in self._shelf.ready}

    def _stock(self, queue: str) -> Stock:
        shelf = self._shelf
        ready = [entry for entry in shelf.ready[queue] if not _is_over(entry)]
        return Stock(
            queue,
            len(ready),
            sum(intake.held(queue) for intake in shelf.intakes),
            sum(intake.takes(queue) for intake in shelf.intakes),
            "memory",
            min((kept.since for _, _, kept in ready), default=None),
            sum(place == queue for _, _, place, _ in shelf.waiting),
        )

    def delayed(self) -> int:
        with self._shelf.lock:
            self._shelf.promote()
            return len(self._shelf.waiting)

    def purge(self, queue: str) -> int:
        with self._shelf.lock:
            ready = self._known(queue).ready
            self._shelf.ready[queue] = []
            return ready

    def delete(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> None:
        with self._shelf.lock:
            stock = self._known(queue)
            if if_unused and stock.consumers:
                raise QueueError(f"queue {queue!r} is in use: it has {stock.consumers} consumers")
            if if_empty and stock.ready:
                raise QueueError(f"queue {queue!r} is not empty: it has {stock.ready} messages")
            del self._shelf.ready[queue]
            for binding in [each for each in self._shelf.bindings if each.queue == queue]:
                del self._shelf.bindings[binding]

    def close(self) -> None:
        """Nothing is held here."""

    def _known(self, queue: str) -> Stock:
        found = self.look([queue])
        if queue not in found:
            raise QueueError(f"there is no queue {queue!r} in {self._url}")
        return found[queue]


class _Outlet:
    """Publishes from any thread."""

    def __init__(self, shelf: _Shelf) -> None:
        self._shelf = shelf

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
        refused = None
        try:
            with self._shelf.lock:
                self._shelf.publish(message, route, due, mandatory)
        except PublishRefused as error:
            refused = error
        except ConfigurationError as error:
            refused = Undeliverable(f"not queued: {error}")
        done(refused)

    def broadcast(self, message: Message, exchange: str, routing_key: str) -> bool:
        with self._shelf.lock:
            self._shelf.tell(message, exchange, routing_key)
        return True

    def close(self, timeout: float = 5.0) -> None:
        """Nothing is unconfirmed here, ever."""


class _Ear:
    """Hears what is broadcast; only `hear` is called from other threads, under the shelf's lock."""

    def __init__(
        self,
        shelf: _Shelf,
        loop: Loop,
        exchange: str,
        pattern: str,
        on_message: Callable[[Message], None],
    ) -> None:
        self._shelf = shelf
        self._loop = loop
        self._exchange = exchange
        self._kind = told(exchange).type
        self._pattern = pattern
        self._on_message = on_message
        #: What a slow listener has not heard yet; of too much the oldest is gone.
        self._news: deque[Message] = deque(maxlen=_NEWS)
        self._awake = False
        with shelf.lock:
            shelf.ears.append(self)

    def close(self) -> None:
        with self._shelf.lock:
            if self in self._shelf.ears:
                self._shelf.ears.remove(self)
            self._news.clear()

    def hear(self, message: Message, to: str, routing_key: str) -> None:
        if to == self._exchange and exchange.fits(self._kind, self._pattern, routing_key):
            self._news.append(message)
            if not self._awake:
                self._awake = True
                self._loop.add_callback(self._tell)

    def _tell(self) -> None:
        self._awake = False  # first, as in `_Intake._look`
        while self._news:
            self._on_message(self._news.popleft())


class _History:
    """Plays what a log kept, all at once."""

    def __init__(
        self,
        loop: Loop,
        messages: Sequence[Message],
        on_message: Callable[[Message], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._messages = messages
        self._on_message = on_message
        self._on_ready = on_ready
        self._is_open = True
        loop.add_callback(self._play)

    def close(self) -> None:
        self._is_open = False

    def _play(self) -> None:
        for message in self._messages:
            if self._is_open:
                self._on_message(message)
        if self._is_open:
            self._on_ready()


class _Intake:
    """A worker's hold on some queues.  Only `wake` is called from other threads."""

    def __init__(
        self,
        shelf: _Shelf,
        loop: Loop,
        on_delivery: Callable[[Delivery], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._shelf = shelf
        self._loop = loop
        self._on_delivery = on_delivery
        self._on_ready = on_ready
        self._window = 0
        #: How many more messages each queue that is consumed from may bring.
        self._room: dict[str, int] = {}
        self._tags = itertools.count(1)
        self._held: dict[int, tuple[str, _Entry]] = {}
        self._awake = False
        self._timer: Timer | None = None

    def consume(self, queues: Sequence[Queue], window: int) -> None:
        self._window = window
        for queue in queues:
            self.add(queue)
        self._loop.add_callback(self._on_ready)
        with self._shelf.lock:
            if self not in self._shelf.intakes:
                self._shelf.intakes.append(self)
        self.wake()

    def resize(self, window: int) -> None:
        for queue in self._room:
            self._room[queue] += window - self._window
        self._window = window
        self.wake()

    def add(self, queue: Queue) -> None:
        with self._shelf.lock:
            self._shelf.declare(queue)
        self._room[queue.name] = self._window - self.held(queue.name)
        self.wake()

    def cancel(self, queue: str) -> None:
        self._room.pop(queue, None)

    def pause(self) -> None:
        self._room.clear()

    def ack(self, delivery: Delivery, *, at_once: bool = False) -> None:
        self._release(delivery)

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        held = self._release(delivery)
        if held is None:
            return
        queue, (rank, number, kept) = held
        if requeue:
            kept.again, kept.tries = True, kept.tries + 1
        else:
            queue = dead(queue)
            kept = _Kept(kept.message, "", queue, expires=None)
        with self._shelf.lock:
            self._shelf.put(queue, (rank, number, kept))
            self._shelf.wake()

    def close(self, timeout: float = 5.0) -> None:
        self._room.clear()
        with self._shelf.lock:
            if self in self._shelf.intakes:
                self._shelf.intakes.remove(self)
            for queue, entry in self._held.values():
                entry[2].again = True
                self._shelf.put(queue, entry)
            self._held.clear()
            self._shelf.wake()
        if self._timer is not None:
            self._timer.cancel()

    def wake(self) -> None:
        """Look for messages at the loop's next turn; from any thread, under the shelf's lock."""
        if not self._awake:
            self._awake = True
            self._loop.add_callback(self._look)

    def takes(self, queue: str) -> bool:
        """Whether it consumes from *queue*."""
        return queue in self._room

    def held(self, queue: str) -> int:
        """How many messages of *queue* are in its hands."""
        return sum(name == queue for name, _ in self._held.values())

    def _release(self, delivery: Delivery) -> tuple[str, _Entry] | None:
        held = self._held.pop(delivery.tag, None)
        if held is not None and delivery.queue in self._room:
            self._room[delivery.queue] += 1
            self.wake()
        return held

    def _look(self) -> None:
        self._awake = False  # first, for what is published from now on must wake us again
        with self._shelf.lock:
            deliveries = self._take()
            self._set_timer()
        for delivery in deliveries:
            if delivery.tag in self._held:  # an earlier callback may have closed this intake
                self._on_delivery(delivery)

    def _take(self) -> list[Delivery]:
        """One of each queue, again and again, while there is room and something to take."""
        self._shelf.promote()
        deliveries: list[Delivery] = []
        hungry = [queue for queue, room in self._room.items() if room > 0]
        for queue in hungry:
            self._shelf.bury(queue)
        while hungry:
            for queue in hungry[:]:
                entry = self._shelf.take(queue) if self._room[queue] > 0 else None
                if entry is None:
                    hungry.remove(queue)
                else:
                    deliveries.append(self._hold(queue, entry))
        return deliveries

    def _hold(self, queue: str, entry: _Entry) -> Delivery:
        kept = entry[2]
        delivery = Delivery(
            next(self._tags), self, queue, kept.message,
            kept.exchange, kept.routing_key, kept.again, kept.tries,
        )  # fmt: skip
        self._held[delivery.tag] = queue, entry
        self._room[queue] -= 1
        return delivery

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._shelf.waiting and self._room:
            delay = max(0.0, self._shelf.waiting[0][0] - clock.wall())
            self._timer = self._loop.call_later(delay, self.wake)
