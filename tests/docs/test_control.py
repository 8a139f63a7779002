"""The page about remote control lists what there is, and says how long it is remembered."""

import re

from taskq.broker import topology
from taskq.control import memory
from taskq.control.commands import COMMANDS
from tests.docs.pages import page, rows
from tests.docs.test_reference import section

PAGE = page("control")
WEEK = 7 * 86_400.0


def as_told(kind):
    """The table of all commands of that *kind*."""
    for command in COMMANDS:
        if command.kind == kind and not command.hidden:
            arguments = ", ".join(f"`{argument.name}`" for argument in command.arguments)
            lasts = ["yes" if command.change else ""] if kind == "control" else []
            yield [f"`{command.name}`", arguments, command.summary, *lasts]


def test_every_question_is_listed():
    assert list(as_told("inspect")) == rows(section(PAGE, "Questions"))


def test_every_command_is_listed():
    assert list(as_told("control")) == rows(section(PAGE, "Commands"))


def test_the_bounds_of_what_is_remembered_are_true():
    told = dict(rows(section(PAGE, "What lasts")))
    arguments = topology.arguments(topology.log("taskq.control", "celery.pidbox"), 0)

    assert arguments["x-max-age"] == "7D"
    assert f"{arguments['x-max-length-bytes'] // 1_000_000} MB" in told["in the log, on RabbitMQ"]
    assert (topology.LOG_AGE, memory.REVOKED_FOR) == (WEEK, WEEK)
    assert [f"{topology.LOG_LENGTH:,}"] == numbers(told["in the log, on SQLite and in memory"])
    assert [f"{memory.MOST_REVOKED:,}"] == numbers(told["revoked ids, in a worker"])
    assert [f"{memory.MOST_NAMES:,}"] == numbers(told["pauses and limits, in a worker"])


def numbers(text):
    return re.findall(r"\d+,\d+", text)
