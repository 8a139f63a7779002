"""Every store of beat keeps the contract of `taskq.beat.base.Store`."""

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from taskq.beat.base import RELEASED, Mark, Run, Store, StoreOptions, merged
from taskq.beat.stores import open_store
from taskq.beat.stores.sqlite import SqliteStore
from taskq.errors import BackendUnavailable, ConfigurationError
from taskq.schedules import Entry, read_entry

#: Opens one more Store on the same place; takes fields of StoreOptions to change.
OpenStore = Callable[..., Store]

URLS = {
    "sqlite": lambda request: "sqlite:///.taskq/taskq.db",
    "redis": lambda request: request.getfixturevalue("redis_server").url,
    "postgres": lambda request: f"db+{request.getfixturevalue('postgres').url}",
    "sqlite through SQLAlchemy": lambda request: "db+sqlite:///beat.db",
}


@pytest.fixture(params=URLS)
def open_one(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    given = {
        "url": URLS[request.param](request),
        "root": str(tmp_path),
        "schedule": uuid.uuid4().hex,
    }
    stores: list[Store] = []

    def open_one(**changes: Any) -> Store:
        stores.append(open_store(StoreOptions(**{**given, **changes})))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(open_one: OpenStore) -> Store:
    return open_one()


def entry(name: str = "report", **given: Any) -> Entry:
    return read_entry(name, {"task": "shop.report", "schedule": "30 7 * * 1", **given})


def names(store: Store) -> list[str]:
    return [row.name for row in store.rows()]


# -- entries -----------------------------------------------------------------------------------


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.rows() == []
    assert store.mark() is None
    store.attend()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"schedule": 12.5, "args": [1, "zwei", None], "kwargs": {"x": {"y": [True]}}},
        {"schedule": {"clocked": "2031-02-03T04:05:06"}, "timezone": "Europe/Berlin"},
        {"options": {"queue": "low", "priority": 3}, "jitter": 3.5, "expires": 60, "end": 2e9},
        {"missed": "all", "missed_limit": 7, "overlap": "skip", "enabled": False},
    ],
)
def test_an_entry_comes_back_as_it_was(open_one: OpenStore, given: dict[str, Any]) -> None:
    kept = entry(**given)

    open_one().put(kept, since=1714910400.123456)

    (row,) = open_one().rows()
    assert kept == row.entry
    assert (row.name, row.enabled, row.since, row.last) == (
        "report",
        None,
        1714910400.123456,
        None,
    )


def test_an_entry_put_again_replaces_the_last_one(store: Store) -> None:
    store.put(entry(), since=1.0)
    store.enable("report", False, since=2.0)

    store.put(entry(task="shop.other"), since=3.0)

    (row,) = store.rows()
    assert row.entry is not None
    assert (row.entry.task, row.enabled, row.since) == ("shop.other", None, 3.0)


@pytest.mark.parametrize("name", ["ünïcödé ☃", "quote'\"`", "percent%s%(x)s", "x" * 200])
def test_odd_names_are_kept_apart(store: Store, name: str) -> None:
    store.put(entry(name), since=1.0)
    store.put(entry("plain"), since=1.0)

    assert sorted([name, "plain"]) == sorted(names(store))
    assert store.remove(name)
    assert names(store) == ["plain"]


def test_removing_says_whether_there_was_an_entry(store: Store) -> None:
    store.put(entry(), since=1.0)
    store.enable("the app's own", False, since=1.0)

    assert store.remove("report")
    assert not store.remove("report")
    assert not store.remove("the app's own")
    assert store.rows() == []


def test_an_entry_of_the_app_is_switched_off_and_on(store: Store) -> None:
    own = {"report": entry()}

    store.enable("report", False, since=5.5)
    assert not merged(own, store.rows())["report"].enabled

    store.enable("report", True, since=6.5)
    found = merged(own, store.rows())["report"]
    assert (found.enabled, found.since) == (True, 6.5)


def test_an_added_entry_is_switched_off_and_stays(store: Store) -> None:
    store.put(entry(), since=1.0)

    store.enable("report", False, since=2.0)

    (found,) = merged({}, store.rows()).values()
    assert (found.task, found.enabled, found.since) == ("shop.report", False, 2.0)


def test_schedules_share_a_store_and_nothing_else(open_one: OpenStore) -> None:
    here, there = open_one(), open_one(schedule=uuid.uuid4().hex)

    here.put(entry(), since=1.0)
    here.take(None, Mark(1, 0, "ours"))

    assert there.rows() == []
    assert there.mark() is None
    assert there.changes() == open_one(schedule=uuid.uuid4().hex).changes()


def test_what_cannot_be_read_is_left_out(store: Store, monkeypatch: Any) -> None:
    store.put(entry("good"), since=1.0)
    broken = entry("broken")
    monkeypatch.setattr(Entry, "plain", lambda self: {"task": "x", "schedule": {"moon": "full"}})
    store.put(broken, since=1.0)

    assert names(store) == ["good"]


# -- changes and runs ----------------------------------------------------------------------------


def test_each_change_is_seen_by_others(open_one: OpenStore) -> None:
    here, there = open_one(), open_one()
    seen = [there.changes()]

    here.put(entry(), since=1.0)
    seen.append(there.changes())
    here.enable("report", False, since=2.0)
    seen.append(there.changes())
    here.remove("report")
    seen.append(there.changes())

    assert len(set(seen)) == 4
    assert seen[-1] == there.changes()


def test_a_run_is_kept_and_is_no_change(open_one: OpenStore) -> None:
    store = open_one()
    store.put(entry(), since=1.0)
    before = store.changes()
    last = Run("report@2024-05-06T05:30:00Z", 1714973400.000001, 1714973400.25)

    store.note({"report": Run("report@earlier", 1.0, 2.0), "the app's own": last})
    store.note({"report": last})

    assert before == store.changes()
    assert [last, last] == [row.last for row in open_one().rows()]
    assert store.rows()[0].entry == entry()


def test_a_run_that_people_started_is_a_change(open_one: OpenStore) -> None:
    here, there = open_one(), open_one()
    before = there.changes()
    last = Run("report@2024-05-06T05:30:00Z", 1714973400.0, 1714973400.25)

    here.note({"report": last}, by_hand=True)

    assert before != there.changes()
    assert [last] == [row.last for row in there.rows()]


def test_who_tells_of_a_run_late_replaces_none_that_came_after_it(store: Store) -> None:
    store.put(entry(), since=1.0)
    later = Run("report@later", 20.0, 21.0)
    store.note({"report": later}, by_hand=True)

    store.note({"report": Run("report@earlier", 10.0, 11.0)})

    assert [later] == [row.last for row in store.rows()]


def test_many_runs_are_noted_at_once(store: Store) -> None:
    runs = {f"entry {number}": Run(f"id {number}", number, number) for number in range(1200)}

    store.note(runs)
    store.note(runs)

    assert runs == {row.name: row.last for row in store.rows()}


# -- the mark --------------------------------------------------------------------------------------


def test_one_of_many_takes_the_mark(open_one: OpenStore) -> None:
    answers: list[bool] = []

    def take(number: int) -> None:
        store = open_one()
        answers.append(store.take(None, Mark(1, 0, str(number))))

    threads = [threading.Thread(target=take, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [False] * 7 + [True]


def test_a_mark_is_taken_as_it_was_seen_or_not_at_all(open_one: OpenStore) -> None:
    leader, other = open_one(), open_one()
    first = Mark(1, 0, "first")
    assert leader.take(None, first)
    seen = other.mark()
    assert first == seen

    assert leader.keep(Mark(1, 1, "it lives"))
    assert not other.take(seen, Mark(2, 0, ""))

    assert other.mark() == Mark(1, 1, "it lives")
    assert other.take(other.mark(), Mark(2, 0, "it does not"))


def test_who_was_replaced_cannot_renew(open_one: OpenStore) -> None:
    old, new = open_one(), open_one()
    old.take(None, Mark(1, 0, ""))
    new.take(new.mark(), Mark(2, 0, "new"))

    assert not old.keep(Mark(1, 1, "old"))

    assert new.mark() == Mark(2, 0, "new")


def test_a_mark_is_given_back(open_one: OpenStore) -> None:
    old, new = open_one(), open_one()
    old.take(None, Mark(1, 0, ""))

    assert old.keep(Mark(1, RELEASED, "through"))

    assert new.mark() == Mark(1, RELEASED, "through")
    assert not new.take(None, Mark(1, 0, ""))
    assert new.take(new.mark(), Mark(2, 0, "through"))


# -- what goes wrong -------------------------------------------------------------------------------


def test_a_store_that_is_away_is_named_without_its_password(own_redis: Any) -> None:
    store = open_store(StoreOptions(own_redis.url, timeout=1.0))
    own_redis.stop()

    with pytest.raises(BackendUnavailable) as caught:
        store.rows()

    assert "beat store" in str(caught.value)
    assert own_redis.password not in str(caught.value)
    store.close()


def test_a_file_that_cannot_be_used_is_named(tmp_path: Any) -> None:
    (tmp_path / "file").touch()
    store = open_store(StoreOptions("sqlite:///file/beat.db", root=str(tmp_path)))

    with pytest.raises(BackendUnavailable, match="beat_store"):
        store.rows()


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mongodb"):
        open_store(StoreOptions("mongodb://there"))


# -- hosts -----------------------------------------------------------------------------------------


def on_host(folder: Any, name: str, boot: str) -> SqliteStore:
    options = StoreOptions("sqlite:///beat.db", root=str(folder))
    return SqliteStore(options, host=(name, boot))


def test_a_sqlite_store_refuses_a_second_host(tmp_path: Any) -> None:
    on_host(tmp_path, "ann", "1").attend()

    with pytest.raises(ConfigurationError, match=r"host 'ann'.*set beat_store"):
        on_host(tmp_path, "bob", "2").attend()


@pytest.mark.parametrize(("name", "boot"), [("ann", "2"), ("another container", "1")])
def test_a_sqlite_store_knows_its_host_again(tmp_path: Any, name: str, boot: str) -> None:
    on_host(tmp_path, "ann", "1").attend()

    on_host(tmp_path, name, boot).attend()


def test_a_sqlite_store_is_taken_over_from_a_host_that_is_gone(
    tmp_path: Any, monkeypatch: Any
) -> None:
    on_host(tmp_path, "ann", "1").attend()
    monkeypatch.setattr("taskq.beat.stores.sqlite._GONE", 0.0)

    on_host(tmp_path, "bob", "2").attend()

    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match="host 'bob'"):
        on_host(tmp_path, "ann", "1").attend()
