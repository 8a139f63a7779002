"""`crontab` beside Celery's own, croniter, and a slow reading of the rules, on random examples.

Away from changes of clocks all agree.  Near them taskq follows its own rules, which
docs/schedules.md lists and argues.
"""

import os
import random
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest
from celery import Celery
from celery.schedules import crontab as celery_crontab
from croniter import croniter

from taskq import crontab
from taskq.schedules.field import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH_OF_YEAR
from taskq.schedules.walltime import stretches

IN_FULL = int(os.environ.get("TASKQ_TEST_SCALE", "1")) > 1

CASES = 100_000 if IN_FULL else 2_000

#: In the order of Celery's arguments.
FIELDS = (MINUTE, HOUR, DAY_OF_WEEK, DAY_OF_MONTH, MONTH_OF_YEAR)

ZONES = (
    *("UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu"),
    *("Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia", "Africa/Casablanca"),
)

FIRST, LAST = datetime(1990, 1, 1, tzinfo=UTC), datetime(2060, 1, 1, tzinfo=UTC)


@pytest.fixture
def chance():
    return random.Random(5)


def specs(chance, field):
    """A random text for *field*."""
    if chance.random() < 0.35:
        return "*"
    return ",".join(part(chance, field) for _ in range(chance.choice([1, 1, 1, 2, 3])))


def part(chance, field):
    def number():
        return str(chance.randint(field.lowest, field.highest))

    kinds = ["*", f"*/{chance.randint(1, field.highest + 3)}", number(), number()]
    kinds += [f"{number()}-{number()}", f"{number()}-{number()}/{chance.randint(1, 9)}"]
    if field.words:
        word = chance.choice(field.words)
        kinds += [word, word[:3].upper()]
    return chance.choice(kinds)


def moment(chance, zone):
    """Any, but half of them near a change of the clocks of *zone*."""
    found = datetime.fromtimestamp(
        chance.randint(int(FIRST.timestamp()), int(LAST.timestamp())), UTC
    )
    nearby = changes(ZoneInfo(zone), found.year)
    if nearby and chance.random() < 0.5:
        found = datetime.fromtimestamp(chance.choice(nearby) + chance.randint(-90_000, 90_000), UTC)
    return found + timedelta(seconds=chance.choice([0, 0.5]))


@cache
def changes(zone, year):
    """The moments of *year* when the offset of *zone* changes."""
    return [each.start for each in stretches(zone, year) if each.offset != each.before]


def change_between(zone, start, end):
    """Whether clocks change from a day before *start* to a day after *end*."""
    low, high = (start - timedelta(days=1)).timestamp(), (end + timedelta(days=1)).timestamp()
    return any(
        low <= each <= high
        for year in range(start.year - 1, end.year + 2)
        for each in changes(zone, year)
    )


@cache
def celery_in(zone):
    app = Celery(set_as_current=False)
    app.conf.timezone = zone
    return app


def test_celery_finds_the_same_due_times(chance):
    compared = apart = 0
    while compared < CASES:
        given = [specs(chance, field) for field in FIELDS]
        zone = chance.choice(ZONES)
        last = moment(chance, zone)
        try:
            theirs = celery_crontab(*given, app=celery_in(zone), nowfun=lambda now=last: now)
        except ValueError:
            with pytest.raises(ValueError, match="never"):
                crontab(*given)
            continue
        ours = crontab(*given, timezone=zone, nowfun=lambda now=last: now)

        expected, found = theirs.remaining_estimate(last), ours.remaining_estimate(last)

        compared += 1
        if found != expected:
            apart += 1
            case = f"{given} {zone} after {last}: {last + found}, Celery {last + expected}"
            assert change_between(ZoneInfo(zone), last, last + max(expected, found)), case
    assert apart < compared / 500


def test_celery_says_the_same_of_whether_it_is_due(chance):
    for _ in range(CASES // 4):
        given = [specs(chance, field) for field in FIELDS[:3]]
        last = moment(chance, "UTC")
        now = last + timedelta(seconds=chance.choice([0, 30, 3600, 90_000]))
        theirs = celery_crontab(*given, app=celery_in("UTC"), nowfun=lambda now=now: now)

        ours = crontab(*given, nowfun=lambda now=now: now).is_due(last)

        assert tuple(theirs.is_due(last)) == tuple(ours), (given, last, now)


def test_croniter_finds_the_same_due_times(chance):
    for _ in range(CASES):
        given = [specs(chance, field) for field in FIELDS]
        try:
            ours = crontab(*given)
        except ValueError:
            continue
        last = moment(chance, "UTC").replace(microsecond=0)
        # It has another mind about ranges that wrap, so it is given the numbers.
        numbers = [
            ",".join(map(str, field.read(text)[1]))
            for field, text in zip(FIELDS, given, strict=True)
        ]
        minute, hour, week, day, month = numbers
        theirs = croniter(
            f"{minute} {hour} {day} {month} {week}",
            last,
            day_or=False,
            max_years_between_matches=60,
        )

        assert theirs.get_next(datetime) == next(ours.upcoming(last)), (given, last)


# -- the rules, read slowly ------------------------------------------------------------------------


def by_the_rules(schedule, zone, after, days):
    """The first due time after *after* among all those of *days* around it, or None."""
    once, hourly = schedule.dst == "once", len(schedule.hour) == 24
    found = []
    first = after.astimezone(zone).date() - timedelta(days=2)
    for date in (first + timedelta(days=number) for number in range(days + 4)):
        if (
            date.month in schedule.month_of_year
            and date.day in schedule.day_of_month
            and date.isoweekday() % 7 in schedule.day_of_week
        ):
            for hour in schedule.hour:
                for minute in schedule.minute:
                    shown = datetime(date.year, date.month, date.day, hour, minute, tzinfo=zone)
                    first_time = shown.timestamp()
                    second_time = shown.replace(fold=1).timestamp()
                    if first_time <= second_time:
                        found.append(first_time)
                        if not once or hourly:
                            found.append(second_time)
                    elif once:  # never shown: Python takes the offset before the change
                        found.append(first_time)
    return min((each for each in found if each > after.timestamp()), default=None)


def test_near_changes_of_clocks_the_rules_hold_in_every_zone(chance):
    names = sorted(available_timezones())
    compared = 0
    for name in names if IN_FULL else chance.sample(names, 60):
        zone = ZoneInfo(name)
        near = [each for year in range(1980, 2038) for each in changes(zone, year)]
        for change in chance.sample(near, min(len(near), 20 if IN_FULL else 5)):
            day = datetime.fromtimestamp(change, zone)
            hours = {(day.hour + number) % 24 for number in chance.choices(range(-2, 3), k=2)}
            schedule = crontab(
                minute=chance.choice(["*/15", "*/20", "5", specs(chance, MINUTE)]),
                hour=chance.choice(["*", hours, hours, specs(chance, HOUR)]),
                day_of_week=chance.choice(["*", "*", "*", specs(chance, DAY_OF_WEEK)]),
                timezone=name,
                dst=chance.choice(["once", "once", "clock"]),
            )
            after = datetime.fromtimestamp(change + chance.randint(-7_200, 7_200), UTC)

            expected = by_the_rules(schedule, zone, after, days=10)

            if expected is not None:
                compared += 1
                found = schedule.following(after.timestamp())
                assert found == expected, (schedule, after)
    assert compared > 20


# -- what Celery does otherwise, as docs/schedules.md says -----------------------------------------


def celery_times(given, zone, after, count):
    """What Celery's beat would do: each run is the last one for the next."""
    found, last = [], datetime.fromisoformat(after)
    for _ in range(count):
        schedule = celery_crontab(*given, app=celery_in(zone), nowfun=lambda now=last: now)
        last = last + schedule.remaining_estimate(last)
        found.append(last.astimezone(ZoneInfo(zone)).strftime("%H:%M %z"))
    return found


def test_celery_leaves_out_the_hour_that_comes_twice():
    runs = celery_times(["*/30"], "America/New_York", "2024-11-03T00:45-04:00", 3)

    assert runs == ["01:00 -0400", "01:30 -0400", "02:00 -0500"]


def test_celery_goes_back_in_time_in_the_hour_that_comes_twice():
    runs = celery_times(["*"], "America/New_York", "2024-11-03T01:10:30-05:00", 1)

    assert runs == ["01:11 -0400"]


def test_celery_runs_only_the_first_of_several_times_that_are_left_out():
    runs = celery_times(["15,45", "2"], "America/New_York", "2024-03-10T00:00-05:00", 2)

    assert runs == ["03:15 -0400", "02:15 -0400"]
