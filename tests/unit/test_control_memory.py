"""What operators decided: remembered in bounds, and summed up when it is read from a log."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq import TaskQ
from taskq.control import memory
from taskq.control.memory import (
    LimitRate,
    LimitTime,
    Pause,
    Remembered,
    Resume,
    Revoke,
    RevokeStamped,
    net,
)
from taskq.rate import parse_rate

NOW = 1_000_000_000.0
WEEK = 7 * 86_400.0


@pytest.mark.parametrize(
    ("rate", "a_second"),
    [
        ("10/s", 10.0),
        ("120/m", 2.0),
        ("36/h", 0.01),
        ("0.5/s", 0.5),
        (" 10 / s ", 10.0),
        ("3", 3.0),
        (3, 3.0),
        (0.25, 0.25),
        ("0", None),
        ("0/m", None),
        (0, None),
        ("", None),
        (None, None),
    ],
)
def test_a_rate_is_read_as_runs_a_second(rate, a_second):
    assert a_second == parse_rate(rate)


@pytest.mark.parametrize(
    "rate", ["5/d", "-1/s", "/s", "s", "1/s/s", "nan", "inf/s", "1e300/s", True, "ten", -1]
)
def test_another_rate_is_refused_with_what_is_allowed(rate):
    with pytest.raises(ValueError, match=r"^Invalid rate limit string: .*'10/s'"):
        parse_rate(rate)


def test_a_revoked_task_is_known_by_its_id():
    remembered = Remembered()

    remembered.take(Revoke(("1", "2")), NOW)

    assert remembered.is_revoked("1")
    assert remembered.is_revoked("2")
    assert not remembered.is_revoked("3")


@pytest.mark.parametrize("stamps", [{"colour": "blue"}, {"colour": ["red", "blue"], "size": "1"}])
def test_a_task_is_revoked_by_any_of_its_stamps(stamps):
    remembered = Remembered()

    remembered.take(RevokeStamped({"colour": ("green", "blue")}), NOW)

    assert remembered.is_revoked("1", stamps)


@pytest.mark.parametrize("stamps", [None, {}, {"colour": None}, {"size": "blue"}, {"colour": []}])
def test_other_stamps_are_no_reason(stamps):
    remembered = Remembered()

    remembered.take(RevokeStamped({"colour": ("blue",)}), NOW)

    assert not remembered.is_revoked("1", stamps)


def test_a_stamp_that_is_no_text_is_compared_as_text():
    remembered = Remembered()

    remembered.take(RevokeStamped({"customer": ("17",)}), NOW)

    assert remembered.is_revoked("1", {"customer": [17]})


def test_of_too_many_revoked_the_oldest_are_forgotten(monkeypatch):
    monkeypatch.setattr(memory, "MOST_REVOKED", 3)
    remembered = Remembered()

    for number in range(4):
        remembered.take(Revoke((str(number),)), NOW)
    remembered.take(Revoke(("1",)), NOW)  # again: now the latest
    remembered.take(Revoke(("4", "5")), NOW)

    assert ["1", "4", "5"] == list(remembered.revoked)


def test_what_was_revoked_long_ago_is_forgotten():
    remembered = Remembered()
    remembered.take(Revoke(("old",)), NOW)
    remembered.take(RevokeStamped({"colour": ("blue",)}), NOW)
    remembered.take(Revoke(("new",)), NOW + 10)

    remembered.forget(NOW + WEEK + 5)

    assert ["new"] == list(remembered.revoked)
    assert {} == remembered.revoked_headers


def test_pauses_and_limits_hold_until_others_come():
    remembered = Remembered()

    remembered.take(Pause("orders"), NOW)
    remembered.take(LimitRate("add", "10/s"), NOW)
    remembered.take(LimitTime("add", 30.0, 20.0), NOW)
    remembered.forget(NOW + 100 * WEEK)

    assert remembered.paused == {"orders"}
    assert remembered.rate_limits == {"add": "10/s"}
    assert remembered.time_limits == {"add": (30.0, 20.0)}

    remembered.take(Resume("orders"), NOW)
    remembered.take(LimitRate("add", "0"), NOW)
    remembered.take(LimitTime("add", 10.0, None), NOW)

    assert remembered.paused == set()
    assert remembered.rate_limits == {"add": "0"}
    assert remembered.time_limits == {"add": (10.0, None)}


@pytest.mark.parametrize(
    "change",
    [
        lambda name: Pause(name),
        lambda name: LimitRate(name, "1/s"),
        lambda name: LimitTime(name, 1.0, None),
        lambda name: RevokeStamped({name: ("1",)}),
    ],
)
def test_more_names_than_there_is_room_for_are_refused(monkeypatch, change):
    monkeypatch.setattr(memory, "MOST_NAMES", 2)
    remembered = Remembered()
    remembered.take(change("a"), NOW)
    remembered.take(change("b"), NOW)

    remembered.take(change("a"), NOW)  # known
    with pytest.raises(ValueError, match="there are 2"):
        remembered.take(change("c"), NOW)


names = st.sampled_from("abc")
changes = st.one_of(
    st.builds(Revoke, st.lists(names, max_size=3).map(tuple)),
    st.builds(RevokeStamped, st.dictionaries(names, st.tuples(names), min_size=1)),
    st.builds(Pause, names),
    st.builds(Resume, names),
    st.builds(LimitRate, names, st.sampled_from(["1/s", "0"])),
    st.builds(LimitTime, names, st.just(1.0) | st.none(), st.none()),
)


@given(st.lists(changes))
def test_a_summary_comes_to_the_same_as_all_that_it_sums_up(said):
    one_by_one, summed_up = Remembered(), Remembered()

    for change in said:
        one_by_one.take(change, NOW)
    summary = net(said)
    for change in summary:
        summed_up.take(change, NOW)

    assert vars(summed_up) == vars(one_by_one)
    assert sum(isinstance(change, Revoke) for change in summary) <= 1


@given(st.text() | st.floats() | st.integers() | st.booleans())
def test_whatever_is_sent_as_a_rate_is_read_or_refused(rate):
    try:
        found = parse_rate(rate)
    except ValueError:
        return
    assert found is None or (found > 0 and math.isfinite(found))


def test_what_ran_in_place_is_not_revoked_any_more():
    with TaskQ(broker="memory://nobody", task_always_eager=True) as app:
        result = app.task(lambda: 5, name="five").delay()
        result.revoke()

        assert 5 == result.get()
