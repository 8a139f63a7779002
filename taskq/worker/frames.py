"""What parent and children say to each other, and how it crosses their socketpair.

A frame is a msgpack array whose first element is one of the words below; msgpack delimits itself,
so the stream needs no other framing.  Each direction keeps its order, which carries a promise: all
that a job published arrives before the frame that says the job is done.

Parent to child::

    RUN     job, queue, exchange, routing_key, redelivered, raw properties, body
    STORE   job, result fields, reply_to          (to the clerk)
    ANSWER  ticket, error text or None
    EVENTS  whether to show                       what tasks return, for events
    STOP                                          finish what is in hand, then go

Child to parent::

    READY    pid
    PUBLISH  job, route, raw properties, body, due, mandatory, ticket or None
    FLUSH    job, ticket                          answered once the job's messages are confirmed
    DONE     [job, runtime, job, runtime, ...]    jobs that succeeded
             [text, text, ...]                    what they returned; none if nobody asked
    ENDED    job, outcome word, runtime, reason, evidence or None, text of the exception or None
    BACK     turn                                 a job that was recalled before it was begun
    CAST     raw properties, body, exchange, key  a broadcast, see `Outlet.broadcast`
    STORED   job, error text or None
"""

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, Protocol

import msgpack

from taskq import clock
from taskq.loop import Loop

RUN: Final = 1
STORE: Final = 2
ANSWER: Final = 3
STOP: Final = 4
READY: Final = 5
PUBLISH: Final = 6
FLUSH: Final = 7
DONE: Final = 8
STORED: Final = 9
ENDED: Final = 10
BACK: Final = 11
CAST: Final = 12
EVENTS: Final = 13

Frame = list[Any]

#: Frames come from our own processes, so the only limit is msgpack's own.
_LARGEST = 2**31 - 1
#: So many bytes a decoder takes at first, for each child: msgpack's own choice is a mebibyte.
_USUAL = 1 << 16
_CHUNK = 256 * 1024
#: More than fits the buffers of a socket.
_CHUNKS = 64

#: Seconds for which a child that has more to do may keep a success to itself, so that several
#: travel together.  If the next job takes long the parent finds it on the slate.
_HOLD = 0.001

#: A body above this size is written from where it lies, because to copy it takes longer.
_LARGE = 1 << 15
#: So many pieces are written at once; every system takes as many (`IOV_MAX`).
_PIECES = 64

_packer = msgpack.Packer(use_bin_type=True, autoreset=False)
_BINARY = struct.Struct(">BI")

pack: Callable[[Any], bytes] = msgpack.Packer(use_bin_type=True, autoreset=True).pack


def pack_but_body(frame: Frame) -> bytes:
    """*frame* without the bytes that end it: what `pack` would write before them."""
    _packer.pack_array_header(len(frame))
    for part in frame[:-1]:
        _packer.pack(part)
    packed: bytes = _packer.bytes() + _BINARY.pack(0xC6, len(frame[-1]))  # bin 32
    _packer.reset()
    return packed


def unpacker() -> Any:
    """A new stream decoder: `feed` it bytes, iterate it for frames."""
    return msgpack.Unpacker(
        raw=False, max_buffer_size=_LARGEST, strict_map_key=False, read_size=_USUAL
    )


class Line(Protocol):
    """A child's way to the parent."""

    def send(self, frame: Frame) -> None:
        """Say *frame*; the parent has it when this returns."""

    def gather(self, frame: Frame) -> None:
        """Say *frame* together with the next one.  Main thread only."""

    def ticket(self) -> int:
        """A new number for a question."""

    def answer(self, ticket: int) -> str | None:
        """Wait for the answer to *ticket*: None for yes, else what went wrong."""


class ParentLine:
    """The parent's end: never blocks; what one turn of the loop says leaves in one write."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        *,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        #: May be changed at any time.
        self.on_frame = on_frame
        self._on_end = on_end
        self._unpacker = unpacker()
        self._outgoing: deque[bytes | memoryview] = deque()
        #: Some of that is too large to be joined with the rest.
        self._has_large = False
        self._flush_planned = False
        self._watching = Loop.READ
        self._open = True
        sock.setblocking(False)
        loop.add_handler(sock.fileno(), self._on_event, Loop.READ)

    def send(self, frame: Frame) -> None:
        """Queue *frame*; it is written at the end of this turn, or as the child reads."""
        if not self._open:
            return
        body = frame[-1]
        if type(body) is bytes and len(body) > _LARGE:
            self._outgoing += (pack_but_body(frame), body)
            self._has_large = True
        else:
            self._outgoing.append(pack(frame))
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.at_turn_end(self._flush)

    def drain(self) -> bool:
        """Read what the child has said up to now; False if it says too much to get to the end."""
        return any(not self._open or not self._read() for _ in range(_CHUNKS))

    def close(self) -> None:
        """Close this end.  Idempotent."""
        if self._open:
            self._open = False
            self._loop.remove_handler(self._sock.fileno())
            self._sock.close()

    def pause(self, paused: bool) -> None:
        """Stop (or go on) reading, so that a child that says too much waits in its own send."""
        self._watch(read=not paused, write=bool(self._watching & Loop.WRITE))

    def _on_event(self, _fd: int, events: int) -> None:
        if events & Loop.WRITE:
            self._flush()
        if events & Loop.READ and self._open:
            self._read()

    def _read(self) -> bool:
        """Take in one chunk; False when there is no more for now, or ever."""
        try:
            chunk = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:
            self.close()
            self._on_end()
            return False
        self._unpacker.feed(chunk)
        for frame in self._unpacker:
            self.on_frame(frame)
        return True

    def _flush(self) -> None:
        self._flush_planned = False
        if not self._open:
            return
        outgoing = self._outgoing
        if len(outgoing) > 1 and not self._has_large:
            joined = b"".join(outgoing)
            outgoing.clear()
            outgoing.append(joined)
        while outgoing:
            try:
                sent = self._sock.sendmsg(islice(outgoing, _PIECES))
            except BlockingIOError:
                break
            except OSError:  # the child is gone; its end is noticed by the reader
                outgoing.clear()
                break
            while sent:
                piece = outgoing.popleft()
                if sent < len(piece):
                    outgoing.appendleft(memoryview(piece)[sent:])
                    break
                sent -= len(piece)
        self._has_large = self._has_large and bool(outgoing)
        self._watch(read=bool(self._watching & Loop.READ), write=bool(outgoing))

    def _watch(self, *, read: bool, write: bool) -> None:
        wanted = (Loop.READ if read else 0) | (Loop.WRITE if write else 0)
        if self._open and wanted != self._watching:
            # A selector cannot watch for nothing: a paused, silent line is taken out.
            if not self._watching:
                self._loop.add_handler(self._sock.fileno(), self._on_event, wanted)
            elif not wanted:
                self._loop.remove_handler(self._sock.fileno())
            else:
                self._loop.update_handler(self._sock.fileno(), wanted)
            self._watching = wanted


class ChildLine:
    """The child's end: blocks; any thread may send or ask, one at a time reads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._unpacker = unpacker()
        self._jobs: deque[Frame] = deque()
        self._answers: dict[int, str | None] = {}
        self._tickets = 0
        self._done: list[int | float] = []
        self._shown: list[str] = []
        self._first_done = 0.0
        self._gathered = b""
        self._main = threading.get_ident()
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()

    def send(self, frame: Frame) -> None:
        if threading.get_ident() != self._main:
            packed = msgpack.packb(frame, use_bin_type=True)
        elif self._done or self._gathered:
            packed = self._pack_kept() + pack(frame)
        else:
            packed = pack(frame)
        with self._write_lock:
            self._sock.sendall(packed)

    def gather(self, frame: Frame) -> None:
        if threading.get_ident() != self._main:
            self.send(frame)
        else:
            self._gathered += pack(frame)

    def done(self, job: int, runtime: float, shown: str | None = None) -> None:
        """Say that *job* succeeded; a moment later if there is more to do. Main thread only.

        *shown* is its result as text, if that is wanted; it is wanted of all jobs or of none.
        """
        now = clock.monotonic()
        if not self._done:
            self._first_done = now
        self._done += (job, runtime)
        if shown is not None:
            self._shown.append(shown)
        if not self._jobs or now - self._first_done > _HOLD:
            self._say_done()

    def _say_done(self) -> None:
        if self._done or self._gathered:
            packed = self._pack_kept()
            with self._write_lock:
                self._sock.sendall(packed)

    def _pack_kept(self) -> bytes:
        """What was gathered, then what is done: a result goes before the word that it is there."""
        kept, self._gathered = self._gathered, b""
        if self._done:
            kept += pack([DONE, self._done, self._shown])
            self._done, self._shown = [], []
        return kept

    def ticket(self) -> int:
        with self._write_lock:
            self._tickets += 1
            return self._tickets

    def answer(self, ticket: int) -> str | None:
        while True:
            with self._read_lock:
                if ticket in self._answers:
                    return self._answers.pop(ticket)
                if not self._read():
                    raise EOFError("the worker is gone")

    @property
    def has_more(self) -> bool:
        """Whether an order is there that `frames` has not given out."""
        return bool(self._jobs)

    def frames(self) -> Iterator[Frame]:
        """The parent's orders, until it says STOP or is gone."""
        while True:
            if not self._jobs:
                self._say_done()  # what came last was no job, and what is done was kept for one
            with self._read_lock:
                frame = self._jobs.popleft() if self._jobs else None
                if frame is None and not self._read():
                    return
            if frame is not None:
                if frame[0] == STOP:
                    self._say_done()
                    return
                yield frame

    def _read(self) -> bool:
        chunk = self._sock.recv(_CHUNK)
        self._unpacker.feed(chunk)
        for frame in self._unpacker:
            if frame[0] == ANSWER:
                self._answers[frame[1]] = frame[2]
            else:
                self._jobs.append(frame)
        return bool(chunk)
