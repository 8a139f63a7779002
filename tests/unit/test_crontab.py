"""`crontab`: what may be written, when it is due, and what a change of clocks does to it."""

import pickle
from datetime import UTC, datetime, timedelta
from itertools import islice
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest

from taskq import crontab
from taskq.schedules.cron import NICKNAMES

NEW_YORK = "America/New_York"


def times(schedule, after, count=3):
    """The next *count* due times as clocks show them, with their offset."""
    moment = datetime.fromisoformat(after)
    return [due.strftime("%Y-%m-%d %H:%M %z") for due in islice(schedule.upcoming(moment), count)]


# -- fields ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "hours"),
    [
        ("*", range(24)),
        (None, range(24)),
        (7, [7]),
        ("7", [7]),
        ([3, 1, 3], [1, 3]),
        ({22, 4}, [4, 22]),
        ((hour for hour in (5, 6)), [5, 6]),
        ("1,2, 9", [1, 2, 9]),
        ("8-11", [8, 9, 10, 11]),
        ("22-2", [0, 1, 2, 22, 23]),
        ("*/5", [0, 5, 10, 15, 20]),
        ("22-4/2", [0, 2, 4, 22]),
        ("8-18/4,23", [8, 12, 16, 23]),
        ("*/100", [0]),
    ],
)
def test_a_field_means_what_it_means_to_celery(given, hours):
    assert frozenset(hours) == crontab(hour=given).hour


@pytest.mark.parametrize(
    ("field", "given", "numbers"),
    [
        ("day_of_week", "mon,WED,Saturday", {1, 3, 6}),
        ("day_of_week", "fri-mon", {5, 6, 0, 1}),
        ("day_of_week", "thurs", {4}),
        ("month_of_year", "jan-mar/2,dec", {1, 3, 12}),
        ("day_of_month", "*/7", {1, 8, 15, 22, 29}),
        ("month_of_year", "*/2", {1, 3, 5, 7, 9, 11}),
    ],
)
def test_steps_count_members_and_names_are_numbers(field, given, numbers):
    assert numbers == getattr(crontab(**{field: given}), field)


@pytest.mark.parametrize(
    ("field", "given", "said"),
    [
        ("minute", "60", "minute='60': 60 is not from 0 to 59"),
        ("minute", [-1], "-1 is not from 0 to 59"),
        ("minute", "-1", "'-1' is not understood"),
        ("hour", 24, "24 is not from 0 to 23"),
        ("hour", "3/2", "a step needs a range: 3-23/2"),
        ("hour", "*/0", "a step is 1 or more"),
        ("hour", "1,,2", "'' is not understood"),
        ("hour", "1-5-7", "'1-5-7' is not understood"),
        ("hour", "mon", "'mon' is not understood"),
        ("hour", [], "hour is empty"),
        ("day_of_week", "7", "Sunday is 0"),
        ("day_of_week", "mo", "'mo' is not understood"),
        ("day_of_week", "1#2", "'1#2' is not understood"),
        ("day_of_month", "L", "'L' is not understood"),
        ("day_of_month", "?", r"'\?' is not understood"),
        ("day_of_month", 0, "0 is not from 1 to 31"),
    ],
)
def test_a_wrong_field_is_named_with_the_mistake(field, given, said):
    with pytest.raises(ValueError, match=said) as caught:
        crontab(**{field: given})

    assert field in str(caught.value)


@pytest.mark.parametrize("given", [1.5, [1.5], ["1"], object()])
def test_a_field_of_no_sensible_type_is_a_type_error(given):
    with pytest.raises(TypeError, match="minute"):
        crontab(minute=given)


@pytest.mark.parametrize(("days", "months"), [(30, 2), ("31", "4,6,9,11"), ([30, 31], "feb")])
def test_days_that_never_come_are_refused(days, months):
    with pytest.raises(ValueError, match="never"):
        crontab(day_of_month=days, month_of_year=months)


def test_a_29_february_is_no_mistake():
    assert crontab(day_of_month=29, month_of_year=2)


# -- five fields -----------------------------------------------------------------------------------


def test_five_fields_stand_in_the_order_of_cron():
    assert crontab(30, 7, day_of_week=1) == crontab.from_string("30 7 * * 1")
    assert crontab(1, 2, 5, 3, 4) == crontab.from_string("  1\t2 3  4 5 ")


@pytest.mark.parametrize(("word", "fields"), NICKNAMES.items())
def test_a_word_stands_for_five_fields(word, fields):
    assert crontab.from_string(fields) == crontab.from_string(word.upper())


def test_a_daily_crontab_is_due_at_midnight():
    assert times(crontab.from_string("@daily"), "2024-05-05T12:00Z", 2) == [
        "2024-05-06 00:00 +0000",
        "2024-05-07 00:00 +0000",
    ]


@pytest.mark.parametrize("text", ["", "* * * *", "* * * * * *", "@reboot"])
def test_what_is_not_five_fields_says_what_they_are(text):
    with pytest.raises(ValueError, match="give five"):
        crontab.from_string(text)


def test_both_fields_of_days_must_match():
    thirteenth_on_a_friday = crontab.from_string("0 0 13 * fri")

    assert times(thirteenth_on_a_friday, "2024-01-01T00:00Z", 2) == [
        "2024-09-13 00:00 +0000",
        "2024-12-13 00:00 +0000",
    ]


# -- when ------------------------------------------------------------------------------------------


def test_a_due_time_is_later_than_the_moment_asked_about():
    every_minute = crontab()

    assert every_minute.following(600.0) == 660.0
    assert every_minute.following(599.999) == 600.0
    assert every_minute.following(600.001) == 660.0


def test_a_rare_day_is_found_decades_ahead():
    """2100 is no leap year, so that this 29 February on a Sunday is 40 years after the last."""
    leap_sunday = crontab.from_string("0 0 29 2 0")

    assert times(leap_sunday, "2088-03-01T00:00Z", 2) == [
        "2128-02-29 00:00 +0000",
        "2156-02-29 00:00 +0000",
    ]


def test_the_zone_is_its_own_else_that_of_the_app_else_utc():
    app = SimpleNamespace(conf=SimpleNamespace(timezone="Asia/Tokyo"))

    assert crontab().zone == ZoneInfo("UTC")
    assert crontab(app=app).zone == ZoneInfo("Asia/Tokyo")
    assert crontab(app=app, timezone=NEW_YORK).zone == ZoneInfo(NEW_YORK)
    assert crontab().within(NEW_YORK) == crontab(timezone=NEW_YORK)
    assert crontab(timezone="Asia/Tokyo").within(NEW_YORK) == crontab(timezone="Asia/Tokyo")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc", "Europe"])
def test_a_zone_that_does_not_exist_is_refused(zone):
    with pytest.raises(ValueError, match="no time zone is called"):
        crontab(timezone=zone)


# -- a change of clocks ----------------------------------------------------------------------------


def test_a_time_in_the_gap_is_due_once_and_later_by_the_gap():
    assert times(crontab(30, 2, timezone=NEW_YORK), "2024-03-09T12:00-05:00") == [
        "2024-03-10 03:30 -0400",
        "2024-03-11 02:30 -0400",
        "2024-03-12 02:30 -0400",
    ]


def test_all_times_in_the_gap_are_due_in_their_order():
    assert times(crontab("15,45", 2, timezone=NEW_YORK), "2024-03-10T00:00-05:00") == [
        "2024-03-10 03:15 -0400",
        "2024-03-10 03:45 -0400",
        "2024-03-11 02:15 -0400",
    ]


def test_two_times_that_fall_on_one_moment_are_one():
    assert times(crontab(15, "2,3", timezone=NEW_YORK), "2024-03-10T00:00-05:00", 2) == [
        "2024-03-10 03:15 -0400",
        "2024-03-11 02:15 -0400",
    ]


def test_a_gap_of_half_an_hour_keeps_times_in_order():
    """02:00 to 02:30 is left out; 02:40 comes before what 02:15 has become."""
    lord_howe = crontab("15,40", 2, timezone="Australia/Lord_Howe")

    assert times(lord_howe, "2024-10-06T00:00+10:30") == [
        "2024-10-06 02:40 +1100",
        "2024-10-06 02:45 +1100",
        "2024-10-07 02:15 +1100",
    ]


def test_a_gap_of_a_day_moves_the_day():
    samoa = crontab(0, 7, timezone="Pacific/Apia")

    assert times(samoa, "2011-12-29T12:00-10:00", 2) == [
        "2011-12-31 07:00 +1400",
        "2012-01-01 07:00 +1400",
    ]


def test_a_gap_may_reach_into_another_year():
    kiribati = crontab(0, 20, day_of_month=31, month_of_year=12, timezone="Pacific/Kiritimati")

    assert times(kiribati, "1994-12-30T12:00-10:40", 2) == [
        "1995-01-01 20:00 +1400",
        "1995-12-31 20:00 +1400",
    ]


def test_a_time_that_comes_twice_is_due_the_first_time():
    assert times(crontab(30, 1, timezone=NEW_YORK), "2024-11-02T12:00-04:00", 2) == [
        "2024-11-03 01:30 -0400",
        "2024-11-04 01:30 -0500",
    ]


def test_every_half_hour_has_no_gap_when_an_hour_comes_twice():
    assert times(crontab("*/30", timezone=NEW_YORK), "2024-11-03T00:45-04:00", 5) == [
        "2024-11-03 01:00 -0400",
        "2024-11-03 01:30 -0400",
        "2024-11-03 01:00 -0500",
        "2024-11-03 01:30 -0500",
        "2024-11-03 02:00 -0500",
    ]


def test_every_half_hour_has_no_double_when_an_hour_is_left_out():
    assert times(crontab("*/30", timezone=NEW_YORK), "2024-03-10T01:15-05:00", 3) == [
        "2024-03-10 01:30 -0500",
        "2024-03-10 03:00 -0400",
        "2024-03-10 03:30 -0400",
    ]


def test_by_the_clock_it_is_due_whenever_clocks_show_it():
    spring = crontab(30, 2, timezone=NEW_YORK, dst="clock")
    autumn = crontab(30, 1, timezone=NEW_YORK, dst="clock")

    assert times(spring, "2024-03-09T12:00-05:00", 1) == ["2024-03-11 02:30 -0400"]
    assert times(autumn, "2024-11-03T00:00-04:00", 2) == [
        "2024-11-03 01:30 -0400",
        "2024-11-03 01:30 -0500",
    ]
    with pytest.raises(ValueError, match="give 'once' or 'clock'"):
        crontab(dst="twice")


# -- Celery's methods ------------------------------------------------------------------------------


def at(text):
    return lambda: datetime.fromisoformat(text)


def test_it_is_due_when_a_due_time_passed_since_the_last_run():
    seven = crontab(0, 7, nowfun=at("2024-05-05T06:59:30Z"))
    assert seven.is_due(datetime(2024, 5, 4, 7, 0)) == (False, 30.0)
    assert seven.remaining_estimate(datetime(2024, 5, 4, 7, 0)) == timedelta(seconds=30)

    seven = crontab(0, 7, nowfun=at("2024-05-05T07:00:00Z"))
    assert seven.is_due(datetime(2024, 5, 4, 7, 0, tzinfo=UTC)) == (True, 86_400.0)

    seven = crontab(0, 7, nowfun=at("2024-05-05T09:00:00Z"))
    assert seven.is_due(datetime(2024, 5, 1)) == (True, 22 * 3600.0)
    assert seven.remaining_estimate(datetime(2024, 5, 5)) == timedelta(hours=-2)


def test_without_a_nowfun_it_asks_the_clock():
    assert crontab().is_due(datetime(2020, 1, 1)).is_due
    assert not crontab().is_due(datetime.now(UTC) + timedelta(days=1)).is_due


# -- as a value ------------------------------------------------------------------------------------


def test_crontabs_that_mean_the_same_are_equal():
    assert crontab("*/30") == crontab([0, 30])
    assert hash(crontab("*/30")) == hash(crontab("0,30"))
    assert crontab("*/30") != crontab("*/15")
    assert crontab() != crontab(timezone=NEW_YORK)
    assert crontab() != crontab(dst="clock")
    assert crontab() != "* * * * *"


def now():
    return datetime(2024, 1, 1, tzinfo=UTC)


def test_it_can_be_pickled_without_its_app():
    original = crontab("*/5", 7, "mon", timezone=NEW_YORK, nowfun=now, app=object())

    copy = pickle.loads(pickle.dumps(original))

    assert original == copy
    assert copy.nowfun is now
    assert copy.app is None


def test_its_repr_is_a_line_of_cron():
    assert repr(crontab(30, [7, 8], "mon-fri")) == "<crontab 30 7,8 * * mon-fri>"
    assert repr(crontab(timezone=NEW_YORK)) == "<crontab * * * * * America/New_York>"
