"""The last run of each entry: kept, told to the store, and asked about where runs must not overlap.

What follows from the answer is for whoever asks.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from taskq import clock
from taskq.beat.aside import Aside
from taskq.beat.base import Run, Store
from taskq.beat.policy import may_start
from taskq.errors import TaskqError
from taskq.schedules import Occurrence
from taskq.wire.result import Result

#: None: the last run has ended; a run: that one has not; an error: it is not known.
Answer = Run | TaskqError | None
OnAnswer = Callable[[Answer], object]


class Runs:
    """The last runs that a beat knows of.

    *fetch* asks the result store, aside; a run counts as gone after *patience* seconds.
    """

    def __init__(
        self, aside: Aside, fetch: Callable[[str], Result | None], patience: float
    ) -> None:
        self._aside = aside
        self._fetch = fetch
        self._patience = patience
        self._last: dict[str, Run] = {}
        #: Those that the store has not been told of.
        self._untold: dict[str, Run] = {}
        #: Who waits for an answer, or has one and is being sent: one line for each entry.
        self._lines: dict[str, deque[tuple[Occurrence, OnAnswer]]] = {}

    # -- what ran ------------------------------------------------------------------------------

    def add(self, occurrence: Occurrence) -> None:
        """The *occurrence* was sent, just now."""
        run = Run(occurrence.id, occurrence.due, clock.wall())
        self._last[occurrence.entry.name] = self._untold[occurrence.entry.name] = run

    def learn(self, runs: Mapping[str, Run]) -> None:
        """Somebody else knows of these *runs*; the last one of each entry counts."""
        for name, run in runs.items():
            if name not in self._last or run.sent > self._last[name].sent:
                self._last[name] = run

    def of(self, names: Iterable[str]) -> dict[str, Run]:
        """The last runs of the entries *names*."""
        return {name: self._last[name] for name in names if name in self._last}

    def tell(self, store: Store) -> None:
        """Have *store* keep what it does not know yet."""
        if self._untold:
            runs, self._untold = self._untold, {}
            self._aside.do(lambda: store.note(runs), failed=lambda _: self._keep_for_later(runs))

    def _keep_for_later(self, runs: Mapping[str, Run]) -> None:
        self._untold = {**runs, **self._untold}

    # -- what must not overlap -----------------------------------------------------------------

    def ask(self, occurrence: Occurrence, answer: OnAnswer) -> None:
        """Call *answer* when it is known whether the last run of the occurrence's entry has ended.

        Then it is this one's turn, and others of the entry wait, until `leave` is called.
        """
        line = self._lines.setdefault(occurrence.entry.name, deque())
        if not line or line[0][0] is not occurrence:
            line.append((occurrence, answer))
        if line[0][0] is occurrence:
            self._ask(occurrence, answer)

    def leave(self, occurrence: Occurrence) -> None:
        """The *occurrence* was sent, or will not be: the next one of its entry has its turn."""
        line = self._lines.get(occurrence.entry.name)
        if line and line[0][0] is occurrence:
            line.popleft()
            if line:
                self._ask(*line[0])
            else:
                del self._lines[occurrence.entry.name]

    def clear(self) -> None:
        """Nobody waits for an answer any more."""
        self._lines.clear()

    def _ask(self, occurrence: Occurrence, answer: OnAnswer) -> None:
        last = self._last.get(occurrence.entry.name)
        self._aside.do(lambda: self._unless_ended(occurrence, last), answer, answer)

    def _unless_ended(self, occurrence: Occurrence, last: Run | None) -> Run | None:
        if last is None or last.id == occurrence.id:
            return None
        result = self._fetch(last.id)
        state = result.state if result else None
        age = clock.wall() - last.sent
        ended = may_start(occurrence.entry, state=state, age=age, patience=self._patience)
        return None if ended else last
