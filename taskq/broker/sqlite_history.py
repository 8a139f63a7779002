"""The log of what was told to all, in the embedded broker's file, for who comes later.

Bounded in age and number, whoever writes to it.  What is told, and to whom it is news, is the
business of `sqlite_broadcast`.
"""

import sqlite3
from collections.abc import Callable

from taskq import clock
from taskq.broker.sqlite_turn import STORAGE_ERRORS
from taskq.broker.topology import LOG_AGE, LOG_LENGTH
from taskq.log import event
from taskq.loop import Loop
from taskq.sqlitefile import SqliteFile
from taskq.wire.message import Message

SCHEMA = """
create table if not exists history (
    id integer primary key autoincrement,
    at real not null,
    log text not null,
    properties blob not null,
    body blob not null
);
"""

#: So many messages are played in one turn of the loop.
_SLICE = 1000

_KEEP = "insert into history (at, log, properties, body) values (?, ?, ?, ?)"
#: They are old in the order of their ids, so it is enough to look at some of the first.
_FORGET_OLD = """
delete from history where id in (
    select id from (select id, at from history order by id limit 100) where at < ?
)
"""
_FORGET_MANY = "delete from history where id <= (select max(id) from history) - ?"
_KEPT = """
select id, properties, body from history where log = ? and id > ? and at >= ? order by id limit ?
"""


def keep(db: sqlite3.Connection, log: str, message: Message) -> None:
    """Write *message* into *log*, in the transaction of *db*."""
    now = clock.wall()
    db.execute(_KEEP, (now, log, message.raw, message.body))
    db.execute(_FORGET_OLD, (now - LOG_AGE,))
    db.execute(_FORGET_MANY, (LOG_LENGTH,))


class History:
    """Plays the log *name* from its beginning to its end, once."""

    def __init__(
        self,
        loop: Loop,
        file: SqliteFile,
        name: str,
        on_message: Callable[[Message], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._file = file
        self._name = name
        self._on_message = on_message
        self._on_ready = on_ready
        self._begin = clock.wall() - LOG_AGE
        self._last = 0
        self._is_open = True
        loop.add_callback(self._play)

    def close(self) -> None:
        self._is_open = False

    def _play(self) -> None:
        try:
            with self._file.reading() as db:
                found = db.execute(_KEPT, (self._name, self._last, self._begin, _SLICE)).fetchall()
        except STORAGE_ERRORS as error:
            event("log-unusable", log=self._name, reason=f"{self._file.path}: {error}")
            found = []
        for self._last, properties, body in found:
            if self._is_open:
                self._on_message(Message(properties, body))
        if not self._is_open:
            return
        if len(found) == _SLICE:
            self._loop.add_callback(self._play)
        else:
            self._is_open = False
            self._on_ready()
