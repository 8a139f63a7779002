"""The root of the command line: finds the subcommand and turns taskq's errors into exit codes.

A command's module is imported when that command is used: a worker would carry all the others along.
Exit codes: 0 done, 1 failed, 2 wrong use, 3 the app cannot be used, and what single commands say
with others: `taskq.cli.result`, `taskq.cli.fleet`.
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
    "call": "Send a task, and wait for what it returns.",
    "completion": "Print what teaches a shell to complete all this.",
    "control": "Tell workers what to do.",
    "dead": "Look at dead letters, send them again, throw them away.",
    "events": "Show what workers and tasks tell of themselves.",
    "healthcheck": "Whether a worker on this host is ready.",
    "inspect": "Ask workers what they are doing.",
    "queues": "List queues; purge, move, pause and delete them.",
    "result": "Print what a task returned.",
    "schedule": "Show and change the schedule while beat runs.",
    "status": "List the workers that answer.",
    "top": "Watch workers, queues and tasks on a live screen.",
    "worker": "Run tasks.",
}


class _Commands(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            if ctx.resilient_parsing:  # a shell wants to complete what follows: there is nothing
                return None
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
