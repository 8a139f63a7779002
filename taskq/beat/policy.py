"""What becomes of due times that came and went, and of runs whose last one still goes on.

Arithmetic only: moments are passed in, and whoever asks does the sending.
"""

from collections import deque

from taskq import states
from taskq.schedules.entry import Entry, Occurrence

#: The smallest step between two moments.
_MICROSECOND = 1e-6


def to_send(entry: Entry, first: Occurrence, now: float, grace: float) -> list[Occurrence]:
    """The occurrences of *entry* to be sent now, of those from *first* on whose moment has come.

    What is late by at most *grace* seconds is late and not missed, and all of it is sent: so long
    may it take until another beat goes on.  When more time went by, nobody was there: then the
    entry's `missed` says which are made up for.  "skip": none, but the last one is sent if it is
    not later than *grace*; "once": the last one; "all": the last `missed_limit` of them.  Those
    that have expired are not sent.
    """
    if now - first.at <= grace:
        found = _all(entry, first, now)
    else:
        limit = entry.missed_limit if entry.missed == "all" else 1
        found = _last(entry, first, now, limit)
        if entry.missed == "skip":
            found = [each for each in found if now - each.at <= grace]
    return [each for each in found if each.expires is None or each.expires > now]


def _all(entry: Entry, first: Occurrence, now: float) -> list[Occurrence]:
    found = [first]
    for occurrence in entry.upcoming(first.at):
        if occurrence.at > now:
            break
        found.append(occurrence)
    return found


def _last(entry: Entry, first: Occurrence, now: float, limit: int) -> list[Occurrence]:
    """The last *limit* occurrences from *first* on, found from the end: there may be millions."""
    found: deque[Occurrence] = deque()
    until = now
    while len(found) < limit:
        occurrence = entry.latest(first.at - _MICROSECOND, until)
        if occurrence is None:
            break
        found.appendleft(occurrence)
        until = occurrence.at - _MICROSECOND
    return list(found)


def may_start(entry: Entry, *, state: str | None, age: float, patience: float) -> bool:
    """Whether *entry* may be sent although its last run was sent *age* seconds ago.

    *state* is what the result store says of that run, None if it knows nothing: then it waits in a
    queue, or its result is gone.  After *patience* seconds, which is how long results are kept, it
    counts as gone, so that a lost run does not hold up the entry for ever.
    """
    return entry.overlap == "allow" or state in states.READY_STATES or age > patience
