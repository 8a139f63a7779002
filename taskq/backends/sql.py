"""Results in a table of any database that SQLAlchemy knows, in Celery's form and under its name.

A database does not push: processes that wait ask for all awaited results at once, each *interval*.
"""

import math
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from taskq import clock, states
from taskq.backends.base import (
    Backend,
    BackendOptions,
    OnReady,
    Subscriptions,
    at_fork,
    reporting,
    unreadable,
)
from taskq.backends.watch import Watch
from taskq.errors import ConfigurationError, MessageMalformed
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

Answer = TypeVar("Answer")


class SqlBackend(Backend):
    """The table `celery_taskmeta` of one database, made when first used."""

    def __init__(self, options: BackendOptions) -> None:
        self._options = options
        self._content_type = codec.dumps(None, options.serializer).content_type
        self._engine = _engine(options)
        self._name = self._engine.url.render_as_string(hide_password=True)
        self._next_sweep = 0.0
        self._start()
        at_fork(child=self._in_child)

    def _start(self) -> None:
        self._waiting = Subscriptions()
        interval = self._options.interval
        self._watch = Watch(self._waiting, self._look, shortest=interval, longest=interval)
        #: Guards the making of the table.
        self._lock = threading.Lock()
        self._table_made = False

    def _in_child(self) -> None:
        self._inherited = self._engine.pool  # connections of the parent: not ours to close
        self._engine.dispose(close=False)
        self._start()

    def store(self, result: Result, *, reply_to: str | None = None) -> None:
        row = self._encode(result)
        replace = (
            sa.update(_TABLE)
            .where(
                _COLUMNS.task_id == result.task_id,
                sa.or_(_COLUMNS.status != states.SUCCESS, ~self._is_kept()),
            )
            .values(row)
        )
        insert = sa.insert(_TABLE).values(task_id=result.task_id, **row)

        def upsert(connection: sa.Connection) -> None:
            # Each statement is a transaction: the update waits for the row's lock and then looks at
            # its state again, so SUCCESS stays whoever comes last.
            for _ in range(2):
                if connection.execute(replace).rowcount:
                    return
                try:
                    connection.execute(insert)
                except exc.IntegrityError:
                    continue  # somebody was quicker, or it is SUCCESS already
                return

        self._run("store", result.task_id, upsert)
