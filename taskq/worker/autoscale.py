"""How many children a worker should have: as many as there is work for, between two bounds.

It grows while jobs wait and no child is free, and shrinks to what was enough for a while.  Pure: it
is told now and then what is going on, and answers with a number.
"""

from collections import deque

#: Seconds between two looks.  Jobs that are done within one do not make a worker grow.
LOOK = 0.1
#: A child that was not needed for so many seconds goes.
IDLE = 30.0


class Autoscale:
    """At most *most* children, at least *least*; both may be changed at any time."""

    def __init__(self, most: int, least: int) -> None:
        self.most = most
        self.least = least
        #: Since when there are as many children as there are.
        self._since: float | None = None
        #: How many were busy at once, and when: of the last `IDLE` seconds only what no later look
        #: has surpassed, so that the first is the most.
        self._peaks: deque[tuple[float, int]] = deque()

    def look(self, now: float, children: int, busy: int, waiting: int) -> int:
        """How many children there should be at *now* (seconds), instead of *children*.

        *busy* of them have a job, and *waiting* jobs have no child.
        """
        peak = self._peak(now, busy)
        if self._since is None:
            self._since = now
        wanted = children
        if waiting and busy >= children:
            wanted = children + min(waiting, children)  # twice as many, lest a burst fetches all
        elif now - self._since >= IDLE:
            wanted = min(children, peak)
        wanted = max(self.least, min(self.most, wanted))
        if wanted > children:
            self._since = now
        return wanted

    def _peak(self, now: float, busy: int) -> int:
        while self._peaks and self._peaks[-1][1] <= busy:
            self._peaks.pop()
        self._peaks.append((now, busy))
        while self._peaks[0][0] <= now - IDLE:
            self._peaks.popleft()
        return self._peaks[0][1]
