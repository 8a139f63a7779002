"""`taskq beat`: options in, exit code out; the work itself is that of `taskq.beat`."""

import os
import sys
from typing import Literal

import click

from taskq import log
from taskq.beat.beat import Beat
from taskq.cli.place import app_of

_LEVELS = ("debug", "info", "warning", "error", "critical")


@click.command()
@click.option("-A", "--app", help="The app: package.module or package.module:attribute.")
@click.option("-l", "--loglevel", type=click.Choice(_LEVELS, case_sensitive=False), default="info")
@click.option("--logfile", type=click.Path(dir_okay=False), help="Log there, not to the terminal.")
@click.option("--log-style", type=click.Choice(["plain", "json"]), default="plain")
@click.option("--leash", is_flag=True, hidden=True, help="End with standard input.")
def beat(
    app: str | None,
    loglevel: str,
    logfile: str | None,
    log_style: Literal["plain", "json"],
    leash: bool,
) -> None:
    """Send tasks as the schedule says, until TERM or INT; of several, one leads."""
    log.configure(loglevel, logfile and os.path.abspath(logfile), log_style)
    with app_of(app) as found:
        Beat(found).run(leash=sys.stdin.fileno() if leash else None)
