"""Results in PostgreSQL: Celery's table, many writers, and a server that comes and goes."""

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from taskq.backends.base import BackendOptions
from taskq.backends.sql import SqlBackend
from taskq.errors import BackendUnavailable, ConfigurationError
from taskq.testing.backend_contract import Ears, a_failure, a_success
from taskq.wire.result import Result
from tests.support.wait import wait_until


@pytest.fixture
def url(postgres):
    """An empty database."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgres.url.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(url):
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def open_store(url):
    opened = []

    def open_store(url=url, **options):
        opened.append(SqlBackend(BackendOptions(f"db+{url}", **({"interval": 0.05} | options))))
        return opened[-1]

    yield open_store
    for backend in opened:
        backend.close()


# -- Celery's form -------------------------------------------------------------------------------


def test_celery_finds_the_result_in_its_table(open_store, database):
    failure = replace(a_failure(), date_done="2031-02-03T04:05:06.789+02:00")

    open_store().store(failure)

    row = database.execute(
        "SELECT task_id, status, result, date_done, traceback, children, name, args, kwargs, "
        "worker, retries, queue, stamps FROM celery_taskmeta WHERE id > 0"
    ).fetchone()
    assert row[:2] == (failure.task_id, "FAILURE")
    assert json.loads(row[2]) == {
        "exc_type": "ValueError",
        "exc_message": ["bad", 1],
        "exc_module": "builtins",
    }
    assert row[3] == datetime(2031, 2, 3, 2, 5, 6, 789000)  # naive UTC
    assert row[4] == failure.traceback
    assert json.loads(row[5]) == [[["child", None], None]]
    assert row[6:] == (None,) * 7


def test_what_celery_stored_is_read(open_store, database):
    open_store().forget("nothing, but it makes the table")
    now = datetime.now(UTC)
    database.execute(
        "INSERT INTO celery_taskmeta (id, task_id, status, result, date_done, children) "
        "VALUES (nextval('task_id_sequence'), 'by-celery', 'SUCCESS', %s, %s, %s)",
        (b'{"a": 3}', now.replace(tzinfo=None), b"[]"),
    )

    expected = Result("by-celery", "SUCCESS", {"a": 3}, date_done=now.isoformat(), children=[])
    assert open_store().fetch("by-celery") == expected


def test_a_table_of_an_older_celery_gets_the_columns_it_lacks(open_store, database):
    database.execute(
        "CREATE SEQUENCE task_id_sequence; CREATE TABLE celery_taskmeta ("
        "id INTEGER PRIMARY KEY, task_id VARCHAR(155) UNIQUE, status VARCHAR(50), result BYTEA, "
        "date_done TIMESTAMP, traceback TEXT, name VARCHAR(155), args BYTEA, kwargs BYTEA, "
        "worker VARCHAR(155), retries INTEGER, queue VARCHAR(155))"
    )
    failure = a_failure()

    open_store().store(failure)

    assert open_store().fetch(failure.task_id) == failure


# -- many at once --------------------------------------------------------------------------------


def test_many_processes_may_make_the_table_at_once(open_store):
    stores, results = [open_store() for _ in range(8)], [a_success(n) for n in range(8)]
    start = threading.Barrier(len(stores))

    def store(backend, result):
        start.wait(10)
        backend.store(result)

    with ThreadPoolExecutor(len(stores)) as threads:
        list(threads.map(store, stores, results))

    assert [open_store().fetch(result.task_id) for result in results] == results


def test_many_may_store_the_same_id_at_once(open_store, database):
    stores, task_id = [open_store() for _ in range(4)], str(uuid.uuid4())
    success = a_success("final", task_id)
    states = [Result(task_id, "PROGRESS", n) for n in range(20)] + [success]

    with ThreadPoolExecutor(len(stores)) as threads:
        list(threads.map(lambda n: stores[n % 4].store(states[n]), range(len(states))))

    assert stores[0].fetch(task_id) == success
    assert database.execute("SELECT count(*) FROM celery_taskmeta").fetchone() == (1,)


def test_expired_rows_are_deleted_by_a_later_store(open_store, database):
    early = a_success("early")
    first = open_store(expires=1.0)
    first.store(early)
    wait_until(lambda: first.fetch(early.task_id) is None, "the result to expire")

    late = a_success("late")
    open_store(expires=1.0).store(late)

    assert database.execute("SELECT task_id FROM celery_taskmeta").fetchall() == [(late.task_id,)]


# -- a server that comes and goes ----------------------------------------------------------------


def test_a_stopped_server_is_an_error_and_a_started_one_works_again(own_postgres, open_store):
    backend, before, after = open_store(own_postgres.url), a_success("before"), a_success("after")
    backend.store(before)
    ears = Ears(backend)
    ears.listen(after.task_id)

    own_postgres.stop()
    with pytest.raises(BackendUnavailable) as told:
        backend.store(after)
    with pytest.raises(BackendUnavailable):
        backend.fetch(before.task_id)
    own_postgres.start()
    backend.store(after)

    assert f"cannot store the result of task {after.task_id}" in str(told.value)
    assert f"taskq:***@127.0.0.1:{own_postgres.port}" in str(told.value)
    assert own_postgres.password not in str(told.value)
    assert ears.hear() == after
    assert backend.fetch(before.task_id) == before


def test_a_restart_between_two_calls_goes_unnoticed(own_postgres, open_store):
    backend, result = open_store(own_postgres.url), a_success()
    backend.store(result)

    own_postgres.kill()
    own_postgres.start()

    assert backend.fetch(result.task_id) == result


def test_a_row_that_stays_locked_is_an_error(open_store, url):
    backend, task_id = open_store(timeout=0.5), str(uuid.uuid4())
    backend.store(Result(task_id, "STARTED"))

    with psycopg.connect(url) as locker:
        locker.execute("SELECT * FROM celery_taskmeta FOR UPDATE")
        with pytest.raises(BackendUnavailable, match="statement timeout"):
            backend.store(a_success("late", task_id))

    backend.store(a_success("in time", task_id))
    assert backend.fetch(task_id).value == "in time"


def test_an_error_shows_neither_statement_nor_result(open_store, database):
    backend = open_store()
    backend.forget("nothing, but it makes the table")
    database.execute("DROP TABLE celery_taskmeta")

    with pytest.raises(BackendUnavailable) as told:
        backend.store(a_success("a secret"))

    assert "celery_taskmeta" in str(told.value)
    assert "INSERT" not in str(told.value)
    assert "a secret" not in str(told.value)


@pytest.mark.parametrize(
    "url",
    ["db+", "db+nosuch://u:pw@host/x", "db+postgresql+nosuch://u:pw@host/x", "db+mysql://h/x"],
)
def test_a_url_of_no_known_database_is_refused_at_once(url):
    with pytest.raises(ConfigurationError, match="result_backend") as told:
        SqlBackend(BackendOptions(url))

    assert "pw" not in str(told.value)
