"""Entries: how they are written down, and when they are due."""

import json
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice, pairwise

import pytest
from celery.schedules import crontab as celery_crontab
from hypothesis import given
from hypothesis import strategies as st

from taskq import ConfigurationError, clocked, crontab, schedule
from taskq.schedules import Schedule, read_entry, read_schedule
from taskq.schedules.entry import last_within

#: 2024-05-05 12:00 UTC.
NOON = 1_714_910_400.0


def entry(name="report", **given):
    return read_entry(name, {"task": "reports.make", "schedule": 60, **given})


# -- schedules written down ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (30, schedule(30)),
        (0.5, schedule(0.5)),
        (timedelta(hours=1), schedule(3600)),
        ("30 7 * * 1", crontab(30, 7, 1)),
        ("@hourly", crontab(0)),
        (crontab(0, 3), crontab(0, 3)),
        ({"every": 5}, schedule(5)),
        ({"every": 3600, "relative": True}, schedule(3600, relative=True)),
        ({"crontab": "0 3 * * *", "dst": "clock"}, crontab(0, 3, dst="clock")),
        ({"crontab": "@daily", "timezone": "Asia/Tokyo"}, crontab(0, 0, timezone="Asia/Tokyo")),
        ({"clocked": "2030-01-01T00:00:00"}, clocked("2030-01-01")),
    ],
)
def test_a_schedule_may_be_written_in_many_ways(written, meant):
    assert meant == read_schedule(written)


@pytest.mark.parametrize(
    "original",
    [
        *(schedule(0.25), schedule(86_400, relative=True, timezone="Asia/Tokyo")),
        *(crontab(), crontab([1, 2], "*/3", "mon-fri", timezone="Asia/Tokyo", dst="clock")),
        *(clocked("2030-01-01T05:00+02:00"), clocked("2030-01-01", timezone="Asia/Tokyo")),
    ],
)
def test_a_schedule_comes_back_from_json_as_it_was(original):
    assert original == read_schedule(json.loads(json.dumps(original.plain())))


@pytest.mark.parametrize("written", [None, True, [], {}, {"never": 1}, object(), datetime.now()])
def test_what_is_no_schedule_is_told_what_is(written):
    with pytest.raises(TypeError, match="give seconds, a timedelta, five fields"):
        read_schedule(written)


def test_celerys_own_objects_are_told_to_change_their_import():
    with pytest.raises(TypeError, match="import crontab, schedule and clocked from taskq"):
        read_schedule(celery_crontab())


# -- entries written down --------------------------------------------------------------------------


def test_an_entry_of_celery_is_read_as_it_is():
    found = read_entry(
        "add-every-30-seconds",
        {
            "task": "tasks.add",
            "schedule": 30.0,
            "args": (16, 16),
            "kwargs": {"z": 1},
            "options": {"queue": "low", "expires": 15.0},
            "relative": False,
        },
    )

    assert found.name == "add-every-30-seconds"
    assert found.task == "tasks.add"
    assert found.schedule == schedule(30)
    assert found.args == (16, 16)
    assert found.kwargs == {"z": 1}
    assert found.options == {"queue": "low"}
    assert found.expires == 15.0


def test_an_interval_may_be_relative():
    assert entry(schedule=3600, relative=True).schedule == schedule(3600, relative=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"schedule": "61 * * * *"}, "minute='61': 61 is not from 0 to 59"),
        ({"schedule": "@sometimes"}, "give five"),
        ({"schedule": None}, "it has no 'schedule'"),
        ({"task": ""}, "give the name of a task"),
        ({"scedule": 5}, "there is no 'scedule' in an entry; did you mean 'schedule'?"),
        ({"args": "abc"}, "args='abc': give a list or a tuple"),
        ({"kwargs": [1]}, "kwargs=[1]: give a mapping"),
        ({"options": {1: 2}}, "give a mapping whose keys are text"),
        ({"timezone": "Mars"}, "no time zone is called 'Mars'"),
        ({"start": "soon"}, "start: give a datetime"),
        ({"end": True}, "end: give a datetime"),
        ({"start": 100, "end": 99}, "it ends before it starts"),
        ({"jitter": -1}, "jitter=-1: give seconds"),
        ({"expires": 0}, "expires is 0"),
        ({"expires": 5, "options": {"expires": 5}}, "say it once"),
        ({"missed": "twice"}, "missed='twice': give one of 'skip', 'once', 'all'"),
        ({"missed_limit": 0}, "missed_limit=0"),
        ({"overlap": "queue"}, "give one of 'allow', 'skip'"),
        ({"enabled": "no"}, "enabled='no'"),
        ({"name": "x"}, "there is no 'name' in an entry"),
    ],
)
def test_a_mistake_names_the_entry_and_the_remedy(given, said):
    with pytest.raises(ConfigurationError) as caught:
        read_entry("report", {"task": "t", "schedule": 5, **given})

    assert str(caught.value).startswith("the entry 'report' of the schedule: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, "ü" * 101, 5])
def test_a_name_must_fit_into_an_id(name):
    with pytest.raises(ConfigurationError, match="name"):
        read_entry(name, {"task": "t", "schedule": 5})


@pytest.mark.parametrize("given", [None, 5, ["task", "schedule"]])
def test_an_entry_is_a_mapping(given):
    with pytest.raises(ConfigurationError, match="no mapping"):
        read_entry("report", given)


def test_the_zone_of_the_entry_is_stronger_than_that_of_the_app():
    mapping = {"task": "t", "schedule": "0 7 * * *", "start": "2024-01-01T00:00"}

    by_app = read_entry("a", mapping, timezone="Asia/Tokyo")
    by_entry = read_entry("a", {**mapping, "timezone": "Europe/Berlin"}, timezone="Asia/Tokyo")

    assert by_app.schedule.timezone == "Asia/Tokyo"
    assert by_app.start == datetime(2023, 12, 31, 15, tzinfo=UTC).timestamp()
    assert by_entry.schedule.timezone == "Europe/Berlin"
    assert by_entry.start == datetime(2023, 12, 31, 23, tzinfo=UTC).timestamp()


def test_an_entry_comes_back_from_json_as_it_was():
    original = entry(
        schedule=crontab("*/5", timezone="Asia/Tokyo"),
        args=[1, "a"],
        kwargs={"b": None},
        options={"queue": "low"},
        start="2024-01-01T00:00Z",
        end=datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=2))),
        jitter=5,
        expires=timedelta(minutes=1),
        missed="all",
        missed_limit=7,
        overlap="skip",
        enabled=False,
        since=NOON,
    )

    assert original == read_entry("report", json.loads(json.dumps(original.plain())))
    assert entry().plain() == {"task": "reports.make", "schedule": {"every": 60.0}}


# -- when ------------------------------------------------------------------------------------------


def dues(found, after=NOON, count=3):
    return [each.due - NOON for each in islice(found.upcoming(after), count)]


def test_an_interval_begins_where_its_name_says_so_that_not_all_begin_at_once():
    phases = {entry(f"entry {number}").following(NOON).due % 60 for number in range(100)}

    assert len(phases) > 90
    assert entry("a").following(NOON) == entry("a").following(NOON)


def test_an_interval_with_a_start_counts_from_it():
    assert dues(entry(start=NOON + 7)) == [7, 67, 127]
    assert dues(entry(start=NOON - 7)) == [53, 113, 173]


def test_nothing_is_due_before_the_start_or_after_the_end():
    every_minute = entry(schedule="* * * * *", start=NOON + 180, end=NOON + 300)

    assert dues(every_minute, count=9) == [180, 240, 300]
    assert every_minute.following(NOON + 300) is None


def test_the_id_is_the_name_and_the_due_time():
    assert entry(schedule="* * * * *").following(NOON).id == "report@2024-05-05T12:01:00Z"
    assert (
        entry(schedule=0.5, start=NOON).following(NOON).id == "report@2024-05-05T12:00:00.500000Z"
    )


def test_the_longest_id_has_room_in_a_message():
    found = entry("x" * 200, schedule=0.001, start=NOON).following(NOON)

    assert len(found.id) <= 255


def test_an_occurrence_is_sent_with_its_id_and_where_it_is_from():
    found = entry(
        schedule="* * * * *", expires=30, options={"queue": "low", "headers": {"tenant": 5}}
    )

    assert found.following(NOON).options() == {
        "queue": "low",
        "task_id": "report@2024-05-05T12:01:00Z",
        "expires": datetime(2024, 5, 5, 12, 1, 30, tzinfo=UTC),
        "headers": {
            "celery_beat_task": True,
            "periodic_task_name": "report",
            "tenant": 5,
        },
    }


@given(st.floats(0, 500), st.floats(NOON, NOON + 10_000))
def test_jitter_delays_each_but_never_past_the_next(jitter, after):
    found = entry(schedule="* * * * *", jitter=jitter)
    row = list(islice(found.upcoming(after), 20))

    moments = [each.at for each in row]
    assert moments == sorted(set(moments))
    assert moments[0] > after
    assert all(0 <= each.at - each.due <= min(jitter, 60) + 1e-6 for each in row)
    assert [b.due - a.due for a, b in pairwise(row)] == [60] * 19
    assert row[1:] == list(islice(found.upcoming(row[0].at), 19))
    assert row[9] == found.latest(after, row[9].at)
    assert row[9] == found.latest(after, (row[9].at + row[10].at) / 2)


def test_jitter_spreads_what_is_due_at_one_time():
    first = [entry(f"{n}", schedule="0 * * * *", jitter=60).following(NOON) for n in range(100)]

    assert len({each.due for each in first}) == 1
    assert len({each.at // 10 for each in first}) == 6


@given(st.sets(st.integers(1, 10_000)), st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_last_of_a_row_is_found_from_both_ends(times, after, until):
    def following(moment):
        return min((each for each in times if each > moment), default=None)

    expected = max((each for each in times if after < each <= until), default=None)

    assert last_within(following, after, until) == expected


def test_the_last_of_very_many_is_found_in_few_steps():
    asked = 0

    class Counting(Schedule):
        def following(self, after, anchor=0.0):
            nonlocal asked
            asked += 1
            return after // 1 + 1

    found = entry(schedule=Counting())

    assert found.latest(0.0, NOON + 0.5).due == NOON
    assert asked < 100
