"""`taskq dead`: what was given up, listed, shown, sent again, thrown away or written to a file.

Options become one hold on dead-letter queues; what is done with it is the business of
`taskq.deadletters`, how it looks is decided here.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial, wraps
from typing import Any

import click

from taskq import clock, log
from taskq.cli.place import app_of
from taskq.cli.text import beginning, clean, end, one_line, roughly, span
from taskq.deadletters import DEEPEST, DEPTH, SHORTEST_ID, DeadLetters, Letter, Wanted
from taskq.errors import MessageMalformed
from taskq.wire.dead import without

#: Refusals that are told one by one; they tend to have the same reason.
_TOLD = 20


# -- options -------------------------------------------------------------------------------------

_PLACE = (
    click.option("-A", "--app", help="The app: package.module or package.module:attribute."),
    click.option("--broker", metavar="URL", help="Look there; needs no app."),
    click.option(
        "-Q",
        "--queues",
        multiple=True,
        help="The queues that the tasks came from, with commas between; else all of the app.",
    ),
    click.option(
        "--depth",
        type=click.IntRange(1, DEEPEST),
        default=DEPTH,
        show_default=True,
        help="Letters of each queue that may be held, and so looked through.",
    ),
    click.option("--json", "as_json", is_flag=True, help="For programs: JSON, one object a line."),
)
_FILTERS = (
    click.option(
        "--id",
        "ids",
        multiple=True,
        help=f"The task's id, or {SHORTEST_ID} characters or more of its beginning.  Repeatable.",
    ),
    click.option("--task", metavar="GLOB", help="The task's name."),
    click.option("--exception", metavar="GLOB", help="The name of the exception's type."),
    click.option("--reason", metavar="TEXT", help="A part of the reason."),
    click.option(
        "--older", type=span, metavar="SPAN", help="Given up at least 90s, 15m, 1h30m, 2d ago."
    ),
    click.option("--newer", type=span, metavar="SPAN", help="... or at most."),
)


def _limit(default: int | None) -> Callable[[Any], Any]:
    words = "So many letters at most."
    return click.option(
        "--limit", type=click.IntRange(1), default=default, show_default=True, help=words
    )


#: What a command opens: the letters that the options mean.  `limit=` overrides theirs.
_Hold = Callable[..., DeadLetters]


def _with(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give a command *options*, and in their place, as its first argument, a `_Hold`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def opened(
            app: str | None,
            broker: str | None,
            queues: Sequence[str],
            depth: int,
            limit: int | None = None,
            **rest: Any,
        ) -> None:
            names = [name for given in queues for name in given.split(",") if name]
            wanted = Wanted(**{key: rest.pop(key) for key in Wanted.__slots__ if key in rest})
            with app_of(app, broker, modules=False) as found:
                hold = partial(DeadLetters, found, names, wanted, limit=limit, depth=depth)
                command(hold, **rest)

        decorated: Callable[..., None] = opened
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


# -- commands ------------------------------------------------------------------------------------


@click.group()
def dead() -> None:
    """Look at tasks that were given up, and decide what becomes of them."""
    log.configure("error")


@dead.command("list")
@_with(*_PLACE, *_FILTERS, _limit(100))
def list_letters(hold: _Hold, as_json: bool) -> None:
    """List dead letters, the oldest of each queue first."""
    with hold() as letters:
        found = [letter.summary() for letter in letters]
    if as_json:
        for summary in found:
            click.echo(json.dumps(summary))
    elif found:
        _print_table(found)
    else:
        _say_none(letters)
    _warn_of_more(letters.unseen)


@dead.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@_with(*_PLACE)
def show(hold: _Hold, as_json: bool) -> None:
    """Show everything about the dead letters of the tasks ID."""
    found = 0
    with hold() as letters:
        for letter in letters:
            if as_json:
                click.echo(json.dumps(letter.record()))
            else:
                click.echo("\n" * bool(found) + _portrait(letter, letters))
            found += 1
    _warn_of_more(letters.unseen)
    if not found:
        _say_none(letters, err=True)
        sys.exit(1)


@dead.command()
@click.option("--to", metavar="QUEUE", help="Send them to this queue instead.")
@_with(*_PLACE, *_FILTERS, _limit(None))
def replay(hold: _Hold, to: str | None, as_json: bool) -> None:
    """Send dead letters to the queues they came from, as if they were new."""
    letters = hold()
    try:
        with letters, _bar("replaying", letters) as on_progress:
            letters.replay(to, on_progress)
    finally:  # also when it was interrupted
        _report("replayed", letters, as_json)
    sys.exit(bool(letters.refused))


@dead.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@_with(*_PLACE, *_FILTERS, _limit(None))
def discard(hold: _Hold, yes: bool, as_json: bool) -> None:
    """Throw dead letters away, for good."""
    letters = hold()
    if not yes:
        with hold() as counted:
            count = counted.count()
        _warn_of_more(counted.out_of_reach)
        if count:
            question = f"Discard {_many(count)} of {_where(counted)} for good?"
            click.confirm(question, abort=True, err=True)
            letters = hold(limit=count)  # none that came since
    try:
        with letters, _bar("discarding", letters) as on_progress:
            letters.discard(on_progress)
    finally:
        _report("discarded", letters, as_json)


@dead.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@_with(*_PLACE, *_FILTERS, _limit(None))
def export(hold: _Hold, file: str, as_json: bool) -> None:
    """Write dead letters to FILE (- is standard output), and leave them where they are.

    JSON, one object a line; the very bytes of properties and body are in it as base64.
    """
    count = 0
    try:
        with hold() as letters, click.open_file(file, "w", encoding="utf-8") as lines:
            for letter in letters:
                lines.write(json.dumps(letter.record()) + "\n")
                count += 1
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from error
    words = json.dumps({"exported": count}) if as_json else f"{_many(count)} exported."
    click.echo(words, err=file == "-")
    _warn_of_more(letters.out_of_reach)


# -- telling -------------------------------------------------------------------------------------


@contextmanager
def _bar(label: str, letters: DeadLetters) -> Iterator[Callable[[int], object]]:
    """Show on a terminal how many letters were seen; what is yielded is to be told."""
    if not sys.stderr.isatty():
        yield lambda _seen: None
        return
    with click.progressbar(
        length=letters.expected, label=label, show_pos=True, file=sys.stderr
    ) as bar:
        yield lambda seen: bar.update(seen - bar.pos)


def _report(done: str, letters: DeadLetters, as_json: bool) -> None:
    if not letters.waiting:  # the broker was never reached, and an error tells it
        return
    if as_json:
        refused = [{"id": summary["id"], "why": why} for summary, why in letters.refused]
        told = {done: letters.done, "refused": refused, "out_of_reach": letters.out_of_reach}
        click.echo(json.dumps(told))
        return
    if letters.done or letters.refused:
        click.echo(f"{_many(letters.done)} {done}.")
    else:
        _say_none(letters)
    for summary, why in letters.refused[:_TOLD]:
        name = one_line(f"{summary['task'] or 'message'}[{summary['id']}]")
        click.echo(f"{name} stays in {summary['dead_queue']}: {one_line(why)}", err=True)
    if len(letters.refused) > _TOLD:
        click.echo(f"... and {len(letters.refused) - _TOLD:,} more stay.", err=True)
    _warn_of_more(letters.out_of_reach)


def _say_none(letters: DeadLetters, *, err: bool = False) -> None:
    if letters.seen:
        click.echo(f"None of the {_many(letters.seen)} in {_where(letters)} is meant.", err=err)
    else:
        click.echo(f"No dead letters in {_where(letters)}.", err=err)


def _warn_of_more(count: int) -> None:
    if count:
        click.echo(f"{count:,} more were not looked at: see --depth and --limit.", err=True)


def _many(count: int) -> str:
    return f"{count:,} dead letter{'s' * (count != 1)}"


def _where(letters: DeadLetters) -> str:
    """The queues that have letters, or those that might have some, and the broker."""
    places = [name for name, count in letters.waiting.items() if count]
    alone = len(letters.places) == 1
    places = places or [place.name for place in letters.places if place.work or alone]
    return f"{', '.join(places)} on {letters.url}"


_HEADINGS = ("ID", "TASK", "QUEUE", "WHY", "TRIES", "AGE")
_ID, _TASK, _QUEUE, _WHY = range(4)
#: Columns do not get narrower than this where the terminal is narrow.
_NARROWEST = 8


def _print_table(summaries: Sequence[dict[str, Any]]) -> None:
    """One line a letter: as wide as the terminal, or as it takes where there is none."""
    rows = [_HEADINGS, *map(_cells, summaries)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    room -= 2 * len(_HEADINGS) - 2
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if sum(widths) > room:
        widths[_ID] = _distinct([row[_ID] for row in rows])
    while sum(widths) > room:
        widest = max((_TASK, _QUEUE, _WHY), key=widths.__getitem__)
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    for name, task, queue, why, tries, age in rows:
        cells = (
            name[: widths[_ID]].ljust(widths[_ID]),  # no mark: what is left can be copied
            end(task, widths[_TASK]),
            beginning(queue, widths[_QUEUE]),
            beginning(why, widths[_WHY]),
            tries.rjust(widths[4]),
            age.rjust(widths[5]),
        )
        click.echo("  ".join(cells))


def _cells(summary: dict[str, Any]) -> tuple[str, ...]:
    why = summary["reason"]
    if summary["exception"]:
        why = f"{summary['exception']}: {summary['message'] or ''}"
    age = "-" if summary["died_at"] is None else roughly(clock.wall() - summary["died_at"])
    attempts = str(summary["attempts"] or "-")
    cells = (summary["id"], summary["task"] or "-", summary["queue"] or "-", why, attempts, age)
    return tuple(map(one_line, cells))


def _distinct(names: Sequence[str]) -> int:
    """How many characters tell all *names* apart, and may stand for them."""
    longest, different = max(map(len, names)), len(set(names))
    lengths = range(SHORTEST_ID, longest)
    return next((n for n in lengths if len({name[:n] for name in names}) == different), longest)


def _portrait(letter: Letter, letters: DeadLetters) -> str:
    """Everything about *letter*, for people."""
    why = letter.why
    died = ""
    if letter.died_at is not None:
        moment = datetime.fromtimestamp(letter.died_at, UTC)
        died = f"{moment:%Y-%m-%d %H:%M:%S} UTC, {roughly(clock.wall() - letter.died_at)} ago"
    try:
        args, kwargs = letters.arguments(letter)
    except MessageMalformed as error:
        args = kwargs = f"unreadable: {error.reason}"
    exception = f"{why.exception_type}: {why.exception}" if why.exception_type else ""
    facts = {
        "id": letter.id,
        "task": letter.task,
        "queue": letter.queue,
        "now in": letter.place.name,
        "died": died,
        "worker": why.worker,
        "attempts": str(why.attempts or ""),
        "reason": why.reason,
        "exception": exception,
        "args": args,
        "kwargs": kwargs,
        "body": f"{len(letter.message.body):,} bytes",
    }
    lines = [f"{name:<10} {one_line(fact)}" for name, fact in facts.items() if fact]
    if why.traceback:
        lines += ["traceback", *(f"    {clean(line)}" for line in why.traceback.splitlines())]
    record = letter.record()
    for title in ("headers", "properties"):
        lines.append(title)
        for name, value in without(record[title]).items():
            lines.append(f"    {clean(name)}: {json.dumps(value)}")
    return "\n".join(lines)
