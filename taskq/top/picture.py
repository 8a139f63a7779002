"""What is known of workers, queues and tasks at a moment, as tables to be sorted and filtered.

Pure: events, workers' answers and queues' numbers go in, and the time is told by who looks.  Names
and texts are as they came from outside; making them harmless is for who shows them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from taskq.broker import topology
from taskq.broker.base import Stock
from taskq.events.state import State, Task, Worker
from taskq.top.rates import Rate, Rise, percentile

#: So many runtimes of a task are looked at, and so many names of tasks are counted.
_RUNTIMES, _MOST_NAMES = 1_000, 1_000

#: What a cell holds; None for what nobody knows.
Value = str | float | None


class Column(NamedTuple):
    """A column: what stands above it, how a value of it looks, and what of it is on top."""

    heading: str
    show: Callable[[Any], str] = str
    least_first: bool = False
    #: It is left out where nothing at all is known, as some brokers do not tell it.
    is_optional: bool = False

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers, which stand on the right."""
        return self.show is not str


class Row(NamedTuple):
    """One line: what it is about (*key*), and the values of its columns."""

    key: str
    values: tuple[Value, ...]


class Table(NamedTuple):
    """A table, which is best sorted by the column *order*."""

    name: str
    columns: tuple[Column, ...]
    rows: list[Row]
    order: int

    def sorted(self, column: int | None, backwards: bool) -> "Table":
        """The same by *column* (None: as it is best), numbers mostly from the largest.

        Or *backwards*; what is unknown comes last.
        """
        at = self.order if column is None else column
        on_top = self.columns[at]
        known = [row for row in self.rows if row.values[at] is not None]
        unknown = [row for row in self.rows if row.values[at] is None]
        known.sort(key=lambda row: row.values[0] or "")  # so that equals do not jump about
        down = (on_top.is_number and not on_top.least_first) != backwards
        known.sort(key=lambda row: row.values[at], reverse=down)  # type: ignore[arg-type,return-value]
        return self._replace(rows=known + unknown)

    def filtered(self, text: str) -> "Table":
        """The rows in which *text* stands somewhere, in any case of letters."""
        wanted = text.casefold()
        rows = [row for row in self.rows if any(wanted in c.casefold() for c in self.cells(row))]
        return self._replace(rows=rows)

    @property
    def shown(self) -> list[int]:
        """The columns of which something is known, by their numbers."""
        return [
            at
            for at, column in enumerate(self.columns)
            if not column.is_optional or any(row.values[at] is not None for row in self.rows)
        ]

    def cells(self, row: Row) -> tuple[str, ...]:
        """What is shown of *row*."""
        return tuple(
            "-" if value is None else column.show(value)
            for column, value in zip(self.columns, row.values, strict=True)
        )


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _rate(value: float) -> str:
    return f"{value:,.1f}"


def _growth(value: float) -> str:
    return f"{value:+,.1f}"


def _seconds(value: float) -> str:
    """A span of time with three digits or so."""
    if value >= 3600:
        return f"{value // 3600:.0f}h{value % 3600 // 60:02.0f}m"
    if value >= 60:
        return f"{value // 60:.0f}m{value % 60:02.0f}s"
    return f"{value:.2f}s" if value >= 1 else f"{value * 1000:.2f}ms"


def _ago(value: float) -> str:
    return f"{max(0.0, value):.1f}s" if value < 60 else _seconds(value)


def _bytes(value: float) -> str:
    return f"{value / 2**20:,.0f}M"


_WORKERS = (
    Column("WORKER"),
    Column("STATE"),
    Column("CHILDREN", _count),
    Column("ACTIVE", _count),
    Column("DONE", _count),
    Column("RATE/s", _rate),
    Column("LOAD", _rate),
    Column("WINDOW", _count),
    Column("MEMORY", _bytes),
)
_QUEUES = (
    Column("QUEUE"),
    Column("STATE"),
    Column("READY", _count),
    Column("UNACKED", _count, is_optional=True),
    Column("CONSUMERS", _count, is_optional=True),
    Column("IN/s", _rate, is_optional=True),
    Column("OUT/s", _rate, is_optional=True),
    Column("GROWTH/s", _growth),
    Column("DEAD", _count),
)
_TASKS = (
    Column("TASK"),
    Column("RATE/s", _rate),
    Column("DONE", _count),
    Column("FAILED", _count),
    Column("RETRIED", _count),
    Column("P50", _seconds),
    Column("P95", _seconds),
)
_LATEST = (
    Column("ID"),
    Column("TASK"),
    Column("STATE"),
    Column("WORKER"),
    Column("RUNTIME", _seconds),
    Column("AGO", _ago, least_first=True),
)


@dataclass(slots=True)
class _Kind:
    """All tasks of one name since the beginning."""

    rate: Rate
    done: int = 0
    failed: int = 0
    retried: int = 0
    runtimes: deque[float] = field(default_factory=lambda: deque(maxlen=_RUNTIMES))


class Picture:
    """Everything that was heard and asked, from *since* (seconds since the epoch) on."""

    def __init__(self, since: float) -> None:
        self.state = State()
        self.rate = Rate(since)
        self._since = since
        self._kinds: dict[str, _Kind] = {}
        self._stats: Mapping[str, Any] = {}
        self._paused: set[object] = set()
        self._processed: dict[str, Rise] = {}
        self._queues: Sequence[str] = ()
        self._stocks: Mapping[str, Stock] = {}
        self._growth: dict[str, Rise] = {}

    # -- taking in ---------------------------------------------------------------------------

    def event(self, event: Mapping[str, Any], now: float) -> None:
        """Take in *event*, as a `Receiver` hands it out."""
        about = self.state.event(event)
        if isinstance(about, Task):
            self._on_task(about, event["type"], now)
        elif isinstance(about, Worker) and about.processed is not None:
            self._processed.setdefault(about.hostname, Rise()).see(about.processed, now)

    def _on_task(self, task: Task, kind: str, now: float) -> None:
        if kind not in ("task-succeeded", "task-failed", "task-retried"):
            return
        self.rate.add(now)
        if task.name is None:  # it was received before anybody listened
            return
        known = self._kinds.get(task.name)
        if known is None:
            if len(self._kinds) >= _MOST_NAMES:
                return
            known = self._kinds[task.name] = _Kind(Rate(self._since))
        known.rate.add(now)
        if kind == "task-succeeded":
            known.done += 1
            if task.runtime is not None:
                known.runtimes.append(task.runtime)
        elif kind == "task-failed":
            known.failed += 1
        else:
            known.retried += 1

    def answers(self, stats: Mapping[str, Any]) -> None:
        """What nodes say of themselves: their answers to `stats`."""
        self._stats = stats
        lists = [found(each, "taskq", "paused") for each in stats.values()]
        self._paused = {name for names in lists if isinstance(names, list) for name in names}

    def stocks(self, queues: Sequence[str], stocks: Mapping[str, Stock], now: float) -> None:
        """What the broker tells of *queues*, and of those for their dead letters."""
        self._queues, self._stocks = queues, stocks
        for queue in queues:
            if queue in stocks:
                self._growth.setdefault(queue, Rise()).see(stocks[queue].ready, now)
        for queue in self._growth.keys() - stocks.keys():
            del self._growth[queue]

    # -- showing -----------------------------------------------------------------------------

    def nodes(self, now: float) -> list[str]:
        """The workers that are there, as far as is known."""
        return sorted({*self._stats, *(each.hostname for each in self.state.alive_workers(now))})

    def tables(self, now: float) -> dict[str, Table]:
        """Name -> table, as things are at *now*."""
        tables = (
            Table("workers", _WORKERS, list(self._workers(now)), 0),
            Table("queues", _QUEUES, list(self._lines()), 0),
            Table("tasks", _TASKS, list(self._names(now)), 1),
            Table("latest", _LATEST, list(self._latest(now)), 5),
        )
        return {table.name: table for table in tables}

    def _workers(self, now: float) -> Iterable[Row]:
        for node in {**dict.fromkeys(self._stats), **dict.fromkeys(self.state.workers)}:
            heard = self.state.workers.get(node) or Worker(node)
            stats = self._stats.get(node)
            rise = self._processed.get(node)
            yield Row(
                node,
                (
                    node,
                    _condition(heard, stats, now),
                    _children(stats),
                    heard.active,
                    heard.processed,
                    rise.a_second() if rise else None,
                    heard.loadavg[0] if heard.loadavg else None,
                    _number(stats, "prefetch_count"),
                    _memory(stats),
                ),
            )

    def _lines(self) -> Iterable[Row]:
        for queue in self._queues:
            stock = self._stocks.get(queue) or Stock(queue, 0)
            dead = self._stocks.get(topology.dead(queue))
            rise = self._growth.get(queue)
            state = "paused" if queue in self._paused else "open"
            yield Row(
                queue,
                (
                    queue,
                    state if queue in self._stocks else "none",
                    stock.ready if queue in self._stocks else None,
                    stock.unacked,
                    stock.consumers,
                    stock.arriving,
                    stock.leaving,
                    rise.a_second() if rise else None,
                    dead.ready if dead else None,
                ),
            )

    def _names(self, now: float) -> Iterable[Row]:
        for name, kind in self._kinds.items():
            runtimes = list(kind.runtimes)
            yield Row(
                name,
                (
                    name,
                    kind.rate.a_second(now),
                    kind.done,
                    kind.failed,
                    kind.retried,
                    percentile(runtimes, 0.5),
                    percentile(runtimes, 0.95),
                ),
            )

    def _latest(self, now: float) -> Iterable[Row]:
        for uuid, task in self.state.tasks_by_time(_SHOWN):
            yield Row(
                uuid,
                (uuid, task.name, task.state, task.hostname, task.runtime, now - task.timestamp),
            )


#: So many of the latest tasks are looked at.
_SHOWN = 500


def _condition(worker: Worker, stats: object, now: float) -> str:
    if stats is None:
        if worker.is_offline:
            return "offline"
        return "online" if worker.is_alive(now) else "silent"
    return "draining" if found(stats, "taskq", "draining") is True else "online"


def _children(stats: object) -> float | None:
    most = _number(stats, "pool", "max-concurrency")
    if most is not None:
        return most
    processes = found(stats, "pool", "processes")
    return len(processes) if isinstance(processes, list) else None


def _memory(stats: object) -> float | None:
    kibibytes = _number(stats, "rusage", "maxrss")
    return None if kibibytes is None else kibibytes * 1024


def _number(stats: object, *path: str) -> float | None:
    value = found(stats, *path)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def found(stats: object, *path: str) -> object:
    """What stands at *path* in an answer, which may be anybody's."""
    for name in path:
        stats = stats.get(name) if isinstance(stats, Mapping) else None
    return stats
