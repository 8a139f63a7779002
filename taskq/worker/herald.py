"""What the worker's parent tells monitors: events about itself and about the tasks in its hands.

It is told what happens to each job and makes an event of it; sending is `events.sender`'s business.
What only a child knows, a result as text, comes with the child's own words.
"""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taskq import __version__, clock
from taskq.broker.base import Outlet
from taskq.events.sender import EventSender
from taskq.loop import Loop, Timer
from taskq.wire.event import EventWriter
from taskq.worker.ledger import Job
from taskq.worker.outcome import Outcome

#: A worker that could not introduce itself tries again after so many seconds.
_RETRY = 0.25


class Herald:
    """Tells the events of the worker *node* through *outlet*.

    Every *interval* seconds it says that the worker lives; 0: it says nothing about the worker.
    *vitals* says how many tasks children have in their hands, and how many they have finished.
    """

    def __init__(
        self,
        loop: Loop,
        outlet: Outlet,
        node: str,
        *,
        interval: float,
        vitals: Callable[[], tuple[int, int]],
    ) -> None:
        self._loop = loop
        #: Also the node's logical clock.
        self.writer = EventWriter(node, os.getpid(), clock.hours_west())
        self._sender = EventSender(loop, outlet, self.writer)
        self._interval = interval
        self._vitals = vitals
        self._software = {
            "sw_ident": "taskq",
            "sw_ver": __version__,
            "sw_sys": platform.system(),
        }
        self._introduced = False
        self._timer: Timer | None = None
        #: The last job of which monitors know that it was received.
        self._last = 0
        #: Jobs that succeeded, and whose child has yet to say so, with what they returned:
        #: number -> child, task id.
        self._owed: dict[int, tuple[int, str]] = {}

    # -- the worker --------------------------------------------------------------------------

    def start(self) -> None:
        """Introduce the worker to monitors, and say from then on that it lives."""
        if not self._interval:
            return
        self.writer.move(clock.hours_west())
        kind = "worker-heartbeat" if self._introduced else "worker-online"
        if self._sender.tell(kind, self._state()):
            self._introduced = True
        delay = self._interval if self._introduced else min(_RETRY, self._interval)
        self._timer = self._loop.call_later(delay, self.start)

    def beat(self) -> None:
        """Say now that the worker lives, because somebody has asked."""
        self._sender.tell("worker-heartbeat", self._state())

    def close(self) -> None:
        """Say what is left to say, and that the worker goes."""
        self._sender.close()
        if self._timer is not None:
            self._timer.cancel()
            self._sender.tell("worker-offline", self._state())

    def _state(self) -> dict[str, Any]:
        active, processed = self._vitals()
        return {
            "freq": self._interval,
            "active": active,
            "processed": processed,
            "loadavg": [round(load, 2) for load in os.getloadavg()],
            **self._software,
            "taskq-dropped": self._sender.dropped,
        }

    # -- tasks -------------------------------------------------------------------------------

    def received(self, job: Job) -> None:
        """*job* was taken over; numbers of jobs rise, and of each this is told once."""
        if job.number > self._last:
            self._last = job.number
            if job.headers is not None:
                self._sender.put(self.writer.received(job.headers, clock.wall()))

    def started(self, job: Job) -> None:
        """*job* was handed to a child, perhaps before anybody said that it was received."""
        self.received(job)
        self._sender.put(self.writer.started(job.id, clock.wall()))

    def done(self, number: int, job: Job | None, shown: str | None, runtime: float) -> None:
        """A child says that job *number* succeeded; *job* is None if that was known already."""
        task_id = self._owed.pop(number, (0, None))[1] if job is None else job.id
        if task_id is not None:
            self._sender.put(self.writer.succeeded(task_id, clock.wall(), shown, runtime))

    def found_done(self, child: int, job: Job) -> None:
        """*job* succeeded, and *child* has not said so yet."""
        self._owed[job.number] = child, job.id

    def child_died(self, child: int) -> None:
        """*child* says nothing any more."""
        for number, (by, task_id) in list(self._owed.items()):
            if by == child:
                del self._owed[number]
                self._sender.put(self.writer.succeeded(task_id, clock.wall(), None, None))

    def heard(
        self,
        job: Job,
        outcome: Outcome,
        runtime: float,
        evidence: Sequence[str] | None,
        shown: str | None,
    ) -> None:
        """A child says how *job* ended; *evidence* is exception type, its text and a traceback."""
        if outcome is Outcome.SUCCESS:
            self.done(job.number, job, shown, runtime)
        else:
            self._tell_end(job, outcome, evidence, shown)

    def ended(self, job: Job) -> None:
        """*job* ended without a child's word."""
        self.received(job)
        if job.headers is not None and job.outcome is not None:
            self._tell_end(job, job.outcome, job.evidence, None)

    def _tell_end(
        self, job: Job, outcome: Outcome, evidence: Sequence[str] | None, shown: str | None
    ) -> None:
        kind, text, traceback = evidence or ("", job.reason, "")
        why = {"exception": shown or f"{kind}({text!r})", "traceback": traceback}
        match outcome:
            case Outcome.IGNORE:
                pass  # Celery says nothing of it either
            case Outcome.REVOKED:
                doom = job.doom if text == "terminated" else None
                fields = {
                    "terminated": doom is not None,
                    "signum": doom.signum if doom is not None else None,
                    "expired": text == "expired",
                }
                self._put("task-revoked", job, fields)
            case Outcome.REJECT | Outcome.REJECT_REQUEUE | Outcome.UNSTORED:
                self._put("task-rejected", job, {"requeue": outcome is not Outcome.REJECT})
            case Outcome.RETRY:
                self._put("task-retried", job, why)
            case _:
                self._put("task-failed", job, why)

    def _put(self, kind: str, job: Job, fields: Mapping[str, Any]) -> None:
        self._sender.put(self.writer.event(kind, clock.wall(), {"uuid": job.id, **fields}))
