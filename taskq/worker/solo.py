"""The pool without processes: one child that lives in the worker's own process.

For debuggers, and for systems without fork.  While a task runs the worker does nothing else: it
answers no heartbeat (so it asks for none) and hears no signal until the task has returned.
"""

import traceback
from collections.abc import Callable
from typing import Any

from taskq import hooks, log
from taskq.loop import Loop
from taskq.worker import clerk, frames, slate
from taskq.worker.executor import Executor
from taskq.worker.frames import Frame
from taskq.worker.nursery import explain, prepare
from taskq.worker.options import WorkerOptions
from taskq.worker.pool import Reports
from taskq.worker.relay import Relay


class _OwnLine:
    """A line to oneself: what the child says is heard at once, answers are turned for."""

    def __init__(self, loop: Loop, reports: Reports, child: int) -> None:
        self._loop = loop
        self._reports = reports
        self._child = child
        self._tickets = 0
        self.answers: dict[int, str | None] = {}

    def send(self, frame: Frame) -> None:
        self._reports.on_frame(self._child, frame)

    gather = send

    def ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def answer(self, ticket: int) -> str | None:
        while ticket not in self.answers:
            self._loop.turn()
        return self.answers.pop(ticket)


class Solo:
    """One child (and a clerk) in this process; see `pool.Pool` for the verbs."""

    def __init__(self, loop: Loop, options: WorkerOptions, reports: Reports) -> None:
        self._loop = loop
        self._options = options
        self._reports = reports
        self._lines: dict[int, _OwnLine] = {}
        self._page = slate.Slate(-1)
        self._app: Any = None
        self._shows = False

    def start(self) -> None:
        self._loop.add_callback(self._import)

    def _import(self) -> None:
        try:
            self._app, manifest = prepare(self._options)
        except (Exception, SystemExit) as error:
            self._reports.on_broken(explain(error))
        else:
            self._reports.on_manifest(manifest.pack(), [])

    def reload(self) -> None:
        log.event("reload-failed", why="a solo worker has its app in its own process: restart it")

    def announce(self) -> None:
        hooks.worker_ready.send(node=self._options.name)

    def spawn(self, start_timeout: float) -> int:
        number = len(self._lines) + 1
        line = self._lines[number] = _OwnLine(self._loop, self._reports, number)
        self._loop.add_callback(lambda: line.send([frames.READY, 0]))
        return number

    def send(self, child: int, frame: Frame) -> None:
        line = self._lines[child]
        if frame[0] == frames.ANSWER:
            line.answers[frame[1]] = frame[2]
        else:
            self._loop.add_callback(lambda: self._serve(line, frame))

    def _serve(self, line: _OwnLine, frame: Frame) -> None:
        relay = Relay(line)
        self._app.use_outlet(relay)
        if frame[0] == frames.RUN:
            executor = Executor(self._app, relay, self._page, node=self._options.name)
            executor.shows = self._shows
            (told,) = executor.run(frame)
            line.send([frames.ENDED, *told])
        elif frame[0] == frames.EVENTS:
            self._shows = frame[1]
        elif frame[0] == frames.STORE:
            line.send([frames.STORED, frame[1], clerk.store(self._app, relay, frame)])

    def pause(self, child: int, paused: bool) -> None:
        """Nobody else talks while the child does."""

    def slate(self, child: int) -> tuple[int, int, float]:
        return 0, slate.IDLE, 0.0

    def finished(self, child: int) -> int:
        return 0

    def bar(self, child: int, turn: int) -> None:
        """The one child has one job at a time."""

    def warn(self, child: int, job: int) -> None:
        """Nobody watches while a task runs in this process."""

    def signal(self, child: int, number: int) -> None:
        """As `kill`."""

    def terminate(self, child: int) -> None:
        """As `kill`."""

    def kill(self, child: int, why: str = "") -> None:
        """A task in this process cannot be ended from outside."""

    def kill_all(self) -> None:
        """As `kill`."""

    def pid(self, child: int) -> int | None:
        return None

    def memory(self, child: int) -> int:
        return 0

    def stacks(self, child: int, heard: Callable[[str], None]) -> None:
        # Whoever asks is heard between tasks, or while one waits for a confirm.
        heard("".join(traceback.format_stack()))

    def reap_strangers(self) -> None:
        """A task of this process may wait for its own children: leave them alone."""

    def close(self, timeout: float) -> None:
        hooks.worker_shutdown.send(node=self._options.name)
        self._lines.clear()
