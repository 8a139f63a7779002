"""A schedule's changes in two tables of any database that SQLAlchemy knows, for many hosts.

Each statement is a transaction of its own and means the same when it is said twice.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from taskq.beat.base import Mark, Row, Run, StoreOptions, entry_to_text, read_row
from taskq.errors import BackendUnavailable
from taskq.schedules import Entry
from taskq.sqlengine import exc, open_engine, sa
from taskq.url import masked

_METADATA = sa.MetaData()

_ENTRY = sa.Table(
    "taskq_beat_entry",
    _METADATA,
    sa.Column("schedule", sa.String(155), primary_key=True),
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("entry", sa.Text),
    sa.Column("enabled", sa.Boolean),
    sa.Column("since", sa.Double),
    sa.Column("last_id", sa.String(255)),
    sa.Column("last_due", sa.Double),
    sa.Column("last_sent", sa.Double),
)
_SCHEDULE = sa.Table(
    "taskq_beat_schedule",
    _METADATA,
    sa.Column("schedule", sa.String(155), primary_key=True),
    sa.Column("changes", sa.Integer, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("pulse", sa.Integer, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)
_E, _S = _ENTRY.columns, _SCHEDULE.columns

#: So many runs are noted by one transaction.
_AT_ONCE = 500

#: Processes that make the tables at the same time get in each other's way at most this often.
_CREATE_ATTEMPTS = 6

Answer = TypeVar("Answer")


class SqlStore:
    """The tables of one database, made when first used."""

    shared = True

    def __init__(self, options: StoreOptions) -> None:
        self._schedule = options.schedule
        self._engine = open_engine(
            options.url, root=options.root, timeout=options.timeout, setting="beat_store"
        )
        self._is_made = False

    @property
    def url(self) -> str:
        return self._engine.url.render_as_string(hide_password=True)

    def attend(self) -> None:
        """Any number of hosts may use it."""

    def rows(self) -> list[Row]:
        query = sa.select(*list(_E)[1:]).where(self._ours).order_by(_E.name)
        rows = [
            read_row(name, entry, enabled, since, Run(*last) if last[0] else None)
            for name, entry, enabled, since, *last in self._run(
                lambda connection: connection.execute(query).all()
            )
        ]
        return [row for row in rows if row is not None]

    def changes(self) -> int:
        query = sa.select(_S.changes).where(_S.schedule == self._schedule)
        return self._run(lambda connection: connection.scalar(query)) or 0

    def put(self, entry: Entry, since: float) -> None:
        text = entry_to_text(entry)
        self._run(
            lambda connection: self._upsert(
                connection, entry.name, entry=text, enabled=None, since=since
            )
        )
        self._changed()

    def remove(self, name: str) -> bool:
        query = sa.select(_E.entry).where(self._ours, _E.name == name)
        delete = sa.delete(_ENTRY).where(self._ours, _E.name == name)
        had = self._run(lambda connection: connection.scalar(query)) is not None
        self._run(lambda connection: connection.execute(delete))
        self._changed()
        return had

    def enable(self, name: str, enabled: bool, since: float) -> None:
        self._run(lambda connection: self._upsert(connection, name, enabled=enabled, since=since))
        self._changed()

    def note(self, runs: Mapping[str, Run], *, by_hand: bool = False) -> None:
        noted: list[dict[str, Any]] = [
            {"key": name, "last_id": run.id, "last_due": run.due, "last_sent": run.sent}
            for name, run in runs.items()
        ]
        update = (
            sa.update(_ENTRY)
            .where(
                self._ours,
                _E.name == sa.bindparam("key"),
                sa.or_(_E.last_sent.is_(None), _E.last_sent <= sa.bindparam("last_sent")),
            )
            .values({name: sa.bindparam(name) for name in ("last_id", "last_due", "last_sent")})
        )
        known = self._run(
            lambda connection: set(connection.scalars(sa.select(_E.name).where(self._ours)))
        )
        there = [run for run in noted if run["key"] in known]
        for start in range(0, len(there), _AT_ONCE):
            self._run(partial(_execute_many, update, there[start : start + _AT_ONCE]))
        for run in noted:
            if (name := run.pop("key")) not in known:
                self._run(partial(self._upsert, name=name, **run))
        if by_hand:
            self._changed()

    def mark(self) -> Mark | None:
        query = sa.select(_S.epoch, _S.pulse, _S.note).where(
            _S.schedule == self._schedule, _S.epoch > 0
        )
        found = self._run(lambda connection: connection.execute(query).one_or_none())
        return Mark(*found) if found else None

    def take(self, seen: Mark | None, mark: Mark) -> bool:
        epoch, pulse = (seen.epoch, seen.pulse) if seen else (0, 0)
        self._make_row()
        return self._replace(mark, _S.epoch == epoch, _S.pulse == pulse)

    def keep(self, mark: Mark) -> bool:
        return self._replace(mark, _S.epoch == mark.epoch)

    def close(self) -> None:
        self._engine.dispose()

    # -- statements ----------------------------------------------------------------------------

    @property
    def _ours(self) -> sa.ColumnElement[bool]:
        return _E.schedule == self._schedule

    def _upsert(self, connection: sa.Connection, name: str, **values: Any) -> None:
        update = sa.update(_ENTRY).where(self._ours, _E.name == name).values(**values)
        insert = sa.insert(_ENTRY).values(schedule=self._schedule, name=name, **values)
        if not connection.execute(update).rowcount:
            try:
                connection.execute(insert)
            except exc.IntegrityError:  # somebody was quicker
                connection.execute(update)

    def _changed(self) -> None:
        self._make_row()
        update = sa.update(_SCHEDULE).where(_S.schedule == self._schedule)
        self._run(lambda connection: connection.execute(update.values(changes=_S.changes + 1)))

    def _make_row(self) -> None:
        def make(connection: sa.Connection) -> None:
            query = sa.select(_S.schedule).where(_S.schedule == self._schedule)
            if connection.scalar(query) is None:
                insert = sa.insert(_SCHEDULE).values(
                    schedule=self._schedule, changes=0, epoch=0, pulse=0, note=""
                )
                try:
                    connection.execute(insert)
                except exc.IntegrityError:
                    pass  # somebody was quicker

        self._run(make)

    def _replace(self, mark: Mark, *where: sa.ColumnElement[bool]) -> bool:
        update = sa.update(_SCHEDULE).where(_S.schedule == self._schedule, *where)
        values = {"epoch": mark.epoch, "pulse": mark.pulse, "note": mark.note}
        return self._run(lambda connection: connection.execute(update.values(values)).rowcount == 1)

    # -- the database --------------------------------------------------------------------------

    def _run(self, work: Callable[[sa.Connection], Answer]) -> Answer:
        try:
            try:
                return self._attempt(work)
            except exc.DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                # The server was restarted under a pooled connection, which says nothing of now.
                return self._attempt(work)
        except exc.SQLAlchemyError as error:
            words = " ".join(str(getattr(error, "orig", None) or error).split())
            raise BackendUnavailable(
                masked(f"the beat store {self.url} cannot be used: {words}")
            ) from error

    def _attempt(self, work: Callable[[sa.Connection], Answer]) -> Answer:
        with self._engine.connect() as connection:
            if not self._is_made:
                _make_tables(connection)
                self._is_made = True
            return work(connection)


def _execute_many(
    statement: sa.Update, rows: list[dict[str, Any]], connection: sa.Connection
) -> None:
    connection.execute(statement, rows)


def _make_tables(connection: sa.Connection) -> None:
    """Another process that does the same makes ours fail; the next attempt sees what is left."""
    for attempt in range(_CREATE_ATTEMPTS):
        try:
            _METADATA.create_all(connection)
            return
        except exc.DBAPIError as error:
            if error.connection_invalidated or attempt == _CREATE_ATTEMPTS - 1:
                raise
