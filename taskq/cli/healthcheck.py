"""`taskq healthcheck`: says whether a worker works, from its ready file alone."""

import json
import sys

import click

from taskq import clock
from taskq.worker.health import ailment


@click.command()
@click.argument("ready_file", type=click.Path(dir_okay=False))
@click.option("--consuming", is_flag=True, help="Also demand that it is connected to its broker.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def healthcheck(ready_file: str, consuming: bool, as_json: bool) -> None:
    """Exit with 0 if the worker started with --ready-file READY_FILE is alive, else with 1.

    Asks neither broker nor worker, so it may be asked often.
    """
    found = ailment(ready_file, clock.wall(), consuming=consuming)
    if as_json:
        click.echo(json.dumps({"healthy": found is None, "reason": found}))
    else:
        click.echo(found or "healthy", err=found is not None)
    sys.exit(found is not None)
