"""`taskq result`: what became of a task, now or as it goes on, and how commands tell it."""

import json
import sys
import threading
from collections.abc import Callable
from datetime import datetime

import click

from taskq import clock, states
from taskq.app import TaskQ
from taskq.cli.fleet import print_json
from taskq.cli.place import with_app
from taskq.cli.text import clean, one_line, styled
from taskq.errors import BackendUnavailable
from taskq.wire.result import Result, exception_from_wire

#: Exit codes where the command did its work, and this is what it found.
FAILED, REVOKED, NO_RESULT = 4, 5, 6
_CODES = {states.SUCCESS: 0, states.FAILURE: FAILED, states.REVOKED: REVOKED}

#: Seconds between two looks at what is not final and nobody tells.
_LOOK = 0.5


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("--follow", is_flag=True, help="Wait until the task has ended, telling its states.")
@click.option("--timeout", type=click.FloatRange(0), help="Seconds to follow it at most.")
@click.option("--traceback", "with_traceback", is_flag=True, help="Of a failure, show all.")
@click.option("--json", "as_json", is_flag=True, help="For programs: JSON, one object a line.")
@with_app()
def result(
    app: TaskQ,
    *,
    task_id: str,
    follow: bool,
    timeout: float | None,
    with_traceback: bool,
    as_json: bool,
) -> None:
    """Print what the task ID returned."""
    if follow:

        def on_change(known: Result) -> None:
            if known.state not in states.READY_STATES:
                tell(known, as_json=as_json)

        found = await_result(app, task_id, timeout, on_change)
    else:
        found = app.backend.fetch(task_id)
    found = found or Result(task_id, states.PENDING)
    sys.exit(tell(found, as_json=as_json, with_traceback=with_traceback))


def await_result(
    app: TaskQ,
    task_id: str,
    timeout: float | None,
    on_change: Callable[[Result], None] = lambda _: None,
) -> Result | None:
    """The final result, or what is known of it after *timeout* seconds.

    *on_change* is called with each state that was seen, the final one too.
    """
    deadline = None if timeout is None else clock.monotonic() + timeout
    arrived = threading.Event()
    final: list[Result] = []

    def on_ready(result: Result) -> None:
        final.append(result)
        arrived.set()

    known: Result | None = None
    end = app.backend.subscribe(task_id, on_ready)
    try:
        while True:
            newest = final[0] if final else _look(app, task_id) or known
            if newest is not None and newest != known:
                known = newest
                on_change(known)
            left = _LOOK if deadline is None else min(_LOOK, deadline - clock.monotonic())
            if left <= 0 or (known is not None and known.state in states.READY_STATES):
                return known
            arrived.wait(left)
    finally:
        end()


def _look(app: TaskQ, task_id: str) -> Result | None:
    try:
        return app.backend.fetch(task_id)
    except BackendUnavailable:
        return None  # who follows goes on while the store is away


def tell(result: Result, *, as_json: bool, with_traceback: bool = False) -> int:
    """Print *result*: what the task returned to standard output, all else to standard error.

    The exit code that says the same.
    """
    error = error_of(result)
    if as_json:
        print_json(
            id=result.task_id,
            state=result.state,
            result=None if error else result.value,
            error=error,
            traceback=result.traceback,
            done=result.date_done,
        )
    elif result.state == states.SUCCESS:
        value = result.value
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        # As bytes it goes out as it is: click takes colours away where there is no terminal.
        whole = text.encode(errors="backslashreplace")
        click.echo(_harmless(text) if sys.stdout.isatty() else whole)
    else:
        _note(result)
        if with_traceback and result.traceback:
            click.echo(_harmless(result.traceback), err=True)
    return _CODES.get(result.state, NO_RESULT)


def _harmless(text: str) -> str:
    return "\n".join(map(clean, text.splitlines()))


def error_of(result: Result) -> str | None:
    """The exception of a task that failed, was revoked or is tried again, in one line."""
    if result.state not in states.EXCEPTION_STATES:
        return None
    error = exception_from_wire(result.value)
    return one_line(f"{type(error).__name__}: {error}").removesuffix(":")


#: How states look: good, bad, and on the way.
COLOURS = {
    states.SUCCESS: "green",
    states.FAILURE: "red",
    states.REVOKED: "red",
    states.REJECTED: "red",
    states.RETRY: "yellow",
    states.STARTED: "cyan",
}


def _note(result: Result) -> None:
    """One line about *result* for people, beside standard output."""
    state = styled(clean(result.state), fg=COLOURS.get(result.state))
    said = error_of(result)
    if said is None and result.value is not None:
        said = one_line(json.dumps(result.value, default=str))
    if result.state == states.PENDING:
        said = "it waits, or nothing is known of it"
    when = ""
    if result.date_done:
        when = f", {datetime.fromisoformat(result.date_done):%Y-%m-%d %H:%M:%S %Z}"
    click.echo(f"{state}{f' {said}' if said else ''}{when}", err=True)
