"""The root of the command line: finds the subcommand and turns taskq's errors into exit codes.

Exit codes: 0 done, 1 failed, 2 wrong use, 3 the app cannot be used.
"""

import sys
from importlib.metadata import version

import click

from taskq.cli.beat import beat
from taskq.cli.dead import dead
from taskq.cli.healthcheck import healthcheck
from taskq.cli.schedule import schedule
from taskq.cli.worker import worker
from taskq.errors import ConfigurationError, TaskqError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("taskq"), prog_name="taskq")
def cli() -> None:
    """Background work on RabbitMQ, or on one file."""


cli.add_command(worker)
cli.add_command(beat)
cli.add_command(schedule)
cli.add_command(healthcheck)
cli.add_command(dead)


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
