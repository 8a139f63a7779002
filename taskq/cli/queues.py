"""`taskq queues`: what lies in queues, and what operators do with it; everything is asked first.

Options become calls of `taskq.queues`, of the broker's keeper, and of `app.control`.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from taskq.app import TaskQ
from taskq.broker.base import Keeper
from taskq.cli.completion import queue_names
from taskq.cli.place import with_app
from taskq.cli.text import one_line, print_table, roughly
from taskq.queues import Line, Move, find, lines, stock

#: Refusals that are told one by one; they tend to have the same reason.
_TOLD = 20

_JSON = click.option("--json", "as_json", is_flag=True, help="For programs: JSON, one a line.")
_MANAGEMENT = click.option(
    "--management",
    metavar="URL",
    envvar="TASKQ_MANAGEMENT_URL",
    help="RabbitMQ's HTTP API, http://user:password@host:15672, which knows more.",
)
_TIMEOUT = click.option(
    "-t",
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Seconds to wait for one answer more.",
)
_YES = click.option("--yes", is_flag=True, help="Do not ask.")
_LIMIT = click.option("--limit", type=click.IntRange(1), help="So many messages at most.")


_NAME = click.argument("name", shell_complete=queue_names)


@contextmanager
def _keeper(app: TaskQ, management: str | None = None) -> Iterator[Keeper]:
    keeper = app.broker.keeper(management)
    try:
        yield keeper
    finally:
        keeper.close()


@click.group()
def queues() -> None:
    """Look at queues; purge, move, pause, resume and delete them."""


# -- looking -------------------------------------------------------------------------------------


@queues.command("list")
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=queue_names)
@_MANAGEMENT
@_JSON
@with_app()
def list_queues(app: TaskQ, names: Sequence[str], management: str | None, as_json: bool) -> None:
    """List the queues NAME, or all that the app knows."""
    with _keeper(app, management) as keeper:
        found = lines(app, keeper, names)
        # RabbitMQ's ladder of delays is one for all queues.
        shared = any(line.stock and line.stock.delayed is None for line in found)
        delayed = keeper.delayed() if shared else 0
    if as_json:
        for line in found:
            click.echo(json.dumps(line.record()))
        if shared:
            click.echo(json.dumps({"queue": None, "delayed": delayed}))
        return
    print_table(_HEADINGS, [_cells(line) for line in found], narrow=(0,))
    if delayed:
        click.echo(f"{_many(delayed)} for any of the broker's queues wait for their time.")


_HEADINGS = ("QUEUE", "TYPE", "READY", "UNACKED", "CONSUMERS", "DELAYED", "DEAD", "OLDEST")


def _cells(line: Line) -> tuple[str, ...]:
    told = line.record()
    if not told["exists"]:
        return (line.queue, "none", *["-"] * 6)
    numbers = ("ready", "unacked", "consumers", "delayed", "dead")
    age = "-" if told["age"] is None else roughly(told["age"])
    return (line.queue, told["type"] or "?", *(_number(told[name]) for name in numbers), age)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


# -- changing ------------------------------------------------------------------------------------


@queues.command()
@_NAME
@_YES
@_JSON
@with_app()
def purge(app: TaskQ, name: str, yes: bool, as_json: bool) -> None:
    """Throw away what is ready in the queue NAME, for good."""
    queue = find(app, name).name
    with _keeper(app) as keeper:
        ready = stock(keeper, queue).ready
        if ready and not yes:
            question = f"Throw {_many(ready)} of {queue} on {app.broker.url} away for good?"
            click.confirm(question, abort=True, err=True)
        purged = keeper.purge(queue)
    _tell(as_json, f"{_many(purged)} of {queue} thrown away.", queue=queue, purged=purged)


@queues.command()
@_NAME
@click.option("--if-empty", is_flag=True, help="Not if it has messages.")
@click.option("--if-unused", is_flag=True, help="Not if it has consumers.")
@_YES
@_JSON
@with_app()
def delete(
    app: TaskQ, name: str, if_empty: bool, if_unused: bool, yes: bool, as_json: bool
) -> None:
    """Delete the queue NAME, and what is in it."""
    queue = find(app, name).name
    with _keeper(app) as keeper:
        ready = stock(keeper, queue).ready
        if not yes:
            content = f" with {_many(ready)}" if ready else ""
            question = f"Delete queue {queue}{content} on {app.broker.url}?"
            click.confirm(question, abort=True, err=True)
        keeper.delete(queue, if_unused=if_unused, if_empty=if_empty)
    _tell(as_json, f"{queue} deleted.", queue=queue, deleted=True)


@queues.command()
@click.argument("source", metavar="FROM", shell_complete=queue_names)
@click.argument("target", metavar="TO", shell_complete=queue_names)
@_LIMIT
@_JSON
@with_app()
def move(app: TaskQ, source: str, target: str, limit: int | None, as_json: bool) -> None:
    """Move messages FROM a queue TO another, the oldest first.

    Each leaves FROM once TO has it, so that none is lost when this is interrupted.
    """
    moving = Move(app, source, target, limit)
    try:
        with _bar(moving.expected) as on_progress:
            moving.run(on_progress)
    finally:  # also when it was interrupted
        refused = [{"id": name, "why": why} for name, why in moving.refused]
        words = f"{_many(moving.moved)} moved from {moving.source.name} to {moving.target.name}."
        _tell(as_json, words, moved=moving.moved, refused=refused)
        if not as_json:
            for name, why in moving.refused[:_TOLD]:
                told = f"[{name}] stays in {moving.source.name}: {why}"
                click.echo(one_line(told), err=True)
    sys.exit(bool(moving.refused))


@queues.command()
@_NAME
@_TIMEOUT
@_JSON
@with_app()
def pause(app: TaskQ, name: str, timeout: float, as_json: bool) -> None:
    """Have no worker take from the queue NAME, nor any that starts later, until it is resumed."""
    _steer(app, name, timeout, as_json, "paused", app.control.pause)


@queues.command()
@_NAME
@_TIMEOUT
@_JSON
@with_app()
def resume(app: TaskQ, name: str, timeout: float, as_json: bool) -> None:
    """Have workers take from the queue NAME again."""
    _steer(app, name, timeout, as_json, "resumed", app.control.resume)


def _steer(
    app: TaskQ,
    name: str,
    timeout: float,
    as_json: bool,
    done: str,
    command: Callable[..., Sequence[Mapping[str, Any]]],
) -> None:
    """Tell all workers; that none answers is no failure, since they hear it when they start."""
    queue = find(app, name).name
    replies = command(queue.removeprefix(app.conf.queue_prefix), reply=True, timeout=timeout)
    workers = {node: reply for each in replies for node, reply in each.items()}
    obeyed = [node for node, reply in workers.items() if "ok" in reply]
    by = f"by {', '.join(obeyed)}" if obeyed else "for workers that start later; none answered"
    _tell(as_json, f"{queue} {done} {by}.", queue=queue, done=done, workers=workers)
    for node in workers.keys() - obeyed:
        click.echo(f"{node}: {one_line(str(workers[node]))}", err=True)
    sys.exit(len(obeyed) < len(workers))


@contextmanager
def _bar(length: int) -> Iterator[Callable[[int], object]]:
    """Show on a terminal how many messages were dealt with; what is yielded is to be told."""
    if not sys.stderr.isatty():
        yield lambda _dealt: None
        return
    with click.progressbar(length=length, label="moving", show_pos=True, file=sys.stderr) as bar:
        yield lambda dealt: bar.update(dealt - bar.pos)


def _tell(as_json: bool, words: str, **facts: Any) -> None:
    click.echo(json.dumps(facts) if as_json else words)


def _many(count: int) -> str:
    return f"{count:,} message{'s' * (count != 1)}"
