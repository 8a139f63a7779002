"""What operators have decided and workers must not forget: revoked tasks, pauses, limits.

Pure and bounded.  A change is a value: `read`ing it from a command's arguments is the business of
`commands`, taking it to other workers that of `mailbox`, acting on it that of the worker.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

#: So many revoked ids are remembered, and so many stamps; of more the oldest are forgotten.
MOST_REVOKED = 50_000
#: A revoked task is remembered for so many seconds: a week.
REVOKED_FOR = 7 * 86_400.0
#: So many queues may be paused at a time, and so many tasks have limits of their own.
MOST_NAMES = 10_000


class Revoke(NamedTuple):
    """The tasks with these *ids* are not to run any more."""

    ids: tuple[str, ...]


class RevokeStamped(NamedTuple):
    """Tasks that carry one of the values of a stamp are not to run: name -> values."""

    stamps: Mapping[str, tuple[str, ...]]


class Pause(NamedTuple):
    """Nothing more is to be taken from *queue*, a physical name."""

    queue: str


class Resume(NamedTuple):
    """*queue* is to be taken from again."""

    queue: str


class LimitRate(NamedTuple):
    """Each worker is to begin *task* no more often than *rate* says, as `parse_rate` reads it."""

    task: str
    rate: str


class LimitTime(NamedTuple):
    """Runs of *task* are to take no longer than *hard* and *soft* seconds; None: without limit."""

    task: str
    hard: float | None
    soft: float | None


Change = Revoke | RevokeStamped | Pause | Resume | LimitRate | LimitTime


class Remembered:
    """What was decided, as far as this worker knows.  Read the attributes, write with `take`.

    Moments are seconds since the epoch.
    """

    def __init__(self) -> None:
        #: Task id -> when it was revoked, the oldest first.
        self.revoked: dict[str, float] = {}
        #: Name of a stamp -> its revoked values -> when that was said.
        self.revoked_headers: dict[str, dict[str, float]] = {}
        #: Physical names of queues of which nothing is taken.
        self.paused: set[str] = set()
        #: Task name -> its rate as text; a text that `parse_rate` reads as None lifts the limit
        #: that the task has in the code.
        self.rate_limits: dict[str, str] = {}
        #: Task name -> hard and soft limit in seconds, in place of those that it has in the code.
        self.time_limits: dict[str, tuple[float | None, float | None]] = {}

    def is_revoked(self, task_id: str, stamps: Mapping[str, object] | None = None) -> bool:
        """Whether the task is not to run: its id, or one of its *stamps*, was revoked.

        A stamp is a text, or several in a list.  Ask only if `revoked` or `revoked_headers` hold
        anything, where time matters.
        """
        if task_id in self.revoked:
            return True
        if not self.revoked_headers or not stamps:
            return False
        return any(
            value in values
            for name, values in self.revoked_headers.items()
            for value in texts(stamps.get(name))
        )

    def take(self, change: Change, now: float) -> None:
        """Remember *change*; ValueError where there are too many of its kind to remember."""
        match change:
            case Revoke(ids):
                self._revoke(self.revoked, ids, now)
            case RevokeStamped(stamps):
                for name, values in stamps.items():
                    if name not in self.revoked_headers:
                        self._room(self.revoked_headers, name, "stamps")
                    self._revoke(self.revoked_headers.setdefault(name, {}), values, now)
            case Pause(queue):
                self._room(self.paused, queue, "paused queues")
                self.paused.add(queue)
            case Resume(queue):
                self.paused.discard(queue)
            case LimitRate(task, rate):
                self._room(self.rate_limits, task, "rate limits")
                self.rate_limits[task] = rate
            case LimitTime(task, hard, soft):
                self._room(self.time_limits, task, "time limits")
                self.time_limits[task] = hard, soft

    def forget(self, now: float) -> None:
        """Drop what was revoked longer ago than `REVOKED_FOR`."""
        for known in (self.revoked, *self.revoked_headers.values()):
            _drop_before(known, now - REVOKED_FOR)
        for name in [name for name, values in self.revoked_headers.items() if not values]:
            del self.revoked_headers[name]

    def _revoke(self, known: dict[str, float], names: Iterable[str], now: float) -> None:
        for name in names:
            known.pop(name, None)  # so that it is the latest
            known[name] = now
        _drop_before(known, now - REVOKED_FOR)
        while len(known) > MOST_REVOKED:
            del known[next(iter(known))]

    def _room(self, known: Iterable[str] | Mapping[str, object], name: str, kind: str) -> None:
        if name not in known and len(known) >= MOST_NAMES:  # type: ignore[arg-type]
            raise ValueError(f"there are {MOST_NAMES:,} {kind} already, and no more is remembered")


def net(changes: Iterable[Change]) -> list[Change]:
    """What *changes* come to, made one after the other: of what was taken back, only the end."""
    ids: dict[str, None] = {}
    stamps: dict[str, dict[str, None]] = {}
    latest: dict[tuple[str, str], Change] = {}
    for change in changes:
        match change:
            case Revoke(several):
                ids |= dict.fromkeys(several)
            case RevokeStamped(several_stamps):
                for name, values in several_stamps.items():
                    stamps.setdefault(name, {}).update(dict.fromkeys(values))
            case Pause(queue) | Resume(queue):
                latest["queue", queue] = change
            case LimitRate(task) | LimitTime(task):
                latest[type(change).__name__, task] = change
    found = list(latest.values())
    if ids:
        found.append(Revoke(tuple(ids)))
    if stamps:
        found.append(RevokeStamped({name: tuple(values) for name, values in stamps.items()}))
    return found


def _drop_before(known: dict[str, float], moment: float) -> None:
    while known:
        oldest = next(iter(known))
        if known[oldest] >= moment:
            return
        del known[oldest]


def texts(values: object) -> tuple[str, ...]:
    """A stamp's values as texts: it may be one or several, of any type."""
    if values is None:
        return ()
    if isinstance(values, (list, tuple, set, frozenset)):
        return tuple(str(value) for value in values)
    return (str(values),)
