"""What `taskq top` makes of events, answers and numbers, and what its keys do; no terminal here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.broker.base import Stock
from taskq.cli.keyboard import _keys
from taskq.top.picture import Picture
from taskq.top.rates import WINDOW, Rate, Rise, percentile
from taskq.top.stage import VIEWS, Action, Stage, share

NOW = 1_000_000.0


def tell(picture, kind, at=NOW, **fields):
    event = {"type": kind, "hostname": "w1@h", "timestamp": at, "clock": 1, "local_received": at}
    picture.event(event | fields, at)


def run(picture, uuid, name="shop.pack", at=NOW, ending="succeeded", **fields):
    tell(picture, "task-received", at, uuid=uuid, name=name, args="()", kwargs="{}")
    tell(picture, f"task-{ending}", at + 0.001, uuid=uuid, **fields)


def shown(table):
    return [dict(zip((c.heading for c in table.columns), table.cells(r), strict=True))
            for r in table.rows]  # fmt: skip


def seen(stage, picture, now=NOW + 1):
    return {part.table.name: part for part in stage.parts(picture.tables(now))}


# -- numbers -------------------------------------------------------------------------------------


def test_a_rate_is_of_the_last_seconds_and_of_no_more_than_there_were():
    rate = Rate(since=0.0)
    assert rate.a_second(0.5) == 0

    for at in (1.0, 1.5, 2.0, 2.5):
        rate.add(at)

    assert rate.a_second(4.0) == 1.0
    assert rate.a_second(WINDOW + 0.9) == 4 / WINDOW
    assert rate.a_second(3 * WINDOW) == 0


def test_a_rise_is_measured_between_looks():
    rise = Rise()
    rise.see(10, 100.0)
    assert rise.a_second() is None

    rise.see(30, 104.0)
    assert rise.a_second() == 5.0
    for at in range(105, 150):
        rise.see(30, float(at))
    assert rise.a_second() == 0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_so_many_are_within_a_percentile(values):
    for part in (0.5, 0.95, 1.0):
        found = percentile(values, part)
        assert found in values
        assert sum(value <= found for value in values) >= part * len(values)
        assert sum(value < found for value in values) < part * len(values)
    assert percentile([], 0.5) is None


@given(st.integers(0, 60), st.lists(st.integers(0, 30), max_size=5))
def test_room_is_shared_evenly_and_none_is_wasted(room, wanted):
    given_ = share(room, wanted)

    assert sum(given_) == min(room, sum(wanted))
    for got, want in zip(given_, wanted, strict=True):
        assert got <= want
        assert got == want or got >= max(given_) - 1


# -- the picture ---------------------------------------------------------------------------------


def test_what_workers_tell_and_answer_stands_in_one_line_each():
    picture = Picture(NOW)
    vitals = {"freq": 2.0, "active": 3, "loadavg": [1.25, 1, 1]}
    tell(picture, "worker-online", NOW, processed=10, **vitals)
    tell(picture, "worker-heartbeat", NOW + 2, processed=30, **vitals)
    tell(picture, "worker-online", NOW, hostname="gone@h", freq=2.0)
    tell(picture, "worker-offline", NOW + 1, hostname="gone@h")
    tell(picture, "worker-online", NOW, hostname="quiet@h", freq=0.1)
    stats = {
        "pool": {"max-concurrency": 4},
        "prefetch_count": 64,
        "rusage": {"maxrss": 30 * 1024},
        "taskq": {"draining": True, "paused": []},
    }
    picture.answers({"w1@h": stats, "odd@h": ["nonsense"], "error@h": {"error": "no"}})

    table = picture.tables(NOW + 3)["workers"].sorted(None, backwards=False)
    rows = {row["WORKER"]: row for row in shown(table)}

    assert {
        "WORKER": "w1@h", "STATE": "draining", "CHILDREN": "4", "ACTIVE": "3", "DONE": "30",
        "RATE/s": "10.0", "LOAD": "1.2", "WINDOW": "64", "MEMORY": "30M",
    } == rows["w1@h"]  # fmt: skip
    assert "offline" == rows["gone@h"]["STATE"]
    assert "silent" == rows["quiet@h"]["STATE"]
    assert ("online", "-") == (rows["odd@h"]["STATE"], rows["odd@h"]["CHILDREN"])
    assert sorted(rows) == [row["WORKER"] for row in shown(table)]


def test_tasks_are_counted_by_name():
    picture = Picture(NOW)
    for number in range(20):
        run(picture, f"p{number}", runtime=(number + 1) / 10, result="1")
    run(picture, "f", name="shop.ship", ending="failed", exception="E()", traceback="")
    run(picture, "r", name="shop.ship", ending="retried", exception="E()", traceback="")

    pack, ship = shown(picture.tables(NOW + 2)["tasks"].sorted(None, backwards=False))

    assert {
        "TASK": "shop.pack", "RATE/s": "10.0", "DONE": "20", "FAILED": "0", "RETRIED": "0",
        "P50": "1.00s", "P95": "1.90s",
    } == pack  # fmt: skip
    assert ("0", "1", "1", "-") == (ship["DONE"], ship["FAILED"], ship["RETRIED"], ship["P50"])


def test_queues_have_their_growth_dead_letters_and_pauses():
    picture = Picture(NOW)
    queues = ("q1", "q2")
    picture.stocks(queues, {"q1": Stock("q1", 100), "q1.dead": Stock("q1.dead", 2)}, NOW)
    picture.stocks(queues, {"q1": Stock("q1", 80), "q1.dead": Stock("q1.dead", 2)}, NOW + 4)
    picture.answers({"w1@h": {"taskq": {"paused": ["q1"]}}})

    table = picture.tables(NOW + 4)["queues"]
    first, second = shown(table)

    assert ("paused", "80", "-5.0", "2") == tuple(
        first[name] for name in ("STATE", "READY", "GROWTH/s", "DEAD")
    )
    assert ("none", "-") == (second["STATE"], second["READY"])
    assert "IN/s" not in [table.columns[at].heading for at in table.shown]


def test_the_latest_tasks_come_first_and_what_is_unknown_last():
    picture = Picture(NOW)
    run(picture, "old", at=NOW - 100, runtime=9.0, result="")
    run(picture, "new", at=NOW, runtime=1.0, result="")
    tell(picture, "task-started", NOW - 50, uuid="nameless")
    table = picture.tables(NOW + 1)["latest"]

    assert ["new", "nameless", "old"] == [row.key for row in table.sorted(None, False).rows]
    assert ["old", "new", "nameless"] == [row.key for row in table.sorted(4, False).rows]
    assert ["new", "old", "nameless"] == [row.key for row in table.sorted(4, True).rows]


# -- keys ----------------------------------------------------------------------------------------


@pytest.fixture
def picture():
    picture = Picture(NOW)
    for number in range(5):
        run(picture, f"task-{number}", name=f"shop.t{number}", at=NOW + number / 10, runtime=1.0)
    picture.stocks(("q1", "q2"), {"q1": Stock("q1", 1), "q2": Stock("q2", 2)}, NOW)
    return picture


def press(stage, picture, *keys):
    """The action that the last of *keys* led to."""
    action = None
    for key in keys:
        action = stage.press(key, picture.tables(NOW + 1))
    return action


def test_views_are_chosen_by_number_and_one_after_the_other(picture):
    stage = Stage()
    assert {"workers", "queues", "tasks", "latest"} == seen(stage, picture).keys()

    press(stage, picture, "3")
    assert {"queues"} == seen(stage, picture).keys()
    views = []
    for _ in VIEWS:
        press(stage, picture, "tab")
        views.append(stage.view)

    assert sorted(VIEWS) == sorted(views)


def test_a_task_is_revoked_when_that_is_confirmed(picture):
    stage = Stage()

    assert press(stage, picture, "down", "x") is None
    assert "revoke shop.t3[task-3]? y/n" == stage.question
    assert press(stage, picture, "n") is None
    assert Action("revoke", "task-3") == press(stage, picture, "x", "y")


def test_the_choice_stays_on_its_line_when_others_come(picture):
    stage = Stage()
    press(stage, picture, "5", "down")
    run(picture, "task-9", at=NOW + 0.9)

    part = seen(stage, picture)["latest"]

    assert "task-3" == part.table.rows[part.cursor].key


def test_the_first_line_stays_the_first(picture):
    stage = Stage()
    press(stage, picture, "5", "down", "up", "up")
    run(picture, "task-9", at=NOW + 0.9)

    assert 0 == seen(stage, picture)["latest"].cursor
    press(stage, picture, "page-down", "down")
    assert 5 == seen(stage, picture)["latest"].cursor


def test_a_queue_is_paused_and_resumed(picture):
    stage = Stage()

    assert Action("pause", "q1") == press(stage, picture, "3", "p", "y")
    picture.answers({"w1@h": {"taskq": {"paused": ["q1"]}}})
    assert Action("resume", "q1") == press(stage, picture, "p", "Y")
    assert press(stage, picture, "x", "y") is None  # no task is chosen here


def test_a_filter_is_typed_and_cleared(picture):
    stage = Stage()
    press(stage, picture, "/", "T", "4", "x", "backspace", "q", "backspace", "enter")

    assert ["task-4"] == [row.key for row in seen(stage, picture)["latest"].table.rows]
    assert not stage.is_over
    press(stage, picture, "escape")
    assert 5 == len(seen(stage, picture)["latest"].table.rows)


def test_columns_are_sorted_one_after_the_other_and_the_other_way_round(picture):
    stage = Stage()
    press(stage, picture, "3", "s", "s")
    assert ["q2", "q1"] == [row.key for row in seen(stage, picture)["queues"].table.rows]

    press(stage, picture, "r")
    assert ["q1", "q2"] == [row.key for row in seen(stage, picture)["queues"].table.rows]


def test_keys_on_nothing_do_nothing():
    stage, nothing = Stage(), Picture(NOW)

    for view in "12345":
        assert press(stage, nothing, view, "up", "down", "x", "p", "y", "s", "r") is None
    press(stage, nothing, "?")
    assert stage.mode == "help"
    press(stage, nothing, "q")
    assert not stage.is_over
    press(stage, nothing, "q")
    assert stage.is_over


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1bOB", ["up", "down"]),
        (b"\x1b", ["escape"]),
        (b"\x1b[5~x\t\r\x7f\x1a", ["page-up", "x", "tab", "enter", "backspace", "suspend"]),
        ("ä€b".encode(), ["ä", "€", "b"]),
        (b"a\x1b[15;2~", ["a"]),
        (b"\xff\xfe", ["\N{REPLACEMENT CHARACTER}"]),
        (b"", []),
    ],
)
def test_what_terminals_send_is_understood(sent, keys):
    assert keys == _keys(sent)
