"""Results in a table of any database that SQLAlchemy knows, in Celery's form and under its name.

A database does not push: processes that wait ask for all awaited results at once, each *interval*.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from taskq import clock, states
from taskq.backends.base import (
    Backend,
    BackendOptions,
    OnReady,
    Subscriptions,
    in_forked_child,
    reporting,
    unforked,
    unreadable,
)
from taskq.backends.watch import Watch
from taskq.errors import BackendUnavailable, MessageMalformed
from taskq.sqlengine import exc, open_engine, sa
from taskq.wire import codec
from taskq.wire.result import Result

#: Expired results are looked for this often, in seconds, and deleted so many at a time; a full
#: slice calls for the next.
_SWEEP_INTERVAL, _SWEEP_SLICE = 300.0, 500

#: So many ids are asked for by one query; every database takes that many parameters.
_IDS = 500

#: Processes that make the table at the same time get in each other's way at most this often.
_CREATE_ATTEMPTS = 6

#: Celery's table, with the columns that only `result_extended` fills.
_TABLE = sa.Table(
    "celery_taskmeta",
    sa.MetaData(),
    sa.Column("id", sa.Integer, sa.Sequence("task_id_sequence"), primary_key=True),
    sa.Column("task_id", sa.String(155), unique=True),
    sa.Column("status", sa.String(50)),
    sa.Column("result", sa.LargeBinary),
    sa.Column("date_done", sa.DateTime, index=True),
    sa.Column("traceback", sa.Text),
    sa.Column("children", sa.LargeBinary),
    sa.Column("name", sa.String(155)),
    sa.Column("args", sa.LargeBinary),
    sa.Column("kwargs", sa.LargeBinary),
    sa.Column("worker", sa.String(155)),
    sa.Column("retries", sa.Integer),
    sa.Column("queue", sa.String(155)),
    sa.Column("stamps", sa.LargeBinary),
)
_COLUMNS = _TABLE.columns
_READ = list(_COLUMNS)[1:7]  # task_id ... children

Answer = TypeVar("Answer")


class SqlBackend(Backend):
    """The table `celery_taskmeta` of one database, made when first used."""

    def __init__(self, options: BackendOptions) -> None:
        self._options = options
        self._content_type = codec.dumps(None, options.serializer).content_type
        self._engine = open_engine(
            options.url, root=options.root, timeout=options.timeout, setting="result_backend"
        )
        self._name = self._engine.url.render_as_string(hide_password=True)
        # No thread is to be inside SQLite's library when this process forks: the child would find
        # its global lock taken, for ever.
        self._entry: AbstractContextManager[object] = nullcontext()
        if self._engine.dialect.name == "sqlite":
            self._entry = unforked()
        self._table_made = False
        self._next_sweep = 0.0
        self._wait_for_nobody()
        in_forked_child(self._in_child)

    def _wait_for_nobody(self) -> None:
        self._waiting = Subscriptions()
        interval = self._options.interval
        self._watch = Watch(self._waiting, self._look, shortest=interval, longest=interval)

    def _in_child(self) -> None:
        self._inherited = self._engine.pool  # connections of the parent: not ours to close
        self._engine.dispose(close=False)
        self._wait_for_nobody()

    def store(self, result: Result, *, reply_to: str | None = None) -> None:
        row = self._encode(result)
        insert = sa.insert(_TABLE).values(task_id=result.task_id, **row)
        # The update waits for the row's lock and then looks at its state again, so SUCCESS is final
        # whoever comes when.
        is_open = sa.or_(_COLUMNS.status != states.SUCCESS, self._is_expired())
        update = sa.update(_TABLE).where(_COLUMNS.task_id == result.task_id, is_open).values(row)

        def upsert(connection: sa.Connection) -> None:
            if not connection.execute(update).rowcount:
                try:
                    connection.execute(insert)
                except exc.IntegrityError:  # somebody was quicker, or SUCCESS stands there
                    connection.execute(update)

        self._run("store", result.task_id, upsert)
        if result.task_id in self._waiting:
            self._watch.wake()
        self._sweep()

    def fetch(self, task_id: str) -> Result | None:
        rows = self._select("fetch", task_id, _COLUMNS.task_id == task_id)
        return self._decode(rows[0]) if rows else None

    def forget(self, task_id: str) -> None:
        delete = sa.delete(_TABLE).where(_COLUMNS.task_id == task_id)
        self._run("forget", task_id, lambda connection: connection.execute(delete))

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
        self._engine.dispose()

    def _look(self) -> Iterable[Result]:
        ids = self._waiting.ids()
        is_ready = _COLUMNS.status.in_(sorted(states.READY_STATES))
        for start in range(0, len(ids), _IDS):
            is_awaited = _COLUMNS.task_id.in_(ids[start : start + _IDS])
            for row in self._select("await", "any", is_ready, is_awaited):
                try:
                    yield self._decode(row)
                except MessageMalformed as error:
                    yield unreadable(row.task_id, error)

    # -- rows --------------------------------------------------------------------------------

    def _encode(self, result: Result) -> dict[str, Any]:
        def encoded(value: Any) -> bytes:
            return codec.dumps(value, self._options.serializer).body

        return {
            "status": result.state,
            "result": encoded(result.value),
            "date_done": _moment(result.date_done),
            "traceback": _text(result.traceback),
            "children": None if result.children is None else encoded(result.children),
        }

    def _decode(self, row: sa.Row[Any]) -> Result:
        def decoded(body: bytes | None) -> Any:
            accept = self._options.accept
            return None if body is None else codec.loads(body, self._content_type, None, accept)

        is_done = row.date_done is not None and row.status in states.READY_STATES
        return Result(
            task_id=row.task_id,
            state=row.status,
            value=decoded(row.result),
            traceback=row.traceback,
            date_done=row.date_done.replace(tzinfo=UTC).isoformat() if is_done else None,
            children=decoded(row.children),
        )

    def _is_expired(self) -> sa.ColumnElement[bool]:
        expires = self._options.expires
        cutoff = clock.wall() - expires if expires else 0.0
        return _COLUMNS.date_done <= clock.utc(cutoff).replace(tzinfo=None)

    def _sweep(self) -> None:
        now = clock.wall()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_INTERVAL
            with suppress(BackendUnavailable):  # the result that brought us here is stored
                if self._run("remove", "any", self._delete_slice) == _SWEEP_SLICE:
                    self._next_sweep = now

    def _delete_slice(self, connection: sa.Connection) -> int:
        # Two statements, because not every database takes a limit inside a delete.
        expired = sa.select(_COLUMNS.id).where(self._is_expired()).limit(_SWEEP_SLICE)
        found = connection.scalars(expired).all()
        if found:
            connection.execute(sa.delete(_TABLE).where(_COLUMNS.id.in_(found)))
        return len(found)

    # -- the database ------------------------------------------------------------------------

    def _select(
        self, doing: str, task_id: str, *where: sa.ColumnElement[bool]
    ) -> Sequence[sa.Row[Any]]:
        is_kept = sa.or_(_COLUMNS.date_done.is_(None), ~self._is_expired())
        query = sa.select(*_READ).where(*where, is_kept)
        return self._run(doing, task_id, lambda connection: connection.execute(query).all())

    def _run(self, doing: str, task_id: str, work: Callable[[sa.Connection], Answer]) -> Answer:
        with reporting(doing, task_id, self._name, exc.SQLAlchemyError):
            try:
                return self._attempt(work)
            except exc.DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                # The server was restarted under a pooled connection, which says nothing of now.
                return self._attempt(work)

    def _attempt(self, work: Callable[[sa.Connection], Answer]) -> Answer:
        with self._entry, self._engine.connect() as connection:
            if not self._table_made:
                _make_table(connection)
                self._table_made = True
            return work(connection)


def _make_table(connection: sa.Connection) -> None:
    """Create the table if it is missing, or the columns that an older Celery did not give it.

    Another process that does the same makes a statement of ours fail; the next attempt sees what is
    left to do.
    """
    for attempt in range(_CREATE_ATTEMPTS):
        try:
            _TABLE.metadata.create_all(connection)
            present = {column["name"] for column in sa.inspect(connection).get_columns(_TABLE.name)}
            for column in _COLUMNS:
                if column.name not in present:
                    kind = column.type.compile(connection.dialect)
                    add = f"ALTER TABLE {_TABLE.name} ADD COLUMN {column.name} {kind}"
                    connection.execute(sa.text(add))
            return
        except exc.DBAPIError as error:
            if error.connection_invalidated or attempt == _CREATE_ATTEMPTS - 1:
                raise


def _moment(date_done: str | None) -> datetime:
    """The naive UTC that Celery keeps, of ISO text or of now: unready rows expire as well."""
    moment = datetime.fromisoformat(date_done) if date_done else clock.utc()
    return (moment.astimezone(UTC) if moment.tzinfo else moment).replace(tzinfo=None)


def _text(traceback: str | None) -> str | None:
    """*traceback* without what PostgreSQL's text cannot hold."""
    if traceback is None:
        return None
    return traceback.replace("\0", "\\0").encode(errors="backslashreplace").decode()
