"""`schedule` and `clocked`: due again and again, and due once."""

import pickle
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import schedule as celery_schedule

from taskq import clocked, schedule

NEW_YORK = "America/New_York"

AUTUMN = datetime(2024, 11, 3, 4, tzinfo=UTC)  # midnight of the day whose second hour comes twice
SPRING = datetime(2024, 3, 10, 5, tzinfo=UTC)  # midnight of the day that has no third hour


def hours(given, after, count):
    return [due.strftime("%d %H:%M") for due in islice(given.upcoming(after), count)]


# -- a grid ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [30, 0.001, 0.1, 1 / 3, 86_400.0, timedelta(minutes=7)])
@pytest.mark.parametrize("anchor", [0.0, 1_700_000_000.123456, 4_000_000.001, 2e9])
def test_due_times_stand_on_a_grid_and_none_is_left_out(every, anchor):
    given = schedule(every)
    first = given.following(1_800_000_000.0, anchor)

    moment = first
    for _ in range(1000):
        after, moment = moment, given.following(moment, anchor)
        assert moment == pytest.approx(after + given.seconds, abs=1e-6)
        assert given.following(moment - 1e-6, anchor) == moment
    assert 1_800_000_000.0 < first <= 1_800_000_000.0 + given.seconds + 1e-6


def test_a_moment_between_two_microseconds_loses_no_due_time():
    assert schedule(1).following(1_700_000_000.9999998) == 1_700_000_001.0


def test_the_same_grid_is_found_from_anywhere():
    given = schedule(50)
    row = list(islice(given.upcoming(datetime(2024, 1, 1, tzinfo=UTC)), 100))

    assert row[50:] == list(islice(given.upcoming(row[49]), 50))


def test_an_interval_does_not_care_about_clocks():
    in_new_york = schedule(3600, timezone=NEW_YORK)

    assert hours(in_new_york, AUTUMN, 3) == ["03 01:00", "03 01:00", "03 02:00"]


@pytest.mark.parametrize("every", [0, -5, 0.0001, timedelta(0), "often", float("nan"), None])
def test_an_interval_is_some_time(every):
    with pytest.raises(ValueError, match="run_every"):
        schedule(every)


# -- relative --------------------------------------------------------------------------------------


def test_relative_days_are_due_at_midnight_whatever_clocks_do():
    daily = schedule(86_400, relative=True, timezone=NEW_YORK)

    assert hours(daily, AUTUMN - timedelta(hours=1), 3) == ["03 00:00", "04 00:00", "05 00:00"]


def test_relative_hours_are_due_at_full_hours_of_the_zone():
    kathmandu = schedule(3600, relative=True, timezone="Asia/Kathmandu")  # 5:45 ahead of UTC

    assert hours(kathmandu, AUTUMN, 2) == ["03 10:00", "03 11:00"]


def test_a_relative_interval_of_several_hours_takes_each_so_many():
    two_hours = schedule(7500, relative=True, timezone=NEW_YORK)

    assert hours(two_hours, SPRING, 3) == ["10 03:00", "10 04:00", "10 06:00"]


def test_less_than_a_minute_has_nothing_to_be_relative_to():
    assert schedule(30, relative=True).following(1_000_000_000.0, 7.0) == 1_000_000_027.0


def test_only_what_counts_passing_time_is_steady():
    assert schedule(60).steady
    assert schedule(30, relative=True).steady
    assert not schedule(60, relative=True).steady
    assert not clocked("2024-01-01").steady


# -- Celery's methods ------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("zone", ["UTC", NEW_YORK, "Asia/Kathmandu"])
@pytest.mark.parametrize("every", [10, 90, 3600, 7200, 86_400, 3 * 86_400])
def test_they_say_what_celery_says(relative, zone, every):
    app = Celery(set_as_current=False)
    app.conf.timezone = zone
    for moment in (datetime(2024, 5, 5, 10, 7, 30, tzinfo=UTC), AUTUMN, SPRING):
        start = moment.astimezone(ZoneInfo(zone))  # as beat has it; Celery rounds in its zone
        for later in (0, 5, 4000, 100_000, 300_000):

            def now(moment=start + timedelta(seconds=later)):
                return moment

            theirs = celery_schedule(every, relative, nowfun=now, app=app)
            ours = schedule(every, relative, nowfun=now, timezone=zone)

            assert theirs.remaining_estimate(start) == ours.remaining_estimate(start)
            assert tuple(theirs.is_due(start)) == tuple(ours.is_due(start))


# -- once ------------------------------------------------------------------------------------------


def test_a_clocked_time_is_due_once():
    moment = datetime(2030, 12, 31, 23, 59, tzinfo=UTC).timestamp()

    for once in (
        clocked("2030-12-31T23:59:00Z"),
        clocked(datetime(2030, 12, 31, 23, 59)),
        clocked("2031-01-01T08:59", timezone="Asia/Tokyo"),
        clocked("2031-01-01T08:59").within("Asia/Tokyo"),
    ):
        assert once.following(0.0) == moment
        assert once.following(moment) is None


def test_a_clocked_time_says_when_it_comes_and_that_it_has_come():
    def now():
        return datetime(2024, 5, 5, 12, tzinfo=UTC)

    assert clocked("2024-05-05T12:00:09Z", now).is_due(now()) == (False, 9.0)
    assert clocked("2024-05-05T12:00:00Z", now).is_due(now()) == (True, None)
    assert clocked("2024-05-04", now).remaining_estimate(now()) == timedelta(hours=-36)


@pytest.mark.parametrize("given", ["tomorrow", 5, None])
def test_a_clocked_time_is_a_moment(given):
    with pytest.raises(ValueError, match="clocked_time"):
        clocked(given)


# -- as values -------------------------------------------------------------------------------------


def test_they_are_equal_when_they_mean_the_same():
    assert schedule(60) == schedule(timedelta(minutes=1))
    assert schedule(60) != schedule(60, relative=True)
    assert schedule(60, timezone=NEW_YORK) == schedule(60)
    assert len({schedule(60), schedule(60.0), clocked("2024-01-01"), clocked("2024-01-01")}) == 2


@pytest.mark.parametrize("given", [schedule(5, True, app=object()), clocked("2024-01-01")])
def test_they_can_be_pickled(given):
    assert given == pickle.loads(pickle.dumps(given))


def test_their_reprs_say_when():
    assert repr(schedule(90)) == "<schedule every 0:01:30>"
    assert repr(schedule(3600, relative=True)) == "<schedule every 1:00:00 relative>"
    assert repr(clocked("2024-01-01", timezone=NEW_YORK)) == (
        "<clocked 2024-01-01T00:00:00 America/New_York>"
    )
