"""Queues of the embedded broker seen from outside: counted, purged and deleted in one transaction.

Whoever takes messages promotes, expires and buries; where nobody does, what is counted here is what
the next one who takes would find.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from taskq import clock
from taskq.broker import sqlite_rows as rows
from taskq.broker.base import Stock
from taskq.broker.sqlite_owner import Owners
from taskq.broker.sqlite_turn import STORAGE_ERRORS
from taskq.errors import BrokerUnavailable, QueueError
from taskq.sqlitefile import SqliteFile

#: Ids below this (the year 2001) are of rows from before ids told the time.
_EARLIEST = 1e9


class SqliteKeeper:
    """Looks into *file*; what lives out its time is kept *dead_letter_ttl* seconds more."""

    def __init__(self, file: SqliteFile, dead_letter_ttl: float) -> None:
        self._file = file
        self._alive = Owners.of(file.path).alive
        self._dead_letter_ttl = dead_letter_ttl

    def look(self, queues: Sequence[str]) -> dict[str, Stock]:
        with self._reading() as db:
            stocks = (_stock(db, queue, *self._count(db, queue)) for queue in queues)
            return {stock.queue: stock for stock in stocks if stock}

    def count(self, queue: str) -> int:
        """How many messages are ready in *queue*, 0 if there is none."""
        with self._reading() as db:
            return self._count(db, queue)[0]

    def delayed(self) -> int:
        with self._reading() as db:
            return int(_ask(db, rows.DELAYED, None))

    def purge(self, queue: str) -> int:
        with self._changing(queue) as db:
            return db.execute(rows.PURGE, _given(queue)).rowcount

    def delete(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> None:
        with self._changing(queue) as db:
            ready, held = self._count(db, queue)
            if if_unused and held:  # the file does not know who would take more
                raise QueueError(f"queue {queue!r} is in use: {held} of its messages are held")
            if if_empty and ready:
                raise QueueError(f"queue {queue!r} is not empty: it has {ready} messages")
            for statement in rows.DELETE:
                db.execute(statement, _given(queue))

    def close(self) -> None:
        """The file belongs to the broker."""

    def _count(self, db: sqlite3.Connection, queue: str) -> tuple[int, int]:
        """How many messages of *queue* are ready, and how many are held."""
        given = queue, clock.wall()
        (ready,) = db.execute(rows.COUNT, given).fetchone()
        held = 0
        for owner, number in db.execute(rows.HELD, given).fetchall():
            if self._alive(owner):
                held += number
            else:  # what the dead hold is ready: the next one who takes will bury them
                ready += number
        return ready, held

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._file.reading() as db:
                yield db
        except STORAGE_ERRORS as error:
            raise BrokerUnavailable(f"{self._file.path} cannot be read: {error}") from error

    @contextmanager
    def _changing(self, queue: str) -> Iterator[sqlite3.Connection]:
        """A transaction in which all is where it belongs by now; QueueError without the queue."""
        try:
            with self._file.writing() as db:
                if not _ask(db, rows.EXISTS, queue):
                    raise QueueError(f"there is no queue {queue!r} in {self._file.path}")
                now = clock.wall()
                died = [each for each in db.execute(rows.OWNERS) if not self._alive(each[0])]
                db.executemany(rows.BURY, died)
                db.execute(rows.VANISH, (now,))
                db.execute(rows.EXPIRE, (now + self._dead_letter_ttl, now)).fetchall()
                yield db
        except STORAGE_ERRORS as error:
            raise BrokerUnavailable(f"{self._file.path} cannot be written: {error}") from error


def _stock(db: sqlite3.Connection, queue: str, ready: int, held: int) -> Stock | None:
    if not _ask(db, rows.EXISTS, queue):
        return None
    oldest = _ask(db, rows.OLDEST, queue)
    known = oldest is not None and oldest >= _EARLIEST
    return Stock(
        queue,
        ready,
        held,
        type="sqlite",
        oldest=oldest if known else None,
        delayed=_ask(db, rows.DELAYED, queue),
    )


def _ask(db: sqlite3.Connection, question: str, queue: str | None) -> Any:
    (answer,) = db.execute(question, _given(queue)).fetchone()
    return answer


def _given(queue: str | None) -> dict[str, str | float | None]:
    return {"queue": queue, "now": clock.wall()}
