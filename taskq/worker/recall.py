"""Taking jobs back from children that turned out to be busy for long.

Short jobs are handed out several at a time.  When the first of them takes longer than was expected,
the others would wait behind it while other children, or other workers, have nothing to do.  So
while a child has jobs behind another, or deliveries wait for a child, this file looks at the slates
every few milliseconds:

1. What a child has finished and not reported yet is settled.
2. A child that is still at the same job as at the last look is *barred* on its slate from beginning
   those behind it.
3. At the next look they are taken back: what it has not begun by then it never will.
4. When no child has finished anything for a while, what waits for one is left to other workers.

What follows for the jobs is the dispatcher's business.
"""

from taskq import clock
from taskq.loop import Loop
from taskq.worker.dispatcher import PATIENCE, Dispatcher
from taskq.worker.pool import Pool

#: Seconds between two looks; also how long a bar has to reach its child.
_LOOK = 0.01


class Recall:
    """Looks at the slates of *pool* on behalf of *dispatcher*, as long as there is reason to."""

    def __init__(self, loop: Loop, pool: Pool, dispatcher: Dispatcher) -> None:
        self._loop = loop
        self._pool = pool
        self._dispatcher = dispatcher
        self._looking = False
        #: Children from whom all is to be taken back that they have not begun.
        self._wanted: set[int] = set()
        #: Child -> the job it was at, at the last look.
        self._begun: dict[int, int] = {}
        #: Child -> the turn it is barred up to.
        self._barred: dict[int, int] = {}
        self._ended = 0
        self._ended_since = 0.0

    def look(self) -> None:
        """Begin to look, if that is not so already."""
        if not self._looking:
            self._looking = True
            self._ended_since = clock.monotonic()
            self._loop.call_later(_LOOK, self._look)

    def recall(self, child: int) -> None:
        """Take back what *child* has not begun, however short the job before it may be."""
        if self._pool.pid(child) is not None:  # one that is no process has no slate to be barred on
            self._wanted.add(child)
            self.look()

    def _look(self) -> None:
        now = clock.monotonic()
        begun, barred = self._begun, self._barred
        self._begun, self._barred = {}, {}
        wanted, self._wanted = self._wanted, set()
        for child in wanted.union(barred, self._dispatcher.crowded()):
            self._dispatcher.finished(child, self._pool.finished(child))
            job, _state, since = self._pool.slate(child)
            if child in barred:
                self._dispatcher.take_back(child, job, barred[child], now - since)
            elif child in wanted or (job and begun.get(child) == job):
                self._barred[child] = self._dispatcher.turns(child) + 1
                self._pool.bar(child, self._barred[child])
            self._begun[child] = job
        if self._dispatcher.ended != self._ended:
            self._ended, self._ended_since = self._dispatcher.ended, now
        elif now - self._ended_since >= PATIENCE:
            self._dispatcher.give_back(clock.wall())
        self._looking = self._barred != {} or self._dispatcher.is_watched
        if self._looking:
            self._loop.call_later(_LOOK, self._look)
