"""The children of a worker as a number: how many there are, and how many there should be.

They are asked for, replaced, weighed and let go here.  Which of them gets what is in `roster`, how
a child comes to be in the pool, and how many are good for the work in `autoscale`.
"""

from collections.abc import Callable

from taskq import clock, log
from taskq.loop import Loop
from taskq.worker.autoscale import LOOK, Autoscale
from taskq.worker.parts import Parts
from taskq.worker.pool import Death, Pool

#: Besides one for each place, so many children in a row may die before they are ready.
_STILLBIRTHS = 5
#: A child that has so many times max_memory_per_child while its task runs is killed.
_TOO_MUCH = 1.5
#: Seconds between two looks at that.
_WEIGHING = 1.0


class Crew:
    """As many children as *size*, which may change; *on_broken* hears that none becomes ready.

    *max_memory* is how many KiB a child may have resident after a task; None: any.  With *scale*
    the size follows the work.
    """

    def __init__(
        self,
        loop: Loop,
        pool: Pool,
        parts: Parts,
        *,
        max_memory: int | None,
        scale: Autoscale | None,
        on_broken: Callable[[], None],
    ) -> None:
        self.size = parts.children
        self.scale = scale
        self._loop = loop
        self._pool = pool
        self._dispatcher = parts.dispatcher
        self._hands = parts.hands
        self._window = parts.window
        self._settings = parts.manifest.settings
        self._max_memory = max_memory
        self._on_broken = on_broken
        #: Children that were let go because there are too many, and are still there.
        self._leaving: set[int] = set()
        #: Children in a row that died before they were ready.
        self._stillborn = 0
        self._stopped = False
        if max_memory is not None:
            self._weigh_all()
        if scale is not None:
            self._look()

    def stop(self) -> None:
        """Ask for no child any more."""
        self._stopped = True

    # -- how many ----------------------------------------------------------------------------

    def fill(self) -> None:
        """Have as many children as there should be."""
        while not self._stopped and self._dispatcher.children - len(self._leaving) < self.size:
            timeout = self._settings["worker_child_start_timeout"]
            self._dispatcher.child_started(self._pool.spawn(timeout))

    def resize(self, size: int) -> None:
        """Have *size* children from now on; of too many those go first that have least to do."""
        staying = [each for each in self._dispatcher.numbers() if each not in self._leaving]
        staying.sort(key=lambda child: len(self._dispatcher.in_hands(child)))
        self.size = size
        for child in staying[: max(0, len(staying) - size)]:
            self._leaving.add(child)
            self._dispatcher.retire(child)
        self._widen()
        self.fill()

    def _widen(self) -> None:
        """Hold as much as suits the children; who leaves has something in hand until then."""
        most = self.scale.most if self.scale is not None else self.size
        if self._window.staff(most + len(self._leaving)):
            self._hands.resize(self._window.width)

    def _look(self) -> None:
        if self._stopped or self.scale is None:
            return
        busy = sum(
            bool(self._dispatcher.in_hands(child))
            for child in self._dispatcher.numbers()
            if child not in self._leaving
        )
        waiting = len(self._dispatcher.waiting)
        size = self.scale.look(clock.monotonic(), self.size, busy, waiting)
        if size != self.size:
            log.event("pool-resized", children=size)
            self.resize(size)
        self._loop.call_later(LOOK, self._look)

    # -- their lives -------------------------------------------------------------------------

    def ready(self) -> None:
        """A child has become ready."""
        self._stillborn = 0

    def lost(self, child: int, death: Death) -> None:
        """*child* is gone: let the dispatcher know, replace it."""
        how = death.how
        if child in self._leaving:
            self._leaving.remove(child)
            self._widen()
        if not self._mourn(child, how):
            return
        for job in self._dispatcher.child_died(child, death.begun, how, inside=death.inside):
            log.event(
                "task-lost",
                name=job.name,
                id=job.id,
                how=how,
                crashes=job.crashes,
                limit=self._settings["max_crashes"],
            )
        self.fill()

    def _mourn(self, child: int, how: str) -> bool:
        """Say that *child* is gone; False if so many died before they were ready that all ends."""
        ready = self._dispatcher.was_ready(child)
        if ready is None:
            log.event("child-retired", child=child)
            return True
        log.event("child-died", child=child, how=how)
        self._stillborn += not ready
        if self._stillborn <= _STILLBIRTHS + self.size:
            return True
        log.event("children-broken", count=self._stillborn, how=how)
        self._on_broken()
        return False

    # -- their weight ------------------------------------------------------------------------

    def weigh(self, child: int) -> None:
        """Let *child* go if it has grown too large."""
        if self._max_memory is not None and self._pool.memory(child) > self._max_memory:
            self._dispatcher.retire(child)

    def _weigh_all(self) -> None:
        """End children that a running task has blown up far beyond their limit."""
        assert self._max_memory is not None
        for child in self._dispatcher.numbers():
            if self._pool.memory(child) > _TOO_MUCH * self._max_memory:
                self._pool.kill(child, f"over {_TOO_MUCH:g} times max_memory_per_child")
        self._loop.call_later(_WEIGHING, self._weigh_all)
