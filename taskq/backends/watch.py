"""The thread that looks for awaited results in a store that cannot push them.

How to look is the store's business; this file knows only when.
"""

import threading
from collections.abc import Callable, Iterable

from taskq.backends.base import Subscriptions
from taskq.errors import BackendUnavailable
from taskq.wire.result import Result

#: A pause is this much longer than the one before.  It keeps the pause near a sixth of the time
#: already waited, so that a result is heard late in proportion to its task, not to the longest.
_GROWTH = 1.2


class Watch:
    """One daemon thread, started when first woken, that turns only while somebody waits.

    *look* returns what it found; results that are ready settle their *waiting* subscriptions.
    Pauses between two looks grow from *shortest* to *longest* seconds, and begin anew when woken.
    """

    def __init__(
        self,
        waiting: Subscriptions,
        look: Callable[[], Iterable[Result]],
        *,
        shortest: float,
        longest: float,
    ) -> None:
        self._waiting = waiting
        self._look = look
        self._shortest = shortest
        self._longest = longest
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()
        self._ended = False

    def wake(self) -> None:
        """Look now: somebody waits who did not before, or something was stored here."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="taskq-results", daemon=True)
                self._thread.start()
        self._woken.set()

    def close(self) -> None:
        """End the thread, and wait for it if it is not the caller.  Idempotent."""
        with self._lock:
            thread, self._ended = self._thread, True
        self._woken.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        pause: float | None = None  # nobody waits: sleep until woken
        while True:
            if self._woken.wait(pause):
                self._woken.clear()  # before the look: what happens during it wakes us again
                pause = self._shortest
            if self._ended:
                return
            try:
                for result in self._look():
                    self._waiting.settle(result)
            except BackendUnavailable:
                pass  # the store may be back at the next look; a caller's bound is its timeout
            if not self._waiting.ids():
                pause = None
            elif pause is not None:
                pause = min(pause * _GROWTH, self._longest)
