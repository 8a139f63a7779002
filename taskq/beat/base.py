"""The contract of beat's stores, which keep entries that people change and, for want of a better
place, the mark of the beat that leads.

The contract of leases themselves is `taskq.broker.base.Lease`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from taskq import log
from taskq.errors import ConfigurationError, TaskqError
from taskq.schedules import Entry, read_entry
from taskq.wire import codec

_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What a store is told besides its URL; *timeout* in seconds."""

    url: str
    #: Whose schedule it is: several may be in one store.
    schedule: str = "taskq"
    #: One operation may take this long.
    timeout: float = 5.0
    #: Where relative SQLite paths start from.
    root: str = "."


class Run(NamedTuple):
    """A task that beat has sent: its *id*, the due time, and when it was sent."""

    id: str
    due: float
    sent: float


@dataclass(frozen=True, slots=True)
class Row:
    """What a store keeps under one name.

    *entry* is one that people have added; None if the row is about the app's own entry.  *enabled*
    is what people have said about that, None if nobody did, and *since* is when they said it: what
    was due before does not count.  *last* is its last run.
    """

    name: str
    entry: Entry | None = None
    enabled: bool | None = None
    since: float | None = None
    last: Run | None = None


class Mark(NamedTuple):
    """What the beat that leads leaves in a store: its number, how often it did so, and a note.

    Another *pulse* is a sign of life; `RELEASED` says that nobody leads any more.
    """

    epoch: int
    pulse: int
    note: str


#: The last pulse of a beat that stopped in order.
RELEASED = -1


class Store(Protocol):
    """Where entries are kept that people add and change while beat runs.

    Everything blocks for a bounded time, raises BackendUnavailable when that is over, and may be
    called by other processes at the same time; in one process by one thread at a time.
    """

    #: Whether beats on several hosts can share it.
    shared: bool

    @property
    def url(self) -> str:
        """The URL for people, with the password masked."""

    def attend(self) -> None:
        """A beat works with this store now; to be said again and again.

        ConfigurationError if it cannot be shared, and the beat of another host works with it.
        """

    def rows(self) -> list[Row]:
        """All rows that can be read."""

    def changes(self) -> int:
        """A number that differs after each `put`, `remove`, `enable` and run that people started.

        Cheap, to be polled.
        """

    def put(self, entry: Entry, since: float) -> None:
        """Keep *entry* in place of the row of its name; it counts from *since*."""

    def remove(self, name: str) -> bool:
        """Forget the row *name*; whether it had an entry."""

    def enable(self, name: str, enabled: bool, since: float) -> None:
        """Let the entry *name* be sent, or not; it counts from *since*."""

    def note(self, runs: Mapping[str, Run], *, by_hand: bool = False) -> None:
        """Keep the last run of each of these entries.

        It is a change only if they were started *by_hand*, for beat knows of its own.
        """

    def mark(self) -> Mark | None:
        """The mark of the beat that leads, None if none ever did."""

    def take(self, seen: Mark | None, mark: Mark) -> bool:
        """Replace *seen* by *mark*; whether *seen*, by epoch and pulse, was still there."""

    def keep(self, mark: Mark) -> bool:
        """Replace the mark of the same epoch by *mark*; whether there was one."""

    def close(self) -> None:
        """Release everything.  Idempotent."""


def merged(entries: Mapping[str, Entry], rows: Iterable[Row]) -> dict[str, Entry]:
    """The app's own *entries* and those of a store, whose word is the later one and wins.

    A row without an entry, whose name the app does not know any more, says nothing.
    """
    found = dict(entries)
    for row in rows:
        entry = row.entry or entries.get(row.name)
        if entry is not None:
            enabled = entry.enabled if row.enabled is None else row.enabled
            since = entry.since if row.since is None else row.since
            found[row.name] = replace(entry, enabled=enabled, since=since)
    return found


# -- as stores write it ------------------------------------------------------------------------


def entry_to_text(entry: Entry) -> str:
    """*entry* as JSON; EncodeError for arguments that would not come back equal."""
    return codec.dumps(entry.plain()).body.decode()


def read_row(
    name: str,
    entry: str | None = None,
    enabled: bool | None = None,
    since: float | None = None,
    last: Run | None = None,
) -> Row | None:
    """The row of these columns; None, said in the log, if its *entry* cannot be read."""
    try:
        found = None if entry is None else read_entry(name, _opened(entry))
    except (ConfigurationError, TaskqError) as error:
        log.event("entry-broken", entry=name, reason=str(error))
        return None
    return Row(name, found, None if enabled is None else bool(enabled), since, last)


def _opened(text: str) -> object:
    return codec.loads(text.encode(), _JSON, None, ("json",))
