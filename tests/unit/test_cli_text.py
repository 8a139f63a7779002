"""What the command line shows: tables that fit, replies of any shape, the view of events."""

import re

import pytest

from taskq.cli.events import line_of, view_of
from taskq.cli.replies import error_in, lines_of
from taskq.cli.text import table
from taskq.events import State

WIDE = 1000


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


def test_columns_line_up() -> None:
    assert ["A    BB", "x    1", "yyy  22"] == table(
        ("A", "BB"), [("x", "1"), ("yyy", "22")], (0,), WIDE
    )


@pytest.mark.parametrize("room", [0, 1, 7, 20, 33, 61])
def test_a_table_is_never_wider_than_its_room(room: int) -> None:
    lines = table(("ID", "TEXT", "N"), [("i" * 36, "t" * 80, "1" * 12)], (1,), room)

    assert max(map(len, lines)) <= room


def test_the_widest_of_the_narrow_columns_is_cut_first() -> None:
    _, row = table(("ID", "TEXT"), [("i" * 10, "t" * 80)], (0, 1), 40)

    assert f"{'i' * 10}  {'t' * 27}…" == row


def test_no_cell_has_power_over_the_terminal() -> None:
    _, row = table(("A",), [("\x1b[2J\nx",)], (), WIDE)

    assert "\\x1b[2J x" == row


def test_a_colour_is_that_of_the_whole_cell_and_not_of_its_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR")

    _, row = table(("STATE", "N"), [("bad", "1")], (), WIDE, {"bad": "red"})

    assert "\x1b[31mbad\x1b[0m    1" == row


def test_an_error_is_told_apart_from_a_reply_that_has_one_among_others() -> None:
    assert "unknown task" == error_in({"error": "unknown task"})
    assert error_in({"error": "x", "ok": "y"}) is None
    assert error_in(["error"]) is None


@pytest.mark.parametrize(
    ("reply", "lines"),
    [
        ({"ok": "pong"}, ["pong"]),
        (None, ["-"]),
        ([], ["-"]),
        ({}, ["-"]),
        ("two\nlines", ["two", "lines"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2.5], ["1, 2.5"]),
        ({"a": 1, "long": None}, ["a     1", "long  -"]),
        ({"a": {"b": 1}}, ["a", "    b  1"]),
        ({"a": ["b", "c"]}, ["a", "    b", "    c"]),
        ([{"a": 1, "b": 2}, {"a": 3}], ["- a  1", "  b  2", "- a  3"]),
        ("\x1b[2J", ["\\x1b[2J"]),
    ],
)
def test_replies_of_any_shape_are_shown(reply: object, lines: list[str]) -> None:
    assert lines == lines_of("stats", reply, WIDE)


@pytest.mark.parametrize(
    "command", ["active", "reserved", "scheduled", "query_task", "active_queues"]
)
@pytest.mark.parametrize(
    "reply",
    [None, 1, "x", [], {}, [1], [None], {"x": 1}, {"x": [1]}, [{"x": [1]}], [{"request": 1}]],
)
def test_what_other_workers_may_say_breaks_nothing(command: str, reply: object) -> None:
    assert lines_of(command, reply, WIDE)


def test_tasks_are_shown_as_a_table() -> None:
    info = {"id": "i1", "name": "add", "args": [2, 3], "kwargs": {}, "worker_pid": 7}

    assert ["ID  TASK  ARGS    PID  FOR", "i1  add   [2, 3]  7    -"] == lines_of(
        "active", [info], WIDE
    )
    assert ["ID  STATE   TASK  ARGS", "i1  active  add   [2, 3]"] == lines_of(
        "query_task", {"i1": ["active", info]}, WIDE
    )
    assert (
        "2030-01-01T00:00:00+00:00"
        in lines_of("scheduled", [{"eta": "2030-01-01T00:00:00+00:00", "request": info}], WIDE)[1]
    )


# -- events --------------------------------------------------------------------------------------


def a_picture(workers: int, tasks: int) -> State:
    state = State()
    common = {"pid": 1, "utcoffset": 0, "clock": 1, "local_received": 100.0, "timestamp": 100.0}
    for number in range(workers):
        state.event({"type": "worker-heartbeat", "hostname": f"w{number}", "freq": 2.0, **common})
    for number in range(tasks):
        task = {"uuid": f"id-{number}", "name": "shop.add", "args": "(1,)", "kwargs": "{}"}
        state.event({"type": "task-received", "hostname": "w0", **common, **task})
    return state


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (20, 10), (200, 50), (40, 3)])
@pytest.mark.parametrize(("workers", "tasks"), [(0, 0), (1, 0), (3, 5), (100, 100)])
def test_the_view_fits_the_terminal(workers: int, tasks: int, columns: int, lines: int) -> None:
    view = view_of(a_picture(workers, tasks), 101.0, columns, lines)

    assert len(view) <= lines
    assert max(map(len, view)) <= columns


def test_the_view_shows_workers_and_tasks() -> None:
    view = view_of(a_picture(1, 1), 101.0, 80, 24)

    assert "1 worker, 1 task, 2 events" == view[0]
    assert ["w0", "alive"] == view[3].split()[:2]
    assert ["RECEIVED", "shop.add", "id-0", "w0"] == view[6].split()[:4]


def test_a_worker_that_says_nothing_more_is_gone() -> None:
    view = view_of(a_picture(1, 0), 200.0, 80, 24)

    assert view[0].startswith("0 workers")
    assert ["w0", "gone"] == view[3].split()[:2]


def test_the_line_of_a_task_has_its_name_from_an_earlier_event() -> None:
    state = a_picture(0, 1)
    event = {"type": "task-succeeded", "hostname": "w0", "uuid": "id-0", "result": "5"}
    event |= {"timestamp": 101.0, "clock": 2, "pid": 1, "utcoffset": 0}

    line = line_of(event, state.event(event))

    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.000 task-succeeded     w0 shop.add\[id-0\] result=5", line
    )


@pytest.mark.parametrize("moment", [9e11, -9e11])
def test_a_line_is_one_line_and_bounded_whatever_was_sent(moment: float) -> None:
    state = State()
    event = {"type": "worker-\x1b[2J", "hostname": "w\n0", "timestamp": moment, "clock": 1}
    event |= {"text": "x" * 100_000, "note": "\x1b[31m"}

    line = line_of(event, state.event(event))

    assert line.isprintable()
    assert len(line) < 1000
