"""Hearing that another process wrote to a file, without asking for it again and again.

Who rings, and what is to be done then, is the business of the embedded broker.
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from taskq.loop import Loop

#: From <sys/inotify.h>: bytes were written to the watched file.
_IN_MODIFY = 0x2


class Doorbell:
    """Calls *on_ring* on *loop* after one or many writes to the file *path*.

    Linux's inotify does it: one watch of one file, for any number of listeners, nothing to clean
    up after a death.  (Datagram sockets in a folder, one for each listener, would be as fast; but
    each writer had to find them, the dead ones stayed behind, and a socket's path ends after 108
    bytes.)  Where there is no inotify, or no more of it, the bell stays silent and its owner must
    look for itself now and then, as it does anyway.
    """

    def __init__(self, loop: Loop, path: Path, on_ring: Callable[[], None]) -> None:
        self._loop = loop
        self._on_ring = on_ring
        self._fd = _watch(path)
        if self._fd >= 0:
            loop.add_handler(self._fd, self._on_event, Loop.READ)

    @property
    def works(self) -> bool:
        """Whether it rings at all."""
        return self._fd >= 0

    def _on_event(self, fd: int, _events: int) -> None:
        os.read(fd, 4096)  # writes not yet read are one event
        self._on_ring()

    def close(self) -> None:
        """Stop listening.  Idempotent."""
        if self._fd >= 0:
            self._loop.remove_handler(self._fd)
            os.close(self._fd)
            self._fd = -1


def _watch(path: Path) -> int:
    libc = ctypes.CDLL(None)
    try:
        fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except AttributeError:
        return -1
    if fd >= 0 and libc.inotify_add_watch(fd, os.fsencode(path), _IN_MODIFY) < 0:
        os.close(fd)
        return -1
    return fd
