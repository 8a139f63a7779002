"""How many messages a worker should hold: enough to keep its children busy, and no more.

What a worker holds, an idle worker beside it cannot run.  So with long tasks it holds one for each
child; with short ones as many as its children get through in a moment, because each way to the
broker and back takes a part of a millisecond.  Pure: run times come in, a number goes out.
"""

import math

#: Seconds of work, for each child, that may be held besides what runs.  Another worker that has
#: nothing to do waits no longer than about twice this for it.
HOLD = 0.05
#: What running a task takes besides its function, in seconds.
OVERHEAD = 0.0001
#: A child is worth this many messages at most: more would only take memory.
_MOST = 128
#: So many tasks must have run before the width follows them.
_ENOUGH = 8
#: One task counts as this many times as long as those before it at most, so that a rare long one
#: among short ones does not close the window.
_SURPRISE = 4.0


class Window:
    """The width for so many *children*.

    *fixed* for all of them, or *each* for every one, is somebody's own choice, and stays.
    """

    def __init__(self, children: int, fixed: int | None = None, each: int | None = None) -> None:
        self.width = fixed or children * (each or 1)
        self._children = children
        self._is_whole = fixed is not None
        self._is_fixed = self._is_whole or each is not None
        self._seen = 0
        #: Seconds that a task has taken lately.
        self._pace = 0.0
        # Between these paces the width is about right.
        self._low, self._high = self._bounds()

    def staff(self, children: int) -> bool:
        """There are so many *children* from now on; whether `width` has changed for it."""
        each, self._children = self.width // self._children, children
        if self._is_whole:
            return False
        old, self.width = self.width, each * children
        return self.width != old

    def ran(self, seconds: float) -> bool:
        """A task took so long in its function; whether `width` has changed for it."""
        pace, seconds = self._pace, seconds + OVERHEAD
        if self._seen < _ENOUGH:
            self._seen += 1
            pace += (seconds - pace) / self._seen
        else:
            pace += (min(seconds, pace * _SURPRISE) - pace) / _ENOUGH
        self._pace = pace
        known = self._seen == _ENOUGH
        return known and not self._low <= pace <= self._high and self._set(pace)

    def close(self, seconds: float) -> bool:
        """All children have been at their tasks for so long; whether `width` has changed."""
        self._pace = max(seconds, 2 * HOLD, self._pace)
        return self._set(self._pace)

    def _set(self, pace: float) -> bool:
        if self._is_fixed:
            return False
        old, self.width = self.width, self._children * (1 + min(int(HOLD / pace), _MOST - 1))
        self._low, self._high = self._bounds()
        return self.width != old

    def _bounds(self) -> tuple[float, float]:
        """The paces at which the width would be twice, or half, of what it is."""
        each = self.width / self._children
        low = HOLD / (2 * each - 1) if each < _MOST else 0.0
        high = HOLD / (each / 2 - 0.5) if each > 1 else math.inf
        return low, high
