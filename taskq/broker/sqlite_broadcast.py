"""Messages for whoever listens, on the embedded broker: kept for a while, in a table of their own.

Nothing is written while nobody listens.  Listeners say so in the file, again and again; one that
died is forgotten by itself.  For commands and replies, somebody waits: a bell of their own, a file
beside that of the queues, tells that there is one.  Events are many, and looked for now and then.
"""

import os
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from taskq import clock
from taskq.broker import sqlite_history as history
from taskq.broker.base import Route
from taskq.broker.doorbell import Doorbell
from taskq.broker.exchange import fits
from taskq.broker.sqlite_turn import STORAGE_ERRORS, not_written
from taskq.broker.topology import told
from taskq.errors import BrokerUnavailable, PublishRefused
from taskq.loop import Loop, Timer
from taskq.sqlitefile import SqliteFile
from taskq.wire.message import Message

SCHEMA = """
create table if not exists listener (name text primary key, exchange text, until real);
create table if not exists news (
    id integer primary key autoincrement,
    until real not null,
    exchange text not null,
    routing_key text not null,
    properties blob not null,
    body blob not null
);
create index if not exists news_exchange on news (exchange, id);
"""

#: How long (seconds) a message waits for a slow listener: an event, and anything else.
_EVENT_TTL, _TTL = 5.0, 300.0
#: What is over is removed this often by who sends.
_SWEEP = 1.0
#: How long a sender of events believes what it knows of listeners.
_MEMORY = 0.5
#: A listener looks this often for what is new, where there is a bell and where there is none.
_LOOK, _LOOK_UNBIDDEN = 1.0, 0.1
#: A listener is there for so long after it last said so, and says so this often.
_PRESENCE, _REPEAT = 10.0, 3.0
#: What is broadcast waits no longer than this for other writers.
_PATIENCE = 0.05

_LISTENERS = "select distinct exchange from listener where until > ?"
_SAY = "insert into news (until, exchange, routing_key, properties, body) values (?, ?, ?, ?, ?)"
_SWEEP_OUT = "delete from news where until < ?"
_LAST = "select coalesce(max(seq), 0) from sqlite_sequence where name = 'news'"
_NEW = """
select id, routing_key, properties, body from news where id > ? and exchange = ? order by id
"""
_COME = "insert or replace into listener values (?, ?, ?)"
_GO = "delete from listener where name = ? or until < ?"


class Broadcasts:
    """Writes to *file* what listeners want to hear; any thread may use it."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._exchanges: frozenset[str] = frozenset()
        #: When that is to be read again, and when there is to be swept (monotonic).
        self._stale = self._unswept = 0.0

    def send(self, message: Message, exchange: str, routing_key: str) -> bool:
        """As `Outlet.broadcast`."""
        try:
            if not self._is_heard(exchange):
                return True
            with self._file.writing(_PATIENCE) as db:
                self._say(db, message, exchange, routing_key)
        except STORAGE_ERRORS:
            return False
        if not _is_for_events(exchange):
            _ring(self._file)
        return True

    def keep(self, message: Message, route: Route, timeout: float) -> PublishRefused | None:
        """Send *message* to who listens, and write it into the log that *route* leads to.

        Returns when that is committed, or says why it could not be in *timeout* seconds.
        """
        assert route.log is not None
        try:
            with self._file.writing(timeout) as db:
                history.keep(db, route.log, message)
                self._say(db, message, route.exchange, route.routing_key)
        except STORAGE_ERRORS as error:
            return not_written(self._file.path, error)
        _ring(self._file)
        return None

    def _say(
        self, db: sqlite3.Connection, message: Message, exchange: str, routing_key: str
    ) -> None:
        now = clock.wall()
        until = now + (_EVENT_TTL if _is_for_events(exchange) else _TTL)
        db.execute(_SAY, (until, exchange, routing_key, message.raw, message.body))
        if clock.monotonic() >= self._unswept:
            db.execute(_SWEEP_OUT, (now,))
            self._unswept = clock.monotonic() + _SWEEP

    def _is_heard(self, exchange: str) -> bool:
        # Who has just asked a question waits for the answer; a monitor may miss the first events.
        if not _is_for_events(exchange) or clock.monotonic() >= self._stale:
            with self._file.reading(_PATIENCE) as db:
                found = db.execute(_LISTENERS, (clock.wall(),)).fetchall()
            self._exchanges = frozenset(exchange for (exchange,) in found)
            self._stale = clock.monotonic() + _MEMORY
        return exchange in self._exchanges


class Listening:
    """Reads what is broadcast to *exchange* from now on, until it is closed."""

    def __init__(
        self,
        loop: Loop,
        file: SqliteFile,
        exchange: str,
        pattern: str,
        on_message: Callable[[Message], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._file = file
        self._exchange = exchange
        self._kind = told(exchange).type
        self._pattern = pattern
        self._on_message = on_message
        self._name = secrets.token_hex(8)
        self._repeat = 0.0
        self._timer: Timer | None = None
        self._is_open = True
        try:
            self._stay()
            with file.reading() as db:
                (self._last,) = db.execute(_LAST).fetchone()
        except STORAGE_ERRORS as error:
            raise BrokerUnavailable(f"{file.path} cannot be used: {error}") from error
        self._bell = None
        if not _is_for_events(exchange):
            _ring(file)  # so that there is one
            self._bell = Doorbell(loop, _bell(file), self._look)
        self._interval = _LOOK if self._bell and self._bell.works else _LOOK_UNBIDDEN
        loop.add_callback(on_ready)
        self._look()

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        if self._bell is not None:
            self._bell.close()
        if self._timer is not None:
            self._timer.cancel()
        try:
            with self._file.writing() as db:
                db.execute(_GO, (self._name, clock.wall()))
        except STORAGE_ERRORS:
            pass  # it is forgotten in a while

    def _stay(self) -> None:
        with self._file.writing() as db:
            db.execute(_COME, (self._name, self._exchange, clock.wall() + _PRESENCE))
        self._repeat = clock.monotonic() + _REPEAT

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._interval, self._look)
        try:
            if clock.monotonic() >= self._repeat:
                self._stay()
            with self._file.reading() as db:
                found = db.execute(_NEW, (self._last, self._exchange)).fetchall()
        except STORAGE_ERRORS:
            return  # busy, or away for a moment
        for self._last, routing_key, properties, body in found:
            if self._is_open and fits(self._kind, self._pattern, routing_key):
                self._on_message(Message(properties, body))


def _is_for_events(exchange: str) -> bool:
    return told(exchange).type == "topic"


def _bell(file: SqliteFile) -> Path:
    return Path(f"{file.path}-ears")


def _ring(file: SqliteFile) -> None:
    with suppress(OSError):  # who listens looks now and then anyway
        bell = os.open(_bell(file), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.pwrite(bell, b"\0", 0)
        finally:
            os.close(bell)
