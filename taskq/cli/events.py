"""`taskq events`: workers and tasks as they tell of themselves, in a view or line by line."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from taskq import clock
from taskq.app import TaskQ
from taskq.cli.fleet import print_json
from taskq.cli.place import with_app
from taskq.cli.result import COLOURS
from taskq.cli.text import one_line, roughly, styled, table
from taskq.events import Receiver, State, Task, Worker

#: Fields that every event has, or that its line shows already.
_SHOWN = {
    *("type", "hostname", "timestamp", "clock", "pid", "utcoffset", "local_received"),
    *("uuid", "name", "root_id", "parent_id", "traceback", "sw_ident", "sw_ver", "sw_sys"),
}
#: The line of an event shows so many characters of a field.
_LONGEST = 200

#: The end of the year 9998, as far as the calendar goes in every zone.
_LATEST = 253_370_764_800

#: To the upper left corner, and clear from there on.
_HOME = "\x1b[H\x1b[J"


@click.command()
@click.option("--dump", is_flag=True, help="One line for each, as without a terminal.")
@click.option("--json", "as_json", is_flag=True, help="For programs: JSON, one object a line.")
@click.option(
    "--freq",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Seconds between two views.",
)
@with_app()
def events(app: TaskQ, *, dump: bool, as_json: bool, freq: float) -> None:
    """Show what workers tell, until Ctrl-C.

    Of tasks they tell where they were started with -E, or after taskq control enable_events.
    """
    state = State()
    lines = dump or as_json or not sys.stdout.isatty()

    def on_event(event: dict[str, Any]) -> None:
        about = state.event(event)
        if as_json:
            print_json(**event)
        elif lines:
            click.echo(line_of(event, about))

    try:
        with Receiver(app, {"*": on_event}) as receiver:
            receiver.open()
            while True:
                if not lines:
                    columns, height = shutil.get_terminal_size()
                    view = view_of(state, clock.wall(), columns, height)
                    click.echo(_HOME + "\n".join(view), nl=False)
                receiver.capture(timeout=freq)
    except KeyboardInterrupt:
        click.echo()


# -- a line for each -----------------------------------------------------------------------------


def line_of(event: Mapping[str, Any], about: Worker | Task | None) -> str:
    """*event* in one line; the task that it is *about* has its name from an earlier one."""
    moment = datetime.fromtimestamp(max(0, min(event["timestamp"], _LATEST)))
    subject = ""
    if isinstance(about, Task):
        subject = f"{about.name or 'task'}[{about.uuid}]"
    told = [f"{name}={_brief(event[name])}" for name in event if name not in _SHOWN]
    kind = styled(f"{one_line(event['type']):<18}", fg=_colour(event["type"]))
    words = [one_line(each) for each in (str(event["hostname"]), subject, *told) if each]
    return f"{moment:%H:%M:%S.%f}"[:-3] + f" {kind} {' '.join(words)}"


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _colour(kind: str) -> str | None:
    subject = kind.removeprefix("task-")
    state = {"succeeded": "SUCCESS", "failed": "FAILURE", "retried": "RETRY"}.get(subject)
    return COLOURS.get(state or subject.upper())


# -- the view ------------------------------------------------------------------------------------


def view_of(state: State, now: float, columns: int, height: int) -> list[str]:
    """Workers and the latest tasks at *now*, in *height* lines of at most *columns*."""
    alive = state.alive_workers(now)
    counts = {"worker": len(alive), "task": state.task_count, "event": state.event_count}
    title = ", ".join(f"{count:,} {thing}{'s' * (count != 1)}" for thing, count in counts.items())
    lines = [styled(title[:columns], bold=True), ""]
    workers = sorted(state.workers.values(), key=lambda worker: worker.hostname)
    half = max(2, height // 2 - 2)
    if workers:
        rows = [_worker(worker, worker in alive, now) for worker in workers[:half]]
        heads = ("WORKER", "STATE", "ACTIVE", "DONE", "LOAD", "HEARD")
        lines += table(heads, rows, (0, 4), columns, {"gone": "red", "alive": "green"})
        lines.append("")
    tasks = [task for _, task in state.tasks_by_time(max(0, height - len(lines) - 2))]
    if tasks:
        heads = ("STATE", "TASK", "ID", "WORKER", "TOOK", "RESULT")
        lines += table(heads, [_task(task) for task in tasks], (1, 3, 5), columns, COLOURS)
    return lines[:height]


def _worker(worker: Worker, is_alive: bool, now: float) -> Sequence[str]:
    load = " ".join(f"{each:.2f}" for each in worker.loadavg)
    counts = ("-" if n is None else f"{n:,}" for n in (worker.active, worker.processed))
    word = "alive" if is_alive else "offline" if worker.is_offline else "gone"
    return worker.hostname, word, *counts, load or "-", f"{roughly(now - worker.heard)} ago"


def _task(task: Task) -> Sequence[str]:
    took = "-" if task.runtime is None else f"{task.runtime:.3f}s"
    said = task.exception if task.failed or task.retried else task.result
    return (
        task.state,
        task.name or "-",
        task.uuid,
        task.hostname or task.client or "-",
        took,
        (said or "-")[:_LONGEST],
    )
