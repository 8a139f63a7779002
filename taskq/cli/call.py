"""`taskq call`: a task sent from a shell, and waited for if that is wanted."""

import json
import sys
from datetime import datetime
from typing import Any

import click

from taskq import states
from taskq.app import TaskQ
from taskq.cli.completion import queue_names, task_names
from taskq.cli.fleet import print_json
from taskq.cli.place import with_app
from taskq.cli.result import await_result, tell
from taskq.cli.text import span
from taskq.errors import TaskqError
from taskq.wire.result import Result


def _json(kind: type, words: str) -> Any:
    """A callback that makes a value of the *kind* out of an option's JSON text."""

    def read(_ctx: click.Context, _parameter: click.Parameter, text: str) -> Any:
        try:
            value = json.loads(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is no JSON: {error}") from None
        if not isinstance(value, kind):
            raise click.BadParameter(f"{text!r} is no JSON {words}")
        return value

    return read


def _seconds(text: str) -> float:
    """Plain seconds, or a span of time."""
    try:
        return float(text)
    except ValueError:
        return span(text)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no moment; write 2030-12-31T23:59+01:00") from None


def _late(text: str) -> float | datetime:
    """Seconds or a span from now, or a moment."""
    try:
        return _seconds(text)
    except click.BadParameter:
        return _moment(text)


@click.command()
@click.argument("task", shell_complete=task_names)
@click.option("--args", default="[]", callback=_json(list, "list"), help="JSON list.")
@click.option("--kwargs", default="{}", callback=_json(dict, "object"), help="JSON object.")
@click.option("--countdown", type=_seconds, metavar="SPAN", help="Run it in 90s, 15m, 1h30m.")
@click.option("--eta", type=_moment, metavar="MOMENT", help="Run it at 2030-12-31T23:59.")
@click.option("--expires", type=_late, metavar="SPAN|MOMENT", help="Then it is too late.")
@click.option("-Q", "--queue", shell_complete=queue_names, help="Else as the app's routes say.")
@click.option("--exchange", help="Send it to this exchange.")
@click.option("--routing-key", help="... with this key.")
@click.option("--priority", type=click.IntRange(0, 255), help="0 is the lowest.")
@click.option("--id", "task_id", help="Else a random one.")
@click.option("--serializer", help="json or msgpack.")
@click.option("--compression", help="gzip, bzip2, ...")
@click.option("--time-limit", type=_seconds, metavar="SPAN", help="Kill it after so long.")
@click.option("--soft-time-limit", type=_seconds, metavar="SPAN", help="Warn it after so long.")
@click.option("--foreign", is_flag=True, help="Also if the app has no such task.")
@click.option("--wait", type=click.FloatRange(0), metavar="SECONDS", help="... for its result.")
@click.option("--traceback", "with_traceback", is_flag=True, help="Of a failure, show all.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
@with_app(modules=True)
def call(
    app: TaskQ,
    *,
    task: str,
    args: list[Any],
    kwargs: dict[str, Any],
    foreign: bool,
    wait: float | None,
    with_traceback: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Send the TASK and print its id; with --wait, what it returned."""
    anything_goes = foreign or not app.registry
    known = app.registry.get(task) if anything_goes else app.registry[task]
    try:
        sent = app.sender.send(task, args, kwargs, options, known)
    except TaskqError:
        raise
    except (TypeError, ValueError) as error:  # arguments that do not fit the task
        raise click.UsageError(str(error)) from error
    if wait is None:
        if as_json:
            print_json(id=sent.id)
        else:
            click.echo(sent.id)
        return
    if not as_json:
        click.echo(sent.id, err=True)
    found = await_result(app, sent.id, wait) or Result(sent.id, states.PENDING)
    sys.exit(tell(found, as_json=as_json, with_traceback=with_traceback))
