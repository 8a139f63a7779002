"""The pool of forked children: starts the nursery, has it fork, talks to each child.

The parent makes each child's socketpair and slate and passes one end of them through the nursery,
so that a nursery that dies takes no conversation with it.  Which job a dead child had begun is read
from its slate here; what follows from that is the dispatcher's business.
"""

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from taskq import clock, log
from taskq.loop import Loop, Timer
from taskq.worker import frames, slate, stacks
from taskq.worker.death import OomKills, describe_death, describe_exit
from taskq.worker.forker import ANNOUNCE, BORN, BROKEN, DIED, FORK, MANIFEST, Forker
from taskq.worker.frames import Frame, ParentLine
from taskq.worker.options import WorkerOptions
from taskq.worker.pool import Death, Reports

_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(slots=True, eq=False)
class _Child:
    number: int
    line: ParentLine
    slate: slate.Slate
    #: Its memory file: the slate, and what `stacks` has it write behind that.
    memory: int
    forker: Forker
    pid: int | None = None
    #: Why it is being killed, if it is.
    why: str = ""
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
        self._oom_kills = OomKills()
        #: The nursery that forks now, and the one that shall take its place.
        self._forker: Forker | None = None
        self._successor: Forker | None = None

    def start(self) -> None:
        self._forker = self._start_forker()

    def reload(self) -> None:
        if self._successor is None:
            self._successor = self._start_forker()

    def _start_forker(self) -> Forker:
        return Forker(
            self._loop, self._options, on_word=self._on_word, on_death=self._on_nursery_death
        )

    def announce(self) -> None:
        assert self._forker is not None
        self._forker.ask([ANNOUNCE])

    def spawn(self, start_timeout: float) -> int:
        assert self._forker is not None
        self._last += 1
        number = self._last
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        descriptor = slate.create()
        line = ParentLine(
            self._loop,
            ours,
            on_frame=partial(self._on_first_frame, number),
            on_end=partial(self._on_silence, number),
        )
        child = _Child(number, line, slate.Slate(descriptor), descriptor, self._forker)
        child.deadline = self._loop.call_later(
            start_timeout, partial(self._on_late_start, number, start_timeout)
        )
        self._children[number] = child
        self._forker.ask([FORK, number], [theirs.fileno(), descriptor])
        theirs.close()
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

    def finished(self, child: int) -> int:
        known = self._children.get(child)
        if known is None:
            return 0
        turn = known.slate.finished
        return turn if known.line.drain() else 0

    def bar(self, child: int, turn: int) -> None:
        known = self._children.get(child)
        if known is not None:
            known.slate.bar = turn

    def warn(self, child: int, job: int) -> None:
        known = self._children.get(child)
        if known is not None and known.pid is not None:
            known.slate.warn(job)
            _signal(known.pid, signal.SIGUSR1, group=False)

    def signal(self, child: int, number: int) -> None:
        pid = self.pid(child)
        if pid is not None:
            _signal(pid, number)

    def terminate(self, child: int) -> None:
        self.signal(child, signal.SIGTERM)

    def kill(self, child: int, why: str = "") -> None:
        known = self._children.get(child)
        if known is not None and known.pid is not None:
            known.why = known.why or why
            _signal(known.pid, signal.SIGKILL)

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

    def stacks(self, child: int, heard: Callable[[str], None]) -> None:
        known = self._children.get(child)
        if known is None or known.pid is None or known.deadline is not None:
            heard("it is not ready yet")  # the signal would end it
        else:
            stacks.ask(self._loop, known.pid, known.memory, heard)

    def reap_strangers(self) -> None:
        ours = {forker.pid for forker in self._forkers()}
        while True:
            # Looked at before it is taken: a nursery's end is for its Forker to hear of.
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in ours:
                return
            os.waitpid(ended.si_pid, 0)

    def _forkers(self) -> set[Forker]:
        """The nurseries that are there: the serving one, one to come, and retiring ones."""
        retiring = (child.forker for child in self._children.values())
        return {each for each in (self._forker, self._successor, *retiring) if each is not None}

    def close(self, timeout: float) -> None:
        self._closing = True
        for child in self._children.values():
            child.line.send([frames.STOP])
        deadline = clock.monotonic() + timeout
        while self._children and clock.monotonic() < deadline:
            self._loop.turn(0.1)
        self.kill_all()
        for forker in self._forkers():
            forker.close()

    # -- the nursery -------------------------------------------------------------------------

    def _on_word(self, forker: Forker, word: int, rest: list[Any]) -> None:
        if word == BORN:
            self._on_birth(*rest)
        elif word == DIED:
            self._on_exit(*rest)
        elif word == MANIFEST:
            self._on_manifest(forker, rest[0])
        elif word == BROKEN and forker is self._successor:
            self._successor = None
            forker.let_go()
            log.event("reload-failed", why=rest[0])
        elif word == BROKEN:
            self._reports.on_broken(rest[0])

    def _on_manifest(self, forker: Forker, manifest: dict[str, object]) -> None:
        old: list[int] = []
        if forker is self._successor:
            self._successor = None
            retiring, self._forker = self._forker, forker
            old = list(self._children)
            if retiring is not None and not old:
                retiring.let_go()
        self._reports.on_manifest(manifest, old)

    def _on_nursery_death(self, forker: Forker, status: int) -> None:
        if self._closing:
            return
        if forker is self._successor:
            self._successor = None
            log.event("reload-failed", why=f"its process died: {describe_exit(status)}")
            return
        log.event("nursery-died", how=describe_exit(status))
        orphans = [child for child in self._children.values() if child.forker is forker]
        # First the new one: the children that the dead ones are replaced by are asked of it.
        if forker is self._forker:
            self.start()
        for child in orphans:
            if child.pid is not None:
                # The kernel does so too, where it can (nursery.die_with_parent).
                _signal(child.pid, signal.SIGKILL)
            self._bury(child, "killed with the process that forked it")

    # -- the children ------------------------------------------------------------------------

    def _on_birth(self, number: int, pid: int) -> None:
        child = self._children.get(number)
        if child is None:
            _signal(pid, signal.SIGKILL)
            return
        child.pid = pid
        self._pids[pid] = number
        log.event("child-started", pid=pid)

    def _on_first_frame(self, number: int, frame: Frame) -> None:
        """The child is READY: from now on all that it says goes straight to the reports."""
        child = self._children[number]
        if child.deadline is not None:
            child.deadline.cancel()
            child.deadline = None
        child.line.on_frame = partial(self._reports.on_frame, number)
        child.line.on_frame(frame)

    def _on_silence(self, number: int) -> None:
        """A child closed its line; that it is dead is for the nursery to report."""

    def _on_late_start(self, number: int, start_timeout: float) -> None:
        child = self._children.get(number)
        if child is not None and child.pid is not None:
            log.event("child-late", pid=child.pid, seconds=start_timeout)
            _signal(child.pid, signal.SIGKILL)

    def _on_exit(self, pid: int, status: int, peak: int) -> None:
        number = self._pids.pop(pid, None)
        child = self._children.get(number) if number is not None else None
        if child is None:
            return
        _job, state, since = child.slate.read()
        how = describe_death(
            status,
            why=child.why,
            ran=clock.monotonic() - since if state == slate.IN_USER_CODE else None,
            peak=peak,
            oom_kills=self._oom_kills.since_last(),
        )
        self._bury(child, how)

    def _bury(self, child: _Child, how: str) -> None:
        # What it had said before it died still counts, and what it had kept for a moment.
        child.line.drain()
        child.line.close()
        begun, state, _since = child.slate.read()
        death = Death(child.slate.finished, begun, state == slate.IN_USER_CODE, how)
        child.slate.close()
        os.close(child.memory)
        if child.deadline is not None:
            child.deadline.cancel()
        if child.pid is not None:
            self._pids.pop(child.pid, None)
        del self._children[child.number]
        if child.forker not in (self._forker, *(other.forker for other in self._children.values())):
            child.forker.let_go()  # a reload has replaced it, and this was its last child
        self._reports.on_death(child.number, death)


def _signal(pid: int, number: int, *, group: bool = True) -> None:
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
