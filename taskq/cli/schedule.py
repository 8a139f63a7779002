"""`taskq schedule`: what is sent when, looked at and changed while beat runs.

Changes go into the store of `taskq.beat`, where beat finds them within a second or so.
"""

import heapq
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import click

from taskq import clock, log, states
from taskq.app import TaskQ
from taskq.beat.base import Row, Run, Store, merged
from taskq.beat.stores import store_of
from taskq.cli.place import app_of
from taskq.cli.text import one_line, print_table, roughly, span
from taskq.errors import TaskqError
from taskq.schedules import Entry, Occurrence
from taskq.url import scheme
from taskq.wire.result import Result

_APP = click.option("-A", "--app", help="The app: package.module or package.module:attribute.")
_JSON = click.option("--json", "as_json", is_flag=True, help="For programs: JSON, one a line.")


@dataclass(slots=True)
class _Line:
    """All that is known of one entry."""

    entry: Entry
    row: Row | None
    result: Result | None
    next: Occurrence | None

    @property
    def last(self) -> Run | None:
        return self.row.last if self.row else None

    @property
    def is_added(self) -> bool:
        return self.row is not None and self.row.entry is not None

    @property
    def state(self) -> str | None:
        """That of the last run, PENDING while it waits or its result is gone."""
        if self.last is None:
            return None
        return self.result.state if self.result else states.PENDING

    @property
    def seconds(self) -> float | None:
        """From the sending of the last run to its end."""
        if self.result is None or self.last is None or self.result.date_done is None:
            return None
        return datetime.fromisoformat(self.result.date_done).timestamp() - self.last.sent

    @property
    def error(self) -> str | None:
        """The last run's exception."""
        if self.result is None or not isinstance(self.result.value, dict):
            return None
        if self.result.state not in states.EXCEPTION_STATES:
            return None
        said = self.result.value.get("exc_message")
        words = ", ".join(map(str, said)) if isinstance(said, list | tuple) else str(said or "")
        return f"{self.result.value.get('exc_type')}: {words}".removesuffix(": ")

    def record(self) -> dict[str, Any]:
        """The line for programs."""
        last = self.last
        return {
            "name": self.entry.name,
            **self.entry.plain(),
            "enabled": self.entry.enabled,
            "added": self.is_added,
            "next": self.next and _shown(self.entry, self.next.at),
            "last": last and {**last._asdict(), "due": _shown(self.entry, last.due)},
            "state": self.state,
            "seconds": self.seconds,
            "error": self.error,
        }


# -- commands ------------------------------------------------------------------------------------


@click.group()
def schedule() -> None:
    """See what is sent when, and change it while beat runs."""
    log.configure("error")


@schedule.command("list")
@_APP
@_JSON
def list_entries(app: str | None, as_json: bool) -> None:
    """List all entries, with what became of their last runs."""
    with app_of(app) as found:
        lines = _lines(found)
    if as_json:
        for line in lines:
            click.echo(json.dumps(line.record(), default=str))
    elif lines:
        headings = ("NAME", "TASK", "SCHEDULE", "NEXT", "LAST", "STATE", "TOOK", "ERROR")
        print_table(headings, [_cells(line) for line in lines], narrow=(0, 1, 2, 7))
    else:
        click.echo("The schedule is empty.")


@schedule.command()
@click.argument("name")
@_APP
@_JSON
def show(name: str, app: str | None, as_json: bool) -> None:
    """Show everything about the entry NAME."""
    with app_of(app) as found:
        (line,) = _lines(found, only=name)
    record = line.record()
    if as_json:
        click.echo(json.dumps(record, default=str))
        return
    record["schedule"] = _words(line.entry)
    for key, value in record.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            click.echo(f"{key:<12} {one_line(text)}")


@schedule.command()
@click.argument("name")
@click.option("--task", required=True, help="The name of the task.")
@click.option(
    "--schedule",
    "when",
    required=True,
    help="90s, 15m; five fields or @daily; a moment such as 2030-12-31T23:59.",
)
@click.option("--args", default="[]", help="JSON list.")
@click.option("--kwargs", default="{}", help="JSON object.")
@click.option("--options", default="{}", help="JSON object: queue, priority, ...")
@click.option("--timezone", help="IANA name; else the app's.")
@click.option("--start", help="Not due before this moment.")
@click.option("--end", help="Not due after this moment.")
@click.option("--jitter", type=span, help="Spread runs over so long.")
@click.option("--expires", type=span, help="So long after the due time it is too late.")
@click.option("--missed", type=click.Choice(["skip", "once", "all"]))
@click.option("--missed-limit", type=click.IntRange(1))
@click.option("--overlap", type=click.Choice(["allow", "skip"]))
@click.option("--disabled", is_flag=True, help="Do not send it yet.")
@click.option("--replace", is_flag=True, help="Also if there is one of this name.")
@_APP
def add(name: str, app: str | None, when: str, disabled: bool, replace: bool, **more: Any) -> None:
    """Add the entry NAME."""
    given = {key: value for key, value in more.items() if value is not None}
    for key in ("args", "kwargs", "options"):
        given[key] = _from_json(key, given[key])
    given |= {"schedule": _schedule(when), "enabled": not disabled}
    with app_of(app) as found, _open(found) as store:
        entry = found.schedule_entry(name, given)
        if not replace and name in _entries(found, store.rows()):
            raise click.ClickException(f"there is an entry {name!r}; --replace puts this in place")
        results = scheme(found.conf.backend_options().url)
        if entry.overlap == "skip" and results in ("rpc", "disabled"):
            raise click.ClickException(
                f"--overlap skip needs a result store that beat can read, not {results}://"
            )
        store.put(entry, clock.wall())
        following = entry.following(clock.wall())
    shown = _shown(entry, following.at) if following and entry.enabled else "never"
    click.echo(f"{name} added; next: {shown}")


@schedule.command()
@click.argument("name")
@_APP
def remove(name: str, app: str | None) -> None:
    """Remove the entry NAME that was added."""
    with app_of(app) as found, _open(found) as store:
        rows = store.rows()
        _known(name, _entries(found, rows))
        if not any(row.name == name and row.entry for row in rows):
            raise click.ClickException(f"{name!r} stands in the app: disable it, or change the app")
        store.remove(name)
        own = found.schedule_entries()
    click.echo(f"{name} removed{'; that of the app is in force' if name in own else ''}")


@schedule.command()
@click.argument("name")
@_APP
def enable(name: str, app: str | None) -> None:
    """Send the entry NAME, from now on."""
    _switch(app, name, True)


@schedule.command()
@click.argument("name")
@_APP
def disable(name: str, app: str | None) -> None:
    """Do not send the entry NAME, until it is enabled."""
    _switch(app, name, False)


@schedule.command("run-now")
@click.argument("name")
@_APP
def run_now(name: str, app: str | None) -> None:
    """Send the task of the entry NAME at once, besides its schedule."""
    with app_of(app) as found, _open(found) as store:
        now = clock.wall()
        entry = _known(name, _entries(found, store.rows()))
        options = Occurrence(entry, now, now).options()
        if scheme(found.conf.backend_options().url) == "rpc":  # nobody would read it
            options["ignore_result"] = True
        task = found.registry.get(entry.task)
        result = found.sender.send(entry.task, entry.args, entry.kwargs, options, task)
        store.note({name: Run(result.id, now, clock.wall())}, by_hand=True)
    click.echo(f"{entry.task}[{result.id}] sent")


@schedule.command("next")
@click.argument("count", type=click.IntRange(1), default=10)
@_APP
@_JSON
def next_runs(count: int, app: str | None, as_json: bool) -> None:
    """Show the next COUNT runs of all entries."""
    now = clock.wall()
    with app_of(app) as found, _open(found) as store:
        entries = _entries(found, store.rows()).values()
    each = (entry.upcoming(max(now, entry.since or now)) for entry in entries if entry.enabled)
    runs = list(islice(heapq.merge(*each, key=lambda run: run.at), count))
    if as_json:
        for run in runs:
            moment = _shown(run.entry, run.at)
            click.echo(json.dumps({"at": moment, "name": run.entry.name, "id": run.id}))
    elif runs:
        rows = [
            (_shown(run.entry, run.at), roughly(run.at - now), run.entry.name, run.entry.task)
            for run in runs
        ]
        print_table(("AT", "IN", "NAME", "TASK"), rows, narrow=(2, 3))
    else:
        click.echo("Nothing is due.")


# -- how -----------------------------------------------------------------------------------------


@contextmanager
def _open(app: TaskQ) -> Iterator[Store]:
    """The store of *app*."""
    store = store_of(app)
    try:
        yield store
    finally:
        store.close()


def _entries(app: TaskQ, rows: Sequence[Row]) -> dict[str, Entry]:
    return merged(app.schedule_entries(), rows)


def _known(name: str, entries: Mapping[str, Entry]) -> Entry:
    if name not in entries:
        raise click.ClickException(f"there is no entry {name!r}: see taskq schedule list")
    return entries[name]


def _switch(app: str | None, name: str, on: bool) -> None:
    with app_of(app) as found, _open(found) as store:
        _known(name, _entries(found, store.rows()))
        store.enable(name, on, clock.wall())
    click.echo(f"{name} {'enabled' if on else 'disabled'}")


def _lines(app: TaskQ, only: str | None = None) -> list[_Line]:
    with _open(app) as store:
        rows = {row.name: row for row in store.rows()}
    entries = _entries(app, list(rows.values()))
    if only is not None:
        entries = {only: _known(only, entries)}
    readable = scheme(app.conf.backend_options().url) not in ("rpc", "disabled")
    now, lines = clock.wall(), []
    for name, entry in entries.items():
        row, result = rows.get(name), None
        if readable and row is not None and row.last is not None:
            try:
                result = app.backend.fetch(row.last.id)
            except TaskqError as error:
                click.echo(str(error), err=True)
                readable = False
        following = entry.following(max(now, entry.since or now)) if entry.enabled else None
        lines.append(_Line(entry, row, result, following))
    return lines


def _cells(line: _Line) -> tuple[str, ...]:
    now = clock.wall()
    following = f"in {roughly(line.next.at - now)}" if line.next else "never"
    return (
        line.entry.name,
        line.entry.task,
        _words(line.entry),
        following if line.entry.enabled else "off",
        "-" if line.last is None else f"{roughly(now - line.last.sent)} ago",
        line.state or "-",
        "-" if line.seconds is None else f"{line.seconds:.1f}s",
        line.error or "-",
    )


def _words(entry: Entry) -> str:
    """The schedule of *entry* as people write it."""
    try:
        plain = entry.schedule.plain()
    except NotImplementedError:
        return repr(entry.schedule)
    zone = plain.pop("timezone", None)
    kind, value = next(iter(plain.items()))
    words = f"every {value:g}s" if kind == "every" else str(value)
    return f"{words} {zone}" if zone else words


def _shown(entry: Entry, moment: float) -> str:
    """*moment* by the clocks of *entry*'s zone."""
    shown = datetime.fromtimestamp(moment, entry.schedule.zone)
    return shown.isoformat(" ", timespec="seconds")


def _schedule(text: str) -> object:
    """What `--schedule` means: seconds, five fields, or a moment."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if re.fullmatch(r"(\d+[smhdw])+", text):
        return span(text)
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return text
    return {"clocked": text}


def _from_json(option: str, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"--{option} is no JSON: {error}") from None
