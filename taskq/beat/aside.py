"""One thread beside the loop, for what blocks: stores and result backends."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from taskq import clock
from taskq.errors import TaskqError
from taskq.loop import Loop

Answer = TypeVar("Answer")


class Aside:
    """Does one thing after the other, in a thread; what comes of it is told on the *loop*."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._executor = ThreadPoolExecutor(1, "taskq-beat-store")
        self._waiting = 0

    def do(
        self,
        work: Callable[[], Answer],
        then: Callable[[Answer], object] = lambda _: None,
        failed: Callable[[TaskqError], object] = lambda _: None,
    ) -> None:
        """Call *then* with what *work* returns, or *failed* with the TaskqError that it raises.

        Any other exception leaves the loop, as if it had been raised there.
        """
        self._waiting += 1
        future = self._executor.submit(work)
        future.add_done_callback(
            lambda done: self._loop.add_callback(partial(self._tell, done, then, failed))
        )

    def finish(self, timeout: float) -> None:
        """Turn the loop until all was told, at most *timeout* seconds, and take no more work."""
        deadline = clock.monotonic() + timeout
        while self._waiting and (left := deadline - clock.monotonic()) > 0:
            self._loop.turn(left)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _tell(
        self,
        done: Future[Answer],
        then: Callable[[Answer], object],
        failed: Callable[[TaskqError], object],
    ) -> None:
        self._waiting -= 1
        try:
            answer = done.result()
        except TaskqError as error:
            failed(error)
        else:
            then(answer)
