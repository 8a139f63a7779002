"""The parent's hold on one nursery: starts it, asks it for children, hears what it says.

Which nursery serves, and what its words mean for children and jobs, is the pool's business.  The
socket between the two carries msgpack arrays::

    parent to nursery    FORK child-number    (with two descriptors: the child's socket, its slate)
                         ANNOUNCE             (the worker is ready: tell the app's hooks)
    nursery to parent    MANIFEST mapping | BROKEN text
                         BORN child-number pid | DIED pid status peak-KiB
"""

import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgpack

from taskq import clock, log
from taskq.loop import Loop
from taskq.worker import frames
from taskq.worker.options import WorkerOptions

FORK: Final = 1
MANIFEST: Final = 2
BROKEN: Final = 3
BORN: Final = 4
DIED: Final = 5
ANNOUNCE: Final = 6

#: A nursery that was let go may take so long to end before it is killed, in seconds.
_PATIENCE = 5.0


class Forker:
    """One nursery process; *on_word* hears its words, *on_death* its wait status when it dies."""

    def __init__(
        self,
        loop: Loop,
        options: WorkerOptions,
        *,
        on_word: Callable[["Forker", int, list[Any]], None],
        on_death: Callable[["Forker", int], None],
    ) -> None:
        self._loop = loop
        self._on_word = on_word
        self._on_death = on_death
        self._unpacker = frames.unpacker()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # A fresh interpreter instead of a fork: whatever threads the parent has by now (a name
        # look-up while reconnecting) are not in it, and neither is yesterday's code.
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "taskq.worker.nursery",
                str(theirs.fileno()),
                options.to_json(),
            ],
            pass_fds=[theirs.fileno(), *log.inherited()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._open = True
        loop.add_handler(self._socket.fileno(), self._on_readable, Loop.READ)

    @property
    def pid(self) -> int:
        """The nursery's process id."""
        return self._process.pid

    def ask(self, words: list[int], descriptors: list[int] | None = None) -> None:
        """Send it *words* with *descriptors*; nothing happens if it is gone."""
        try:
            if self._open:
                socket.send_fds(self._socket, [msgpack.packb(words)], descriptors or [])
        except OSError:
            pass  # that it is gone is noticed by the end of file on its socket

    def let_go(self) -> None:
        """Have it end, and reap it without holding up the loop."""
        self._hang_up()
        self._reap_by(clock.monotonic() + _PATIENCE)

    def close(self) -> int:
        """Have it end, wait for that, and return its wait status."""
        self._hang_up()
        try:
            code = self._process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return -code if code < 0 else code << 8

    def _on_readable(self, _fd: int, _events: int) -> None:
        try:
            data = self._socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._on_death(self, self.close())
            return
        self._unpacker.feed(data)
        for word, *rest in self._unpacker:
            self._on_word(self, word, rest)

    def _hang_up(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_handler(self._socket.fileno())
            self._socket.close()

    def _reap_by(self, deadline: float) -> None:
        if self._process.poll() is None:
            if clock.monotonic() >= deadline:
                self._process.kill()
            self._loop.call_later(0.1, partial(self._reap_by, deadline))
