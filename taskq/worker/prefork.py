"""The pool of forked children: starts the nursery, has it fork, talks to each child.

The parent makes each child's socketpair and slate and passes one end of them through the nursery,
so that a nursery that dies takes no conversation with it.  Which job a dead child had begun is read
from its slate here; what follows from that is the dispatcher's business.
"""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial

import msgpack

from taskq import clock, log
from taskq.loop import Loop, Timer
from taskq.worker import frames, nursery, slate
from taskq.worker.frames import Frame, ParentLine
from taskq.worker.options import WorkerOptions
from taskq.worker.pool import Reports

_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(slots=True, eq=False)
class _Child:
    number: int
    line: ParentLine
    slate: slate.Slate
    pid: int | None = None
    #: Ends it if it does not become ready in time.
    deadline: Timer | None = None


class Prefork:
    """Children forked by a nursery; see `pool.Pool` for the verbs."""

    def __init__(self, loop: Loop, options: WorkerOptions, reports: Reports) -> None:
        self._loop = loop
        self._options = replace(options, parent=os.getpid())
        self._reports = reports
        self._children: dict[int, _Child] = {}
        self._pids: dict[int, int] = {}
        self._last = 0
        self._closing = False
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # A fresh interpreter instead of a fork: whatever threads the parent has by now (a name
        # look-up while reconnecting) are not in it, and neither is yesterday's code.
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "taskq.worker.nursery",
                str(theirs.fileno()),
                self._options.to_json(),
            ],
            pass_fds=[theirs.fileno(), *log.inherited()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._socket = ours
        self._unpacker = frames.unpacker()
        self._loop.add_handler(ours.fileno(), self._on_nursery, Loop.READ)

    def announce(self) -> None:
        self._request([nursery.ANNOUNCE], [])

    def spawn(self, start_timeout: float) -> int:
        self._last += 1
        number = self._last
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        descriptor = slate.create()
        line = ParentLine(
            self._loop,
            ours,
            on_frame=partial(self._on_frame, number),
            on_end=partial(self._on_silence, number),
        )
        child = _Child(number, line, slate.Slate(descriptor))
        child.deadline = self._loop.call_later(
            start_timeout, partial(self._on_late_start, number, start_timeout)
        )
        self._children[number] = child
        self._request([nursery.FORK, number], [theirs.fileno(), descriptor])
        theirs.close()
        os.close(descriptor)
        return number

    def send(self, child: int, frame: Frame) -> None:
        known = self._children.get(child)
        if known is not None:
            known.line.send(frame)

    def pause(self, child: int, paused: bool) -> None:
        known = self._children.get(child)
        if known is not None:
            known.line.pause(paused)

    def slate(self, child: int) -> tuple[int, int, float]:
        known = self._children.get(child)
        return known.slate.read() if known is not None else (0, slate.IDLE, 0.0)

    def warn(self, child: int) -> None:
        pid = self.pid(child)
        if pid is not None:
            _signal(pid, signal.SIGUSR1, group=False)

    def terminate(self, child: int) -> None:
        pid = self.pid(child)
        if pid is not None:
            _signal(pid, signal.SIGTERM)

    def kill(self, child: int) -> None:
        pid = self.pid(child)
        if pid is not None:
            _signal(pid, signal.SIGKILL)

    def kill_all(self) -> None:
        for child in list(self._children):
            self.kill(child)

    def pid(self, child: int) -> int | None:
        known = self._children.get(child)
        return known.pid if known is not None else None

    def memory(self, child: int) -> int:
        pid = self.pid(child)
        try:
            with open(f"/proc/{pid}/statm") as statm:
                return int(statm.read().split()[1]) * _PAGE_KIB
        except (OSError, IndexError):  # it ended, or there is no /proc
            return 0

    def close(self, timeout: float) -> None:
        self._closing = True
        for child in self._children.values():
            child.line.send([frames.STOP])
        deadline = clock.monotonic() + timeout
        while self._children and clock.monotonic() < deadline:
            self._loop.turn(0.1)
        self.kill_all()
        self._end_nursery()

    # -- the nursery -------------------------------------------------------------------------

    def _on_nursery(self, _fd: int, _events: int) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._on_nursery_death()
            return
        self._unpacker.feed(data)
        for word, *rest in self._unpacker:
            if word == nursery.BORN:
                self._on_birth(*rest)
            elif word == nursery.DIED:
                self._on_exit(*rest)
            elif word == nursery.MANIFEST:
                self._reports.on_manifest(rest[0])
            elif word == nursery.BROKEN:
                self._reports.on_broken(rest[0])

    def _on_nursery_death(self) -> None:
        status = self._end_nursery()
        if self._closing:
            return
        log.event("nursery-died", how=describe_exit(status))
        orphans = list(self._children.values())
        # First the new one: the children that the dead ones are replaced by are asked of it.
        self.start()
        for child in orphans:
            if child.pid is not None:
                # The kernel does so too, where it can (nursery.die_with_parent).
                _signal(child.pid, signal.SIGKILL)
            self._bury(child, "killed with the process that forked it")

    def _request(self, words: list[int], descriptors: list[int]) -> None:
        try:
            if self._socket is not None:
                socket.send_fds(self._socket, [msgpack.packb(words)], descriptors)
        except OSError:
            pass  # the nursery is gone; that is noticed by the end of file on its socket

    def _end_nursery(self) -> int:
        if self._socket is not None:
            self._loop.remove_handler(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._process is None:
            return 0
        try:
            code = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        return -code if code < 0 else code << 8

    # -- the children ------------------------------------------------------------------------

    def _on_birth(self, number: int, pid: int) -> None:
        child = self._children.get(number)
        if child is None:
            _signal(pid, signal.SIGKILL)
            return
        child.pid = pid
        self._pids[pid] = number
        log.event("child-started", pid=pid)

    def _on_frame(self, number: int, frame: Frame) -> None:
        if frame[0] == frames.READY:
            child = self._children[number]
            if child.deadline is not None:
                child.deadline.cancel()
                child.deadline = None
        self._reports.on_frame(number, frame)

    def _on_silence(self, number: int) -> None:
        """A child closed its line; that it is dead is for the nursery to report."""

    def _on_late_start(self, number: int, start_timeout: float) -> None:
        child = self._children.get(number)
        if child is not None and child.pid is not None:
            log.event("child-late", pid=child.pid, seconds=start_timeout)
            _signal(child.pid, signal.SIGKILL)

    def _on_exit(self, pid: int, status: int) -> None:
        number = self._pids.pop(pid, None)
        child = self._children.get(number) if number is not None else None
        if child is not None:
            self._bury(child, describe_exit(status))

    def _bury(self, child: _Child, how: str) -> None:
        # What it had said before it died still counts.
        child.line.drain()
        begun, _state, _since = child.slate.read()
        child.slate.close()
        if child.deadline is not None:
            child.deadline.cancel()
        if child.pid is not None:
            self._pids.pop(child.pid, None)
        del self._children[child.number]
        self._reports.on_death(child.number, begun, how)


def describe_exit(status: int) -> str:
    """The wait *status* of a process in words: `exit code 3`, `signal 9 (SIGKILL)`."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"signal {number} ({signal.Signals(number).name})"
        except ValueError:
            return f"signal {number}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"


def _signal(pid: int, number: signal.Signals, *, group: bool = True) -> None:
    """Send *number* to *pid*, and to what it started with *group*."""
    try:
        if group:
            os.killpg(pid, number)
            return
    except ProcessLookupError:
        pass  # it has not made its own group yet
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
