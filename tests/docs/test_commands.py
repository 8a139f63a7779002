"""The page about the command line knows every command, option and exit code."""

import re

import click
import pytest

from taskq.cli import fleet, result
from taskq.cli.call import call
from taskq.cli.events import events
from taskq.cli.main import COMMANDS
from taskq.cli.result import result as result_command
from taskq.cli.status import status
from tests.docs.pages import page, rows

#: What every command has.
EVERYWHERE = {"--app", "--broker", "--help"}


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def table(title: str) -> list[list[str]]:
    """The rows of the table whose head begins so."""
    (found,) = re.findall(rf"^(\| {re.escape(title)} .*\n(?:\|.*\n)+)", page("commands"), re.M)
    return rows(found)


def test_every_command_stands_in_its_page() -> None:
    named = {word for cells in table("command") for word in code(cells[0])}

    assert {f"taskq {name}" for name in COMMANDS} == named


@pytest.mark.parametrize(
    ("title", "command"),
    [
        ("option of `call`", call),
        ("option of `result`", result_command),
        ("option of `events`", events),
        ("option of `status`, `inspect`, `control`", status),
    ],
)
def test_every_option_stands_in_the_table_of_its_command(
    title: str, command: click.Command
) -> None:
    options = {
        max(parameter.opts, key=len)
        for parameter in command.params
        if isinstance(parameter, click.Option)
    }

    named = {word for cells in table(title) for word in code(cells[0]) if word.startswith("--")}

    assert options - EVERYWHERE == named
    assert {word for cells in table("option |") for word in code(cells[0])} >= EVERYWHERE


def test_every_exit_code_stands_in_the_page() -> None:
    codes = {0, 1, 2, 3, result.FAILED, result.REVOKED, result.NO_RESULT, fleet.NO_ANSWER}

    assert codes == {int(cells[0]) for cells in table("exit code")}
