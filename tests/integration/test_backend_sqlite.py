"""Results in a SQLite file: many processes, one file, and files that are none."""

import multiprocessing
import os
import sqlite3
import uuid

import pytest

from taskq.backends.base import BackendOptions
from taskq.backends.sqlite import SqliteBackend
from taskq.errors import BackendUnavailable, ConfigurationError
from taskq.sqlitefile import SqliteFile
from taskq.testing.backend_contract import Ears, a_success
from taskq.wire.result import Result
from tests.support.wait import wait_until

# New interpreters: nothing of theirs comes from this process but the path of the file.
processes = multiprocessing.get_context("spawn")


@pytest.fixture
def open_store(tmp_path):
    opened = []

    def open_store(**options):
        options = {"url": "sqlite:///results.db", "root": str(tmp_path)} | options
        opened.append(SqliteBackend(BackendOptions(**options)))
        return opened[-1]

    yield open_store
    for backend in opened:
        backend.close()


def _store(root, prefix, count):
    backend = SqliteBackend(BackendOptions("sqlite:///results.db", root=root))
    for number in range(count):
        backend.store(Result(f"{prefix}-{number}", "STARTED"))
        backend.store(Result(f"{prefix}-{number}", "SUCCESS", number))
    backend.close()


def test_many_processes_store_in_a_new_file_and_one_hears_it_all(open_store, tmp_path):
    backend = open_store()
    ids = {f"{prefix}-{number}" for prefix in range(4) for number in range(100)}
    ears = Ears(backend)
    writers = [
        processes.Process(target=_store, args=(str(tmp_path), prefix, 100)) for prefix in range(4)
    ]

    for writer in writers:
        writer.start()
    for task_id in ids:
        ears.listen(task_id)
    heard = {ears.hear().task_id for _ in ids}
    for writer in writers:
        writer.join(20)

    assert heard == ids
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert all(backend.fetch(task_id) is not None for task_id in ids)


def test_what_a_child_stores_outlives_its_parents_connection(open_store, tmp_path):
    """SQLite's locks belong to a process: a child must not trust those of its parent."""
    backend, first, second = open_store(), a_success("parent"), a_success("child")
    backend.store(first)
    go, gone = os.pipe()

    child = os.fork()
    if child == 0:
        code = 1
        try:
            backend.fetch(first.task_id)  # the file is open again
            os.read(go, 1)
            backend.store(second)
            code = 0
        finally:
            os._exit(code)
    backend.fetch(first.task_id)
    backend.close()  # as the last user of the file the parent would delete its log
    os.write(gone, b"\0")
    _, status = os.waitpid(child, 0)
    os.close(go)
    os.close(gone)

    assert status == 0
    assert open_store().fetch(second.task_id) == second


def test_expired_results_are_deleted_by_later_stores(open_store, tmp_path):
    old = [a_success(number) for number in range(600)]
    first = open_store(expires=1.0)
    for result in old:
        first.store(result)
    wait_until(lambda: first.fetch(old[-1].task_id) is None, "the results to expire")

    second, late = open_store(expires=None), [a_success("late"), a_success("later")]
    for result in late:  # one slice each
        second.store(result)

    with sqlite3.connect(tmp_path / "results.db") as file:
        kept = {task_id for (task_id,) in file.execute("select task_id from result")}
    file.close()
    assert kept == {result.task_id for result in late}


def test_results_written_by_another_serializer_are_read(open_store):
    result = a_success({"a": b"\0\xff"})

    open_store(serializer="msgpack").store(result)

    assert open_store(serializer="json").fetch(result.task_id) == result


def test_a_relative_path_starts_from_the_root(open_store, tmp_path):
    open_store(url="sqlite:///deep/down/r.db").store(a_success())

    assert (tmp_path / "deep/down/r.db").exists()


def test_a_file_that_is_no_database_is_an_error_that_names_it(open_store, tmp_path):
    (tmp_path / "results.db").write_bytes(b"this is no database" * 100)
    task_id = str(uuid.uuid4())

    with pytest.raises(BackendUnavailable) as told:
        open_store().fetch(task_id)

    assert f"cannot fetch the result of task {task_id} in file {tmp_path}/results.db" in str(
        told.value
    )


def test_a_file_that_others_keep_busy_is_an_error(open_store, tmp_path):
    backend, result = open_store(timeout=0.2), a_success()
    other = SqliteFile(tmp_path / "results.db", "")

    with other.writing(), pytest.raises(BackendUnavailable, match="kept it busy"):
        backend.store(result)

    other.close()
    backend.store(result)
    assert backend.fetch(result.task_id) == result


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///x?a=b"]
)
def test_a_url_without_a_file_is_refused_at_once(url):
    with pytest.raises(ConfigurationError):
        SqliteBackend(BackendOptions(url))
