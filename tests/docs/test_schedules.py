"""The page about schedules says what the code does, and what Celery's does."""

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab as celery_crontab

from taskq import crontab
from taskq.schedules import read_entry
from taskq.schedules.notation import _KNOWN
from tests.docs.pages import page, rows
from tests.docs.test_reference import code, section

ZONE = "America/New_York"

TABLE = rows(section(page("schedules"), "When clocks change"))


def shown(times):
    cells = [f"{time:%H:%M}{' again' if time.fold else ''}" for time in times]
    return ", ".join(cells) or "none"


def by_celery(text, start, end):
    """What Celery's beat would do from *start* to *end*, each run being the last for the next."""
    app = Celery(set_as_current=False)
    app.conf.timezone = ZONE
    last = start.astimezone(UTC) - timedelta(seconds=1)
    while True:
        schedule = celery_crontab.from_string(text)
        schedule.app, schedule.nowfun = app, lambda last=last: last
        last += schedule.remaining_estimate(last)
        if last >= end.astimezone(UTC):
            return
        yield last.astimezone(ZoneInfo(ZONE))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]} on {row[1]}")
def test_the_table_of_changing_clocks_is_true(row):
    text, date = code(row[0])[0], row[1]
    start = datetime.fromisoformat(date).replace(tzinfo=ZoneInfo(ZONE))
    end = start.replace(hour=4)

    def ours(dst):
        schedule = crontab.from_string(text, timezone=ZONE, dst=dst)
        until = end.timestamp()
        return takewhile(
            lambda time: time.timestamp() < until, schedule.upcoming(start - timedelta(seconds=1))
        )

    assert [shown(ours("once")), shown(ours("clock")), shown(by_celery(text, start, end))] == row[
        2:
    ]


def test_every_key_of_an_entry_stands_in_the_page_with_its_default():
    table = rows(section(page("schedules"), "Entries"))

    assert _KNOWN - {"since"} == {key for cells in table for key in code(cells[0])}
    usual = read_entry("a", {"task": "t", "schedule": 5})
    for cells in table:
        if cells[0] in ("`missed`", "`missed_limit`", "`overlap`", "`enabled`"):
            assert eval(cells[1].strip("`")) == getattr(usual, cells[0].strip("`"))


def test_every_policy_stands_in_the_page():
    table = rows(section(page("schedules"), "When nobody was there"))

    assert ["skip", "once", "all"] == [eval(code(cells[0])[0]) for cells in table]
