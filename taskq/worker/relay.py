"""The broker that a child sees: publishing goes to the parent over the socketpair.

It keeps the contract of an `Outlet`, so that `delay()` inside a task, rpc results and retries need
no special case.  A message counts as taken once the parent has it; that the broker has it too is
asked for at the end of the job (`flush`), or at once with *confirm*.
"""

from dataclasses import asdict

from taskq.broker.base import Done, Queue, Route
from taskq.errors import PublishError, PublishRefused, PublishUnconfirmed, Undeliverable
from taskq.wire.message import Message
from taskq.worker import frames
from taskq.worker.frames import Line

#: How publishing may end, by name.
_ERRORS = {each.__name__: each for each in (PublishRefused, PublishUnconfirmed, Undeliverable)}


class Relay:
    """An outlet whose other end is the parent; any thread of the child may publish."""

    def __init__(self, line: Line) -> None:
        self._line = line
        #: The job that runs; 0 between jobs.  Written by the child's main thread.
        self.job = 0
        #: Whether the job has published something that `flush` has not asked about yet.
        self.unconfirmed = False
        #: The route that was packed last, and what came of it: a task's subtasks often share one.
        self._packed: tuple[Route | None, bytes] = (None, b"")
        #: What the main thread publishes now may go with the next frame, which follows at once.
        self.gathers = False

    def publish(
        self,
        message: Message,
        route: Route,
        done: Done,
        *,
        due: float | None = None,
        mandatory: bool = True,
        timeout: float | None = None,
        confirm: bool = False,
    ) -> None:
        ticket = self._line.ticket() if confirm else None
        known, packed = self._packed
        if route is not known:
            packed = pack_route(route)
            self._packed = (route, packed)
        self.unconfirmed = True
        frame = [
            *(frames.PUBLISH, self.job, packed, message.raw, message.body, due, mandatory, ticket)
        ]
        if self.gathers and ticket is None:
            self._line.gather(frame)
        else:
            self._line.send(frame)
        if ticket is None:
            done(None)
        else:
            refusal = self._line.answer(ticket)
            done(None if refusal is None else unpack_error(refusal))

    def broadcast(self, message: Message, exchange: str, routing_key: str) -> bool:
        self._line.send([frames.CAST, message.raw, message.body, exchange, routing_key])
        return True

    def flush(self) -> str | None:
        """Wait until the broker has all that the running job published; why not, if it has not."""
        if not self.unconfirmed:
            return None
        self.unconfirmed = False
        ticket = self._line.ticket()
        self._line.send([frames.FLUSH, self.job, ticket])
        return self._line.answer(ticket)

    def close(self, timeout: float = 5.0) -> None:
        """Nothing is held here."""


def pack_route(route: Route) -> bytes:
    """*route* as bytes, equal for equal routes, so that the parent can keep them unpacked."""
    queues = [asdict(queue) for queue in route.declare]
    return frames.pack([route.exchange, route.routing_key, queues])


def unpack_route(packed: bytes) -> Route:
    """The route that `pack_route` packed."""
    decoder = frames.unpacker()
    decoder.feed(packed)
    exchange, routing_key, queues = next(decoder)
    return Route(exchange, routing_key, tuple(Queue(**queue) for queue in queues))


def pack_error(error: PublishError) -> str:
    """*error* as text, for the child that waits for its message to be confirmed."""
    return f"{type(error).__name__} {error}"


def unpack_error(packed: str) -> PublishError:
    """The error that `pack_error` packed."""
    name, _, words = packed.partition(" ")
    return _ERRORS[name](words)
