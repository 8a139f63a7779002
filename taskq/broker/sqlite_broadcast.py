"""Messages for whoever listens, on the embedded broker: kept for seconds, in a table of their own.

Nothing is written while nobody listens.  Listeners say so in the file, again and again, and look
for what is new several times a second; a listener that died is forgotten by itself.
"""

import secrets
from collections.abc import Callable

from taskq import clock
from taskq.broker.exchange import topic_fits
from taskq.broker.sqlite_turn import STORAGE_ERRORS
from taskq.errors import BrokerUnavailable
from taskq.loop import Loop, Timer
from taskq.sqlitefile import SqliteFile
from taskq.wire.message import Message

SCHEMA = """
create table if not exists listener (name text primary key, exchange text, until real);
create table if not exists broadcast (
    id integer primary key autoincrement,
    at real not null,
    exchange text not null,
    routing_key text not null,
    properties blob not null,
    body blob not null
);
"""

#: How long (seconds) a message waits for a slow listener.
_TTL = 5.0
#: How long a sender believes what it knows of listeners, and a listener sleeps between two looks.
_MEMORY, _LOOK = 0.5, 0.1
#: A listener is there for so long after it last said so, and says so this often.
_PRESENCE, _REPEAT = 10.0, 3.0
#: What is broadcast waits no longer than this for other writers.
_PATIENCE = 0.05

_LISTENERS = "select distinct exchange from listener where until > ?"
_SAY = "insert into broadcast (at, exchange, routing_key, properties, body) values (?, ?, ?, ?, ?)"
_FORGET = "delete from broadcast where at < ?"
_LAST = "select coalesce(max(seq), 0) from sqlite_sequence where name = 'broadcast'"
_NEW = """
select id, routing_key, properties, body from broadcast where id > ? and exchange = ? order by id
"""
_COME = "insert or replace into listener values (?, ?, ?)"
_GO = "delete from listener where name = ? or until < ?"


class Broadcasts:
    """Writes to *file* what listeners want to hear; any thread may use it."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._exchanges: frozenset[str] = frozenset()
        #: When that is to be read again (monotonic).
        self._stale = 0.0

    def send(self, message: Message, exchange: str, routing_key: str) -> bool:
        """As `Outlet.broadcast`."""
        try:
            if exchange not in self._heard():
                return True
            now = clock.wall()
            with self._file.writing(_PATIENCE) as db:
                db.execute(_SAY, (now, exchange, routing_key, message.raw, message.body))
                db.execute(_FORGET, (now - _TTL,))
        except STORAGE_ERRORS:
            return False
        return True

    def _heard(self) -> frozenset[str]:
        if clock.monotonic() >= self._stale:
            with self._file.reading(_PATIENCE) as db:
                found = db.execute(_LISTENERS, (clock.wall(),)).fetchall()
            self._exchanges = frozenset(exchange for (exchange,) in found)
            self._stale = clock.monotonic() + _MEMORY
        return self._exchanges


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
        self._pattern = pattern
        self._on_message = on_message
        self._name = secrets.token_hex(8)
        self._repeat = 0.0
        self._timer: Timer
        self._is_open = True
        try:
            self._stay()
            with file.reading() as db:
                (self._last,) = db.execute(_LAST).fetchone()
        except STORAGE_ERRORS as error:
            raise BrokerUnavailable(f"{file.path} cannot be used: {error}") from error
        loop.add_callback(on_ready)
        self._look()

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
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
        self._timer = self._loop.call_later(_LOOK, self._look)
        try:
            if clock.monotonic() >= self._repeat:
                self._stay()
            with self._file.reading() as db:
                found = db.execute(_NEW, (self._last, self._exchange)).fetchall()
        except STORAGE_ERRORS:
            return  # busy, or away for a moment
        for self._last, routing_key, properties, body in found:
            if self._is_open and topic_fits(self._pattern, routing_key):
                self._on_message(Message(properties, body))
