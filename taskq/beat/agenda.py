"""The agenda: what is due next, among thousands of entries that may change at any time.

It decides and does nothing: the time is passed in, and whoever turns it sends what it hands out
and tells it what was sent.

Moments are those of the wall clock, which people set.  When it is put forward, due times have
passed, as if nobody had been there.  When it is put back, what was handed out is not handed out
again; only intervals, which count the time that passes, go on from the new time on.  The same holds
for one that takes over from a host whose clock was ahead.
"""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping

from taskq.beat.policy import to_send
from taskq.schedules.entry import Entry, Occurrence

#: The longest sleep, so that a clock that is put forward is noticed soon.
LONGEST_SLEEP = 5.0

#: Plans on the heap that were given up, beyond which it is made anew: this times the entries.
_LITTER = 2

_MICROSECOND = 1e-6


class _Plan:
    """What is next for one entry; given up when the agenda has another plan by its name."""

    __slots__ = ("entry", "next")

    def __init__(self, entry: Entry, following: Occurrence | None) -> None:
        self.entry = entry
        self.next = following


class Agenda:
    """What is to be sent, from *through* on: all that was due by then has been dealt with.

    None: there is no past, and the schedule begins *now*.  What is late by at most *grace* seconds
    was not missed (see `policy.to_send`); let it be longer than it takes to replace a leader.  Not
    thread-safe.
    """

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        *,
        now: float,
        through: float | None = None,
        grace: float = 60.0,
    ) -> None:
        self._now = now
        self._done = now if through is None else through
        self._grace = grace
        self._plans: dict[str, _Plan] = {}
        self._heap: list[tuple[float, int, _Plan]] = []
        self._order = itertools.count()
        self._unsent: dict[str, Occurrence] = {}
        for entry in entries:
            self.put(entry)

    # -- the entries ---------------------------------------------------------------------------

    def put(self, entry: Entry) -> None:
        """Add *entry*, or put it in place of the one with its name."""
        self._plan(entry, self._beginning(entry))

    def remove(self, name: str) -> None:
        """Forget the entry *name*; nothing happens if there is none."""
        self._plans.pop(name, None)

    def replace(self, entries: Mapping[str, Entry]) -> bool:
        """Have these entries and no others; whether anything changed.  Others keep their plans."""
        changed = False
        for name in self._plans.keys() - entries.keys():
            changed = True
            self.remove(name)
        for name, entry in entries.items():
            plan = self._plans.get(name)
            if plan is None or plan.entry != entry:
                changed = True
                self.put(entry)
        return changed

    def __getitem__(self, name: str) -> Entry:
        return self._plans[name].entry

    def __iter__(self) -> Iterator[Entry]:
        return (plan.entry for plan in self._plans.values())

    def __len__(self) -> int:
        return len(self._plans)

    def next_of(self, name: str) -> Occurrence | None:
        """What is next for the entry *name*, None if nothing is."""
        return self._plans[name].next

    # -- the time ------------------------------------------------------------------------------

    @property
    def next_at(self) -> float | None:
        """When the next occurrence is to be sent, None if there is none."""
        while self._heap and self._given_up(self._heap[0][2]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def patience(self, now: float) -> float:
        """How many seconds to sleep before the next turn, if no entry changes meanwhile."""
        next_at = self.next_at
        return LONGEST_SLEEP if next_at is None else min(max(0.0, next_at - now), LONGEST_SLEEP)

    def turn(self, now: float) -> list[Occurrence]:
        """What is to be sent now, the first due first; it is handed out once.

        Settle it within *grace*: a successor takes what was left for longer to be missed.
        """
        if self._now - now > self._grace:
            self._go_back(now)
        self._now = now
        found: list[Occurrence] = []
        while (next_at := self.next_at) is not None and next_at <= now:
            plan = heapq.heappop(self._heap)[2]
            assert plan.next is not None
            found += to_send(plan.entry, plan.next, now, self._grace)
            self._plan(plan.entry, now)
        self._done = max(self._done, now)
        found.sort(key=lambda each: each.at)
        self._unsent.update((each.id, each) for each in found)
        return found

    def settle(self, occurrence: Occurrence) -> None:
        """The *occurrence* was sent, and the broker has it; or it need not be sent at all."""
        self._unsent.pop(occurrence.id, None)

    @property
    def through(self) -> float:
        """How far the schedule has been dealt with: nothing that was due by then is left to send.

        Whoever takes over begins here.
        """
        if not self._unsent:
            return self._done
        return min(self._done, *(each.at - _MICROSECOND for each in self._unsent.values()))

    # -- how -----------------------------------------------------------------------------------

    def _beginning(self, entry: Entry) -> float:
        """The moment after which occurrences of *entry* count."""
        begin = self._done
        if entry.schedule.steady and begin - self._now > self._grace:
            begin = self._now
        return begin if entry.since is None else max(begin, entry.since)

    def _go_back(self, now: float) -> None:
        for plan in list(self._plans.values()):
            if plan.entry.schedule.steady:
                self._plan(plan.entry, now)

    def _plan(self, entry: Entry, after: float) -> None:
        plan = _Plan(entry, entry.following(after) if entry.enabled else None)
        self._plans[entry.name] = plan
        if plan.next is not None:
            heapq.heappush(self._heap, (plan.next.at, next(self._order), plan))
        if len(self._heap) > _LITTER * len(self._plans) + 64:
            self._heap = [item for item in self._heap if not self._given_up(item[2])]
            heapq.heapify(self._heap)

    def _given_up(self, plan: _Plan) -> bool:
        return self._plans.get(plan.entry.name) is not plan
