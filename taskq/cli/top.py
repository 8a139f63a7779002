"""`taskq top`: workers, queues and tasks on a live screen with keys, or one frame as text.

What is shown is decided by `taskq.top`, how it looks by `screen`, which keys there are by
`keyboard`.
"""

import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import click

from taskq import clock
from taskq.app import TaskQ
from taskq.cli.completion import queue_names
from taskq.cli.keyboard import Keyboard, suspend
from taskq.cli.place import with_app
from taskq.cli.screen import Frame, Screen
from taskq.top.feed import Feed
from taskq.top.stage import Stage

#: Seconds between two frames while no key is pressed.
_REFRESH = 0.5


@click.command()
@click.option("--once", is_flag=True, help="Print one frame as text, as without a terminal.")
@click.option(
    "-i",
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks at workers and queues.",
)
@click.option(
    "-Q",
    "--queues",
    multiple=True,
    shell_complete=queue_names,
    help="The queues to be shown, with commas between, beside those that workers take from; "
    "else all of the app.",
)
@click.option(
    "--no-enable-events",
    "events",
    flag_value=False,
    default=True,
    help="Do not have workers tell of their tasks; those that do so are heard.",
)
@click.option(
    "--management",
    metavar="URL",
    envvar="TASKQ_MANAGEMENT_URL",
    help="RabbitMQ's HTTP API, http://user:password@host:15672, which knows more.",
)
@with_app()
def top(
    app: TaskQ,
    once: bool,
    interval: float,
    queues: Sequence[str],
    events: bool,
    management: str | None,
) -> None:
    """Watch workers, queues and tasks; ? shows the keys."""
    names = [name for given in queues for name in given.split(",") if name]
    screen = Screen()
    with Feed(app, interval=interval, events=events, queues=names, management=management) as feed:
        if once or not (sys.stdin.isatty() and sys.stdout.isatty()):
            feed.wait()
            screen.print(_frame(app, feed, Stage()))
            _raise_failure(feed)
        else:
            _watch(app, feed, screen)


def _watch(app: TaskQ, feed: Feed, screen: Screen) -> None:
    stage = Stage()
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that the terminal is put back then, too
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    while not stage.is_over:
        try:
            if _watched(app, feed, screen, stage) == "suspend":
                suspend()
        except (KeyboardInterrupt, EOFError):
            return


def _watched(app: TaskQ, feed: Feed, screen: Screen, stage: Stage) -> str | None:
    """Show frames and do what keys say, until the end or until it is to be suspended."""
    with ExitStack() as ends:
        keyboard = ends.enter_context(Keyboard())
        ends.enter_context(screen)
        while not stage.is_over:
            _raise_failure(feed)
            screen.show(_frame(app, feed, stage))
            key = keyboard.key(_REFRESH)
            if key == "suspend":
                return key
            if key is not None:
                with feed.lock:
                    tables = feed.picture.tables(clock.wall())
                action = stage.press(key, tables)
                if action is not None:
                    feed.do(action)
    return None


def _frame(app: TaskQ, feed: Feed, stage: Stage) -> Frame:
    now = clock.wall()
    with feed.lock:
        tables = feed.picture.tables(now)
        nodes = len(feed.picture.nodes(now))
        rate = feed.picture.rate.a_second(now)
    workers = f"{nodes} worker{'s' * (nodes != 1)}"
    head = f"taskq top  {workers}  {rate:,.1f} tasks/s  {app.broker.url}"
    match stage.mode:
        case "ask":
            foot = stage.question
        case "filter":
            foot = f"/{stage.filter}_"
        case _:
            shown = f"only lines with {stage.filter!r}; Esc shows all" if stage.filter else ""
            foot = shown or feed.note
    return Frame(head, stage.parts(tables), foot, help=stage.mode == "help")


def _raise_failure(feed: Feed) -> None:
    if feed.failure is not None:
        raise feed.failure
