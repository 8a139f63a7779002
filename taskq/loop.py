"""One selectors loop that carries sockets, timers, wake-ups and signals.

It speaks the verbs of pika's custom-loop protocol (add_handler ... add_callback, see pika's
`selector_ioloop_adapter`), so a broker connection, the children's sockets and every timer of a
process turn on one thread.  What the callbacks do is their business: an exception from one leaves
`turn` and ends the process, because a loop that swallows errors hides them.
"""

import heapq
import itertools
import selectors
import signal
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from taskq import clock

Callback = Callable[[], Any]
Handler = Callable[[int, int], Any]


class Timer:
    """A callback that waits for its time; *cancel* it before then if it is not wanted."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Forget the callback; the loop drops the empty timer when its time comes."""
        self.callback = None


class Loop:
    """Not thread-safe, but for `add_callback`, which any thread or signal handler may call."""

    READ = 1
    WRITE = 4
    ERROR = 8

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._ready: deque[Callback] = deque()
        self._endings: list[Callback] = []
        self._signals: dict[int, Callback] = {}
        self._wakeup, self._waker = socket.socketpair()
        self._wakeup.setblocking(False)
        self._waker.setblocking(False)
        self._awake = False
        self._running = False
        self._selector.register(self._wakeup, selectors.EVENT_READ)

    # -- descriptors -------------------------------------------------------------------------

    def add_handler(self, fd: int, handler: Handler, events: int) -> None:
        """Call `handler(fd, events)` whenever one of *events* (READ, WRITE, ERROR) is there."""
        self._handlers[fd] = handler
        self._selector.register(fd, self._mask(events))

    def update_handler(self, fd: int, events: int) -> None:
        """Watch *fd* for other events than before."""
        self._selector.modify(fd, self._mask(events))

    def remove_handler(self, fd: int) -> None:
        """Stop watching *fd*; call it before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._selector.unregister(fd)

    def _mask(self, events: int) -> int:
        read = selectors.EVENT_READ if events & self.READ else 0
        write = selectors.EVENT_WRITE if events & (self.WRITE | self.ERROR) else 0
        return read | write

    # -- callbacks ---------------------------------------------------------------------------

    def call_later(self, delay: float, callback: Callback) -> Timer:
        """Call *callback* once, *delay* seconds from now; the timer returned can be cancelled."""
        timer = Timer(clock.monotonic() + delay, callback)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def remove_timeout(self, timer: Timer) -> None:
        """Cancel a timer, in the words of pika's protocol."""
        timer.cancel()

    def add_callback(self, callback: Callback) -> None:
        """Call *callback* on the loop's own thread, soon; safe from any thread."""
        self._ready.append(callback)
        if not self._awake:
            self._awake = True
            try:
                self._waker.send(b"\0")
            except (BlockingIOError, OSError):
                pass  # the buffer is full of wake-ups already, or the loop was closed

    def at_turn_end(self, callback: Callback) -> None:
        """Call *callback* once when this turn's events are handled, before the loop sleeps.

        It lets writers gather what a turn produced into one write.
        """
        self._endings.append(callback)

    def on_signal(self, number: int, callback: Callback) -> None:
        """Call *callback* on the loop after the process received signal *number*.

        Main thread only.  The handler itself just writes to the wake-up socket, because nothing
        else is safe inside a signal handler.
        """
        self._signals[number] = callback
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(number, lambda _number, _frame: None)
        signal.siginterrupt(number, False)

    # -- running -----------------------------------------------------------------------------

    def turn(self, timeout: float | None = None) -> None:
        """Wait for something to do, at most *timeout* seconds (None: without limit); do it."""
        if not self._ready:
            self._end_turn()  # left over from between two turns: no reason for another one
        for key, mask in self._selector.select(self._patience(timeout)):
            if key.fileobj is self._wakeup:
                self._read_wakeups()
                continue
            handler = self._handlers.get(key.fd)
            if handler is not None:  # an earlier handler of this turn may have removed it
                read = self.READ if mask & selectors.EVENT_READ else 0
                handler(key.fd, read | (self.WRITE if mask & selectors.EVENT_WRITE else 0))
        self._run_timers()
        for _ in range(len(self._ready)):
            if not self._ready:  # a callback turned the loop itself
                break
            self._ready.popleft()()
        self._end_turn()

    def start(self) -> None:
        """Turn until `stop`."""
        self._running = True
        while self._running:
            self.turn()

    def stop(self) -> None:
        """Let `start` return after the current turn; from another thread: `add_callback(stop)`."""
        self._running = False

    def close(self) -> None:
        """Release the loop's own descriptors; those of the handlers belong to their owners."""
        if self._signals:
            signal.set_wakeup_fd(-1)
        self._selector.close()
        self._wakeup.close()
        self._waker.close()

    def _end_turn(self) -> None:
        while self._endings:
            endings, self._endings = self._endings, []
            for callback in endings:
                callback()

    def _patience(self, timeout: float | None) -> float | None:
        if self._ready:
            return 0.0
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return timeout
        until_timer = max(0.0, self._timers[0][0] - clock.monotonic())
        return until_timer if timeout is None else min(timeout, until_timer)

    def _run_timers(self) -> None:
        now = clock.monotonic()
        while self._timers and self._timers[0][0] <= now:
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                callback()

    def _read_wakeups(self) -> None:
        try:
            received = self._wakeup.recv(4096)
        except BlockingIOError:
            received = b""
        # Cleared after reading, or the byte of a callback that is added in between would be read
        # too, and no later one would write another.  Such a callback still runs in this turn.
        self._awake = False
        for number in received:
            if number in self._signals:
                self._signals[number]()
