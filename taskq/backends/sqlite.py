"""Results in one SQLite file, for the processes of one host, with the standard library alone.

The file may be the embedded broker's; the table `result` is ours.  How processes take turns at a
file, and how it survives a fork, is for `sqlitefile`.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from taskq import clock, states
from taskq.backends.base import (
    Backend,
    BackendOptions,
    OnReady,
    Subscriptions,
    in_forked_child,
    reporting,
    unreadable,
)
from taskq.backends.watch import Watch
from taskq.errors import MessageMalformed
from taskq.sqlitefile import SqliteFile, location
from taskq.wire import result as wire
from taskq.wire.result import Result

#: Expired results are looked for this often, in seconds ...
_SWEEP_INTERVAL = 300.0
#: ... and deleted so many at a time, lest other writers wait; a full slice calls for the next.
_SWEEP_SLICE = 500

#: The pauses of a process that waits for results, in seconds.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02

_SCHEMA = """
    create table if not exists result (
        task_id text primary key,
        state text not null,
        expires real,
        content_type text not null,
        body blob not null
    ) without rowid;
    create index if not exists result_expires on result (expires) where expires is not null;
"""
#: The condition makes SUCCESS final, for as long as it is kept.
_STORE = """
    insert into result (task_id, state, expires, content_type, body) values (?, ?, ?, ?, ?)
    on conflict (task_id) do update set
        state = excluded.state, expires = excluded.expires,
        content_type = excluded.content_type, body = excluded.body
    where result.state <> 'SUCCESS' or result.expires <= ?
"""
_FETCH = """
    select content_type, body from result
    where task_id = ? and (expires is null or expires > ?)
"""
#: json_each lets one prepared statement serve any number of ids.
_LOOK = f"""
    select task_id, content_type, body from result
    where task_id in (select value from json_each(?)) and (expires is null or expires > ?)
        and state in ({", ".join(f"'{state}'" for state in sorted(states.READY_STATES))})
"""
_FORGET = "delete from result where task_id = ?"
_SWEEP = f"""
    delete from result where task_id in
        (select task_id from result where expires <= ? limit {_SWEEP_SLICE})
"""


class SqliteBackend(Backend):
    """The table `result` of one file."""

    def __init__(self, options: BackendOptions) -> None:
        self._options = options
        self._timeout = options.timeout
        path, synchronous = location(options.url, options.root)
        self._file = SqliteFile(path, _SCHEMA, synchronous)
        self._next_sweep = 0.0
        #: The connection and its `data_version` at the last look, which changes when another
        #: connection commits; None after a commit of our own.  Written while the file is held.
        self._seen: tuple[sqlite3.Connection, int] | None = None
        self._wait_for_nobody()
        in_forked_child(self._wait_for_nobody)

    def store(self, result: Result, *, reply_to: str | None = None) -> None:
        encoded = wire.encode(result, self._options.serializer)
        now = clock.wall()
        expires = now + self._options.expires if self._options.expires else None
        row = (result.task_id, result.state, expires, encoded.content_type, encoded.body)
        with self._reporting("store", result.task_id), self._file.writing(self._timeout) as db:
            db.execute(_STORE, (*row, now))
            if now >= self._next_sweep:
                full = db.execute(_SWEEP, (now,)).rowcount == _SWEEP_SLICE
                self._next_sweep = now if full else now + _SWEEP_INTERVAL
            self._seen = None
        if result.task_id in self._waiting:
            self._watch.wake()

    def fetch(self, task_id: str) -> Result | None:
        with self._reporting("fetch", task_id), self._file.reading(self._timeout) as db:
            found = db.execute(_FETCH, (task_id, clock.wall())).fetchone()
        return self._decode(*found) if found else None

    def forget(self, task_id: str) -> None:
        with self._reporting("forget", task_id), self._file.writing(self._timeout) as db:
            db.execute(_FORGET, (task_id,))

    def subscribe(
        self, task_id: str, on_ready: OnReady, *, fresh: bool = False
    ) -> Callable[[], None]:
        waiting = self._waiting
        waiting.begin(task_id, on_ready, self.fetch)
        if task_id in waiting:
            self._watch.wake()
        return lambda: waiting.remove(task_id, on_ready)

    def close(self) -> None:
        self._watch.close()
        self._file.close()

    def _reporting(self, doing: str, task_id: str) -> AbstractContextManager[None]:
        return reporting(doing, task_id, f"file {self._file.path}", sqlite3.Error, OSError)

    def _decode(self, content_type: str, body: bytes) -> Result:
        return wire.decode(body, content_type, None, self._options.accept)

    # -- waiting -----------------------------------------------------------------------------

    def _wait_for_nobody(self) -> None:
        self._waiting = Subscriptions()
        self._watch = Watch(
            self._waiting, self._look, shortest=_SHORTEST_PAUSE, longest=_LONGEST_PAUSE
        )
        self._seen = None

    def _look(self) -> Iterable[Result]:
        with self._reporting("await", "any"), self._file.reading(self._timeout) as db:
            seen = db, db.execute("pragma data_version").fetchone()[0]
            if seen == self._seen:
                return []
            ids = json.dumps(self._waiting.ids())
            found = db.execute(_LOOK, (ids, clock.wall())).fetchall()
            self._seen = seen
        return [self._decode_awaited(*row) for row in found]

    def _decode_awaited(self, task_id: str, content_type: str, body: bytes) -> Result:
        try:
            return self._decode(content_type, body)
        except MessageMalformed as error:
            return unreadable(task_id, error)
