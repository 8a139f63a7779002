"""A schedule's changes in one SQLite file, for the beats of one host.

The file may be the embedded broker's; the tables `beat_...` are ours.  How processes take turns at
a file is for `sqlitefile`; that works on one host only, so beats of a second one are refused.
"""

import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from taskq import clock
from taskq.beat.base import Mark, Row, Run, StoreOptions, entry_to_text, read_row
from taskq.errors import BackendUnavailable, ConfigurationError
from taskq.schedules import Entry
from taskq.sqlitefile import SqliteFile, location

#: A host that said nothing for so long (seconds) is gone, and another may take the file over; it
#: says so this often.
_GONE, _SAYING = 30.0, 5.0

_SCHEMA = """
    create table if not exists beat_entry (
        schedule text not null, name text not null,
        entry text, enabled integer, since real,
        last_id text, last_due real, last_sent real,
        primary key (schedule, name)
    ) without rowid;
    create table if not exists beat_schedule (
        schedule text primary key, changes integer not null default 0,
        epoch integer, pulse integer, note text
    ) without rowid;
    create table if not exists beat_host (
        only integer primary key check (only = 1), name text not null, boot text, seen real not null
    );
"""
_ROWS = """
    select name, entry, enabled, since, last_id, last_due, last_sent
    from beat_entry where schedule = ? order by name
"""
_PUT = """
    insert into beat_entry (schedule, name, entry, since) values (?, ?, ?, ?)
    on conflict do update set entry = excluded.entry, enabled = null, since = excluded.since
"""
_IS_ADDED = "select 1 from beat_entry where schedule = ? and name = ? and entry is not null"
_REMOVE = "delete from beat_entry where schedule = ? and name = ?"
_ENABLE = """
    insert into beat_entry (schedule, name, enabled, since) values (?, ?, ?, ?)
    on conflict do update set enabled = excluded.enabled, since = excluded.since
"""
_NOTE = """
    insert into beat_entry (schedule, name, last_id, last_due, last_sent) values (?, ?, ?, ?, ?)
    on conflict do update set
        last_id = excluded.last_id, last_due = excluded.last_due, last_sent = excluded.last_sent
    where last_sent is null or last_sent <= excluded.last_sent
"""
_CHANGED = """
    insert into beat_schedule (schedule, changes) values (?, 1)
    on conflict do update set changes = changes + 1
"""
_CHANGES = "select changes from beat_schedule where schedule = ?"
_MARK = "select epoch, pulse, note from beat_schedule where schedule = ? and epoch is not null"
_TAKE_FIRST = """
    insert into beat_schedule (schedule, epoch, pulse, note) values (?, ?, ?, ?)
    on conflict do update set epoch = excluded.epoch, pulse = excluded.pulse, note = excluded.note
        where beat_schedule.epoch is null
"""
_TAKE = """
    update beat_schedule set epoch = ?, pulse = ?, note = ?
    where schedule = ? and epoch = ? and pulse = ?
"""
_KEEP = "update beat_schedule set pulse = ?, note = ? where schedule = ? and epoch = ?"
_HOST = "select name, boot, seen from beat_host"
_SAY = "insert or replace into beat_host (only, name, boot, seen) values (1, ?, ?, ?)"


class SqliteStore:
    """The tables of one file, made when first used."""

    shared = False

    def __init__(self, options: StoreOptions, *, host: tuple[str, str] | None = None) -> None:
        path, synchronous = location(options.url, options.root)
        self._file = SqliteFile(path, _SCHEMA, synchronous)
        self._schedule = options.schedule
        self._timeout = options.timeout
        self._host = host or this_host()
        self._said = 0.0

    @property
    def url(self) -> str:
        return f"sqlite:///{self._file.path}"

    def attend(self) -> None:
        now = clock.wall()
        if 0 <= now - self._said < _SAYING:
            return
        name, boot = self._host
        with self._writing() as db:
            there = db.execute(_HOST).fetchone()
            if there and name != there[0] and boot != there[1] and abs(now - there[2]) < _GONE:
                raise ConfigurationError(
                    f"the beat store {self.url} is in use by host {there[0]!r}, and SQLite cannot "
                    "be shared between hosts: set beat_store to a database or to Redis"
                )
            db.execute(_SAY, (name, boot, now))
        self._said = now

    def rows(self) -> list[Row]:
        with self._reading() as db:
            found = db.execute(_ROWS, (self._schedule,)).fetchall()
        rows = [
            read_row(name, entry, enabled, since, Run(*last) if last[0] else None)
            for name, entry, enabled, since, *last in found
        ]
        return [row for row in rows if row is not None]

    def changes(self) -> int:
        with self._reading() as db:
            found = db.execute(_CHANGES, (self._schedule,)).fetchone()
        return int(found[0]) if found else 0

    def put(self, entry: Entry, since: float) -> None:
        text = entry_to_text(entry)
        with self._changing() as db:
            db.execute(_PUT, (self._schedule, entry.name, text, since))

    def remove(self, name: str) -> bool:
        with self._changing() as db:
            added = db.execute(_IS_ADDED, (self._schedule, name)).fetchone()
            db.execute(_REMOVE, (self._schedule, name))
        return added is not None

    def enable(self, name: str, enabled: bool, since: float) -> None:
        with self._changing() as db:
            db.execute(_ENABLE, (self._schedule, name, enabled, since))

    def note(self, runs: Mapping[str, Run], *, by_hand: bool = False) -> None:
        with self._changing() if by_hand else self._writing() as db:
            db.executemany(_NOTE, [(self._schedule, name, *run) for name, run in runs.items()])

    def mark(self) -> Mark | None:
        with self._reading() as db:
            found = db.execute(_MARK, (self._schedule,)).fetchone()
        return Mark(*found) if found else None

    def take(self, seen: Mark | None, mark: Mark) -> bool:
        with self._writing() as db:
            if seen is None:
                done = db.execute(_TAKE_FIRST, (self._schedule, *mark))
            else:
                done = db.execute(_TAKE, (*mark, self._schedule, seen.epoch, seen.pulse))
            return done.rowcount == 1

    def keep(self, mark: Mark) -> bool:
        with self._writing() as db:
            given = mark.pulse, mark.note, self._schedule, mark.epoch
            return db.execute(_KEEP, given).rowcount == 1

    def close(self) -> None:
        self._file.close()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._writing() as db:
            yield db
            db.execute(_CHANGED, (self._schedule,))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reporting(), self._file.writing(self._timeout) as db:
            yield db

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._reporting(), self._file.reading(self._timeout) as db:
            yield db

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise BackendUnavailable(
                f"the beat store {self.url} cannot be used: {error}; see that this user may write "
                "there, or set beat_store"
            ) from error


@cache
def this_host() -> tuple[str, str]:
    """The name of this host, and that of its kernel's life, which its containers share.

    Either is enough to know it again: a container has another name each time, and after a reboot
    the kernel has.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")  # Linux
    name = socket.gethostname()
    return name, boot.read_text().strip() if boot.exists() else name
