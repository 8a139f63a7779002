"""Publishing from any thread of a process: hand a message over, wait until the broker has it.

A broker that needs a turning loop gets one `line`, which every thread of the process shares.  Other
brokers are called where the caller stands.  A forked child forgets what its parent had open,
without touching it, and opens its own.
"""

import atexit
import os
import threading
import weakref
from collections.abc import Sequence

from taskq import clock
from taskq.broker.base import Broker, Outlet, Route
from taskq.client.line import GRACE, SILENCE, Line, Parcel, exchange
from taskq.errors import PublishError, PublishRefused, PublishUnconfirmed, Undeliverable
from taskq.settings import PublishRetry
from taskq.wire.message import Message


class Producer:
    """One process's way to publish to *broker*; every method may be called from any thread."""

    def __init__(self, broker: Broker, *, timeout: float, retry: PublishRetry) -> None:
        self._broker = broker
        self._timeout = timeout
        self._retry = retry
        self._lock = threading.Lock()
        self._outlet: Outlet | None = None
        _producers.add(self)

    @property
    def outlet(self) -> Outlet:
        """What this producer publishes through, opened if it is not; any thread may use it."""
        outlet = self._outlet
        if outlet is None or (isinstance(outlet, Line) and not outlet.alive):
            outlet = self._open()
        return outlet

    def use(self, outlet: Outlet) -> None:
        """Publish through *outlet* from now on, and open nothing."""
        self._outlet = outlet

    def publish(
        self,
        message: Message,
        route: Route,
        *,
        due: float | None = None,
        timeout: float | None = None,
        confirm: bool = True,
    ) -> None:
        """Send *message* to *route*, and return when the broker has it.

        PublishRefused when it certainly is not queued, PublishUnconfirmed when nobody knows after
        *timeout* seconds (None: publish_timeout).  Refusals are tried again, as
        task_publish_retry_policy has it, as long as the timeout allows; but for Undeliverable.
        """
        (error,) = self.publish_many([Parcel(message, route, due, confirm)], timeout)
        if error is not None:
            raise error

    def publish_many(
        self, parcels: Sequence[Parcel], timeout: float | None = None
    ) -> list[PublishError | None]:
        """Send all *parcels*, waiting for the confirms together; one answer for each, in order."""
        timeout = self._timeout if timeout is None else timeout
        deadline = clock.monotonic() + timeout
        answers = self._round(parcels, timeout)
        if not any(answers):
            return answers
        if len(parcels) > 1:
            deadline = clock.monotonic() + timeout
        for pause in self._retry.pauses():
            again = [at for at, answer in enumerate(answers) if _may_pass(answer)]
            if not again or clock.monotonic() + pause >= deadline:
                break
            clock.sleep(pause)
            left = max(0.0, deadline - clock.monotonic())
            for at, answer in zip(
                again, self._round([parcels[at] for at in again], left), strict=True
            ):
                answers[at] = answer
        return [
            None if answer is None else self._named(answer, parcel)
            for answer, parcel in zip(answers, parcels, strict=True)
        ]

    async def apublish(self, parcel: Parcel, timeout: float | None = None) -> None:
        """As `publish`, without holding up the event loop."""
        import asyncio

        deadline = clock.monotonic() + (self._timeout if timeout is None else timeout)
        error = await self._ask(parcel, deadline)
        for pause in self._retry.pauses():
            if not _may_pass(error) or clock.monotonic() + pause >= deadline:
                break
            await asyncio.sleep(pause)
            error = await self._ask(parcel, deadline)
        if error is not None:
            raise self._named(error, parcel)

    def broadcast(self, message: Message, exchange: str, routing_key: str) -> None:
        """Send *message* to whoever listens, waiting for nothing; see `Outlet.broadcast`."""
        self.outlet.broadcast(message, exchange, routing_key)

    def close(self, timeout: float = 5.0) -> None:
        """Give what is unconfirmed up to *timeout* seconds, then release everything.  Idempotent.

        Publishing again opens it again.
        """
        atexit.unregister(self.close)
        with self._lock:
            outlet, self._outlet = self._outlet, None
        if outlet is not None:
            outlet.close(timeout)

    def _open(self) -> Outlet:
        with self._lock:
            if self._outlet is None or (isinstance(self._outlet, Line) and not self._outlet.alive):
                if self._broker.needs_loop:
                    self._outlet = Line(self._broker)
                else:
                    self._outlet = self._broker.outlet(None)
                atexit.unregister(self.close)
                atexit.register(self.close)
            return self._outlet

    def _round(self, parcels: Sequence[Parcel], timeout: float) -> list[PublishError | None]:
        outlet = self.outlet
        if isinstance(outlet, Line):
            return outlet.exchange(parcels, timeout).all
        return exchange(outlet, parcels, timeout).all

    async def _ask(self, parcel: Parcel, deadline: float) -> PublishError | None:
        import asyncio

        outlet = self.outlet
        left = max(0.0, deadline - clock.monotonic())
        if not isinstance(outlet, Line):  # it publishes where it is called
            (error,) = await asyncio.to_thread(self._round, [parcel], left)
            return error
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[PublishError | None] = loop.create_future()

        def done(error: PublishError | None) -> None:
            try:
                loop.call_soon_threadsafe(settle, error)
            except RuntimeError:
                pass  # the caller's event loop is closed: nobody waits any more

        def settle(error: PublishError | None) -> None:
            if not answer.done():
                answer.set_result(error)

        parcel.send(outlet, done, left)
        try:
            return await asyncio.wait_for(answer, left + GRACE)
        except TimeoutError:
            return SILENCE

    def _named(self, error: PublishError, parcel: Parcel) -> PublishError:
        """*error* again, with the task, its id, the destination and the broker in its words."""
        headers = parcel.message.headers
        what = f"{headers.get('task')}[{headers.get('id')}]"
        where = f"{parcel.route} on {self._broker.url}"
        if isinstance(error, PublishUnconfirmed):
            text = (
                f"{what} may or may not be in {where}: {error}; "
                "sending it again with the same task_id is safe"
            )
        else:
            text = f"{what} was not queued in {where}: {error}"
        named = type(error)(text)
        named.__cause__ = error
        return named

    def _forget(self) -> None:
        """In a forked child: what is open belongs to the parent."""
        self._lock = threading.Lock()
        if self._outlet is not None:
            _inherited.append(self._outlet)
            self._outlet = None


def _may_pass(answer: PublishError | None) -> bool:
    """Whether *answer* is a refusal that another attempt may not meet."""
    return isinstance(answer, PublishRefused) and not isinstance(answer, Undeliverable)


#: Every producer of this process, so that a fork reaches them.
_producers: weakref.WeakSet[Producer] = weakref.WeakSet()

#: What the parent of this forked process had open.  Kept, because an object that is thrown away
#: may say goodbye on a connection that the parent still uses.
_inherited: list[Outlet] = []


def _forget_all() -> None:
    for producer in list(_producers):
        producer._forget()


os.register_at_fork(after_in_child=_forget_all)
