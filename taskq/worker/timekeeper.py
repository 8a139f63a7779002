"""Watching running jobs against their time limits: looks at slates, warns tasks, ends children.

When a limit has passed is decided in `limits`; what becomes of a job whose child was ended for it,
by the dispatcher.
"""

from functools import partial

from taskq import clock, log
from taskq.loop import Loop, Timer
from taskq.worker.dispatcher import Dispatcher
from taskq.worker.ledger import Job
from taskq.worker.limits import Kill, Wait, Warn, judge
from taskq.worker.pool import Pool


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
            if not job.limits or job.doom is not None:
                continue
            # One that waits behind another has not begun to use its time.
            elapsed = now - since if job.number == number else 0.0
            match judge(job.limits, state, elapsed, warned=job.warned):
                case Kill():
                    self._kill(child, job)
                    return
                case Warn():
                    job.warned = True
                    self._pool.warn(child)
                    self._plan(child, 0.0)
                case Wait(seconds):
                    self._plan(child, seconds)

    def _kill(self, child: int, job: Job) -> None:
        log.event("task-timed-out", name=job.name, id=job.id, seconds=job.limits.hard)
        self._dispatcher.doom(job.number, f"TimeLimitExceeded: {job.limits.hard:g} s")
        self._pool.terminate(child)
        self._loop.call_later(self._kill_wait, partial(self._pool.kill, child))
