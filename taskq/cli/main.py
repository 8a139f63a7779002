"""The root of the command line: finds the subcommand and turns taskq's errors into exit codes.

A command's module is imported when that command is used: a worker would carry all the others along.
Exit codes: 0 done, 1 failed, 2 wrong use, 3 the app cannot be used.
"""

import sys
from difflib import get_close_matches
from importlib import import_module

import click

from taskq import __version__
from taskq.errors import ConfigurationError, TaskqError

#: The commands, which are named as their modules, and what they are for.
COMMANDS = {
    "beat": "Send what is due by the schedule.",
    "dead": "Look at dead letters, send them again, throw them away.",
    "healthcheck": "Whether a worker on this host is ready.",
    "schedule": "Show and change the schedule while beat runs.",
    "worker": "Run tasks.",
}


class _Commands(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        if name not in COMMANDS:
            near = get_close_matches(name, COMMANDS, 1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            ctx.fail(f"there is no command {name!r}; {meant}taskq --help lists them")
        command: click.Command = getattr(import_module(f"taskq.cli.{name}"), name)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="taskq")
def cli() -> None:
    """Background work on RabbitMQ, or on one file."""


def main() -> None:
    """Run the command that the process was called with, and exit."""
    try:
        cli(prog_name="taskq")
    except ConfigurationError as error:
        click.echo(f"taskq: {error}", err=True)
        sys.exit(3)
    except TaskqError as error:
        click.echo(f"taskq: {error}", err=True)
        sys.exit(1)
