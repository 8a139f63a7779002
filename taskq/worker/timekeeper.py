"""Watching running jobs against their time limits: looks at slates, warns tasks, ends children.

When a limit has passed is decided in `limits`; what becomes of a job whose child was ended for it,
by the dispatcher.
"""

import signal
from functools import partial

from taskq import clock, log
from taskq.loop import Loop, Timer
from taskq.worker.dispatcher import Dispatcher
from taskq.worker.ledger import Doom, Job
from taskq.worker.limits import Kill, Wait, Warn, judge
from taskq.worker.outcome import Outcome
from taskq.worker.pool import Pool

#: What a child that gets one of these does not survive; it ignores SIGINT, and the rest is talk.
_DEADLY = frozenset(
    {signal.SIGTERM, signal.SIGKILL, signal.SIGQUIT, signal.SIGHUP, signal.SIGABRT, signal.SIGSEGV}
)


class Timekeeper:
    """Looks at a child when one of its jobs may have reached a limit, and not before."""

    def __init__(self, loop: Loop, pool: Pool, dispatcher: Dispatcher, *, kill_wait: float) -> None:
        self._loop = loop
        self._pool = pool
        self._dispatcher = dispatcher
        self._kill_wait = kill_wait
        #: The next look at each child that is watched.
        self._looks: dict[int, Timer] = {}

    def watch(self, child: int, job: Job) -> None:
        """*child* was handed *job*, which has limits: keep an eye on it."""
        self._plan(child, min(filter(None, (job.limits.soft, job.limits.hard))))

    def _plan(self, child: int, delay: float) -> None:
        planned = self._looks.get(child)
        if planned is not None:
            if planned.when <= clock.monotonic() + delay:
                return
            planned.cancel()
        self._looks[child] = self._loop.call_later(max(0.0, delay), partial(self._look, child))

    def _look(self, child: int) -> None:
        self._looks.pop(child, None)
        number, state, since = self._pool.slate(child)
        now = clock.monotonic()
        for job in self._dispatcher.in_hands(child):
            if not job.limits or (job.doom is not None and job.doom.outcome is Outcome.TIMEOUT):
                continue
            # One that waits behind another has not begun to use its time.
            elapsed = now - since if job.number == number else 0.0
            match judge(job.limits, state, elapsed, warned=job.warned):
                case Kill():
                    self._time_out(child, job)
                    return
                case Warn():
                    job.warned = True
                    self._pool.warn(child, job.number)
                    self._plan(child, 0.0)
                case Wait(seconds):
                    self._plan(child, seconds)

    def _time_out(self, child: int, job: Job) -> None:
        log.event("task-timed-out", name=job.name, id=job.id, seconds=job.limits.hard)
        reason = f"TimeLimitExceeded: {job.limits.hard:g} s"
        self._dispatcher.doom(job.number, Doom(Outcome.TIMEOUT, reason, "TimeLimitExceeded"))
        self._end(child, job, signal.SIGTERM)

    def terminate(self, child: int, job: Job, signum: int) -> bool:
        """Send *signum* to *child* if it has begun *job*; whether it has.

        What is meant to end a process does so, at last by SIGKILL.
        """
        # First barred, then looked: from now on it begins nothing that the signal could hit.
        self._pool.bar(child, self._dispatcher.turns(child) + 1)
        if self._pool.slate(child)[0] != job.number:
            return False
        self._end(child, job, signum)
        return True

    def _end(self, child: int, job: Job, signum: int) -> None:
        self._pool.signal(child, signum)
        if signum in _DEADLY:
            self._loop.call_later(self._kill_wait, partial(self._kill_if_there, child, job))

    def _kill_if_there(self, child: int, job: Job) -> None:
        """Kill *child* if it still has *job*, which may have ended by itself meanwhile."""
        if job in self._dispatcher.in_hands(child):
            self._pool.kill(child)
