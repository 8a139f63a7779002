"""The page about schedules says what the code does, and what Celery's does."""

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import click
import pytest
from celery import Celery
from celery.schedules import crontab as celery_crontab

from taskq import crontab
from taskq.cli.beat import beat
from taskq.cli.schedule import schedule
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


def test_every_option_of_beat_stands_in_the_page():
    table = rows(section(page("schedules"), "Beat"))

    named = [option for cells in table for option in code(cells[0]) if option.startswith("-")]
    assert [option for param in shown_options(beat) for option in param.opts] == named


def test_every_command_of_the_schedule_stands_in_the_page_with_its_options():
    table = rows(section(page("schedules"), "Changes while it runs"))
    told = {}
    for cells in table:
        for words in map(str.split, code(cells[0])):
            names = words[2:] if words[:2] == ["taskq", "schedule"] else words
            told[names[0]] = {
                word for text in (*code(cells[0]), *code(cells[1])) for word in text.split()
            }

    for name, command in schedule.commands.items():
        options = {option for param in shown_options(command) for option in param.opts}
        missing = options - {"-A", "--app", "--json"} - told[name]
        assert not missing, f"taskq schedule {name}: {missing}"
        made_up = {word for word in told[name] if word.startswith("--")} - options
        assert not made_up, f"taskq schedule {name}: {made_up}"


def test_the_commands_for_programs_stand_in_the_page():
    with_json = [
        name
        for name, command in schedule.commands.items()
        if any("--json" in param.opts for param in command.params)
    ]

    assert f"`{with_json[0]}`, `{with_json[1]}` and `{with_json[2]}` have `--json`" in page(
        "schedules"
    )


def shown_options(command):
    return [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
