"""The beat process of a worker with -B: started, started again when it ends, ended with the worker.

A socket joins the two and carries nothing: each sees by its end that the other one is gone, however
that came about.
"""

import socket
import subprocess
import sys

from taskq import clock, log
from taskq.loop import Loop, Timer
from taskq.retry import RetryPolicy
from taskq.worker.death import describe_exit
from taskq.worker.options import WorkerOptions

#: Before another is started, when one ends by itself.
_PAUSES = RetryPolicy(limit=None, backoff=1.0, longest=30.0, jitter=False)

#: One that ran for so long (seconds) had no trouble starting.
_SOUND = 60.0

#: How long (seconds) a beat may take to stop.
_PATIENCE = 10.0


class Companion:
    """One beat process at a time, on the worker's *loop*."""

    def __init__(self, loop: Loop, options: WorkerOptions) -> None:
        self._loop = loop
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: socket.socket | None = None
        self._again: Timer | None = None
        self._failures = 0
        self._started = 0.0
        self._wanted = False

    def start(self) -> None:
        """Start it."""
        self._wanted = True
        self._again = None
        self._started = clock.monotonic()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._options.folder,
                stdin=theirs.fileno(),
                pass_fds=log.inherited(),
            )
        self._leash = ours
        self._loop.add_handler(ours.fileno(), lambda *_: self._on_end(), Loop.READ)

    def replace(self) -> None:
        """Have another take its place, with the code as it is now."""
        if self._process is not None:
            self._failures = -1  # at once
            self._process.terminate()

    def end(self) -> None:
        """Let it stop, and start no other."""
        self._wanted = False
        if self._again is not None:
            self._again.cancel()
        if self._process is not None:
            self._process.terminate()

    def close(self) -> None:
        """End it, and wait until it is gone.  Idempotent."""
        self.end()
        if self._process is not None:
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._forget()

    def _command(self) -> list[str]:
        options = self._options
        command = [sys.executable, "-m", "taskq", "beat", "--leash"]
        command += ["--loglevel", options.loglevel, "--log-style", options.log_style]
        if options.app:
            command += ["--app", options.app]
        if options.logfile:
            command += ["--logfile", options.logfile]
        return command

    def _on_end(self) -> None:
        status = self._forget()
        if not self._wanted:
            return
        if clock.monotonic() - self._started > _SOUND:
            self._failures = min(self._failures, 0)
        self._failures += 1
        pause = _PAUSES.delay_before(self._failures) if self._failures else 0.0
        if self._failures:
            log.event("beat-died", how=describe_exit(status), delay=pause)
        self._again = self._loop.call_later(pause, self.start)

    def _forget(self) -> int:
        """Let go of a process that has ended; its wait status."""
        assert self._process is not None
        if self._leash is not None:
            self._loop.remove_handler(self._leash.fileno())
            self._leash.close()
        code = self._process.wait()
        self._process = self._leash = None
        return -code if code < 0 else code << 8
