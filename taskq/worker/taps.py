"""The queues that a worker takes from, and those among them that are turned off for now.

Reasons to take nothing stand beside each other, and when the last is gone it goes on: the worker
holds too much, it drains, it stops, or an operator paused that queue.  What is on its way when a
queue is turned off still arrives.
"""

from collections.abc import Iterable

from taskq.broker.base import Intake, Queue


class Taps:
    """Has *intake* consume from *queues*, as far as nothing speaks against it."""

    def __init__(self, intake: Intake, queues: Iterable[Queue]) -> None:
        self._intake = intake
        #: By physical name.
        self.queues = {queue.name: queue for queue in queues}
        self._open: set[str] = set()
        self._paused: set[str] = set()
        #: Why nothing at all is taken.
        self._reasons: set[str] = set()
        self._begun = False

    def begin(self, window: int) -> None:
        """Consume from now on: at most *window* unsettled deliveries of each queue."""
        self._begun = True
        self._open = self._wanted()
        self._intake.consume([self.queues[name] for name in sorted(self._open)], window)

    def add(self, queue: Queue) -> None:
        """Take from *queue*, too."""
        self.queues[queue.name] = queue
        self._turn()

    def remove(self, queue: str) -> None:
        """Take from *queue* no more."""
        self.queues.pop(queue, None)
        self._turn()

    def pause(self, queue: str, paused: bool) -> None:
        """Take nothing from *queue*, also if it is added later; or take from it again."""
        (self._paused.add if paused else self._paused.discard)(queue)
        self._turn()

    def close(self, reason: str) -> None:
        """Take nothing from any queue, because of *reason*."""
        self._reasons.add(reason)
        self._turn()

    def open(self, reason: str) -> None:
        """*reason* speaks against it no more."""
        self._reasons.discard(reason)
        self._turn()

    def _wanted(self) -> set[str]:
        return set() if self._reasons else self.queues.keys() - self._paused

    def _turn(self) -> None:
        if not self._begun:
            return
        wanted = self._wanted()
        for name in sorted(self._open - wanted):
            self._intake.cancel(name)
        for name in sorted(wanted - self._open):
            self._intake.add(self.queues[name])
        self._open = wanted
