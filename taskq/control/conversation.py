"""What one caller says to workers and hears from them, on connections and a loop of its own.

What is said, and when the caller has heard enough, is the business of `inspector`.
"""

from collections.abc import Callable

from taskq import clock
from taskq.broker.base import Broker, Listening, Outlet
from taskq.control.base import REPLIES, REQUESTS, Reply
from taskq.errors import BrokerUnavailable, MessageMalformed
from taskq.loop import Loop
from taskq.wire.control import read_reply
from taskq.wire.message import Message

#: Seconds between two attempts to say something that cannot go out yet.
_RETRY = 0.05


class Conversation:
    """Speaks, if it *speaks*, and hears the replies that bear *ticket*, from when it is entered.

    Connecting takes *patience* seconds at most, else BrokerUnavailable is raised.
    """

    def __init__(self, broker: Broker, ticket: str | None, speaks: bool, patience: float) -> None:
        self._broker = broker
        self._ticket = ticket
        self._speaks = speaks
        self._patience = patience
        self._loop = Loop()
        self._outlet: Outlet | None = None
        self._ear: Listening | None = None
        self._hears = False
        self._heard: list[tuple[str, Reply]] = []

    def __enter__(self) -> "Conversation":
        try:
            if self._speaks:
                self._outlet = self._broker.outlet(self._loop)
            if self._ticket is not None:
                self._ear = self._broker.listen(
                    self._loop,
                    REPLIES,
                    self._ticket,
                    on_message=self._on_message,
                    on_ready=self._on_ready,
                )
                self._must(lambda: self._hears, "replies cannot be heard from")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def say(self, message: Message) -> None:
        """Send *message* to all workers that listen now."""
        outlet = self._outlet
        assert outlet is not None, "this conversation does not speak"
        self._must(lambda: outlet.broadcast(message, REQUESTS, ""), "no command can be sent by")

    def next(self, timeout: float) -> tuple[str, Reply] | None:
        """The next node and its reply; None if *timeout* seconds pass without one."""
        self._turn(timeout, lambda: bool(self._heard))
        return self._heard.pop(0) if self._heard else None

    def _must(self, is_done: Callable[[], bool], trouble: str) -> None:
        if not self._turn(self._patience, is_done):
            raise BrokerUnavailable(f"{trouble} {self._broker.url} within {self._patience:g} s")

    def _turn(self, timeout: float, is_done: Callable[[], bool]) -> bool:
        """Turn the loop until *is_done*; False if it is not after *timeout* seconds."""
        deadline = clock.monotonic() + timeout
        while not is_done():
            left = deadline - clock.monotonic()
            if left <= 0:
                return False
            self._loop.turn(min(left, _RETRY))
        return True

    def _on_ready(self) -> None:
        self._hears = True

    def _on_message(self, message: Message) -> None:
        try:
            reply = read_reply(message)
        except MessageMalformed:
            return  # anybody may send here
        if reply.ticket == self._ticket:
            self._heard.append((reply.node, reply.value))

    def _close(self) -> None:
        if self._outlet is not None:
            self._outlet.close(self._patience)
        if self._ear is not None:
            self._ear.close()
        self._loop.close()
