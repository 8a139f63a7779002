"""Text for terminals: spans of time as people write them, and tables that fit, harmless both."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

#: Columns do not get narrower than this where the terminal is narrow.
_NARROWEST = 8

_NO_COLOURS: Mapping[str, str] = MappingProxyType({})


def span(text: str) -> float:
    """The seconds of a time span such as 90s, 15m, 1h30m or 2d."""
    if not re.fullmatch(r"(\d+[smhdw])+", text):
        raise click.BadParameter(f"{text!r} is no time span; write 90s, 15m, 1h30m, 2d or 1w")
    return float(sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)(\w)", text)))


def roughly(seconds: float) -> str:
    """The largest unit of a time span, up to days."""
    for unit in "dhm":
        if seconds >= _UNITS[unit]:
            return f"{seconds // _UNITS[unit]:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def beginning(text: str, width: int) -> str:
    """*text* in *width* columns, without its end if need be."""
    if len(text) <= width:
        return text.ljust(width)
    return f"{text[: width - 1]}…" if width else ""


def end(text: str, width: int) -> str:
    """*text* in *width* columns, without its beginning if need be."""
    return text.ljust(width) if len(text) <= width else f"…{text[1 - width :]}"


def one_line(text: str) -> str:
    """*text* without power over the terminal, in one line."""
    return clean(" ".join(text.split()))


def clean(text: str) -> str:
    """*text*, which anybody may have sent, without power over the terminal."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def styled(text: str, **style: Any) -> str:
    """*text* in a style, unless people say by NO_COLOR that they want none (https://no-color.org).

    `click.echo` takes it away again where it writes to no terminal.
    """
    return text if os.environ.get("NO_COLOR") else click.style(text, **style)


def room() -> int:
    """The columns of the terminal; where there is none, as many as anybody wants."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    narrow: Sequence[int],
    colours: Mapping[str, str] = _NO_COLOURS,
) -> None:
    """One line a row: as wide as the terminal, or as it takes where there is none.

    The columns *narrow* are cut first.  A cell that stands in *colours* has that colour.
    """
    for line in table(headings, rows, narrow, room(), colours):
        click.echo(line)


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    narrow: Sequence[int],
    room: int,
    colours: Mapping[str, str] = _NO_COLOURS,
) -> list[str]:
    """The lines of a table that is at most *room* columns wide, as `print_table` prints it."""
    lines = [tuple(map(one_line, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    gaps = 2 * len(widths) - 2
    while narrow and sum(widths) + gaps > room:
        widest = max(narrow, key=widths.__getitem__)
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    return [
        _row(headings, widths, room, lambda cell: styled(cell, bold=True)),
        *(_row(line, widths, room, lambda cell: _tinted(cell, colours)) for line in lines),
    ]


def _tinted(cell: str, colours: Mapping[str, str]) -> str:
    return styled(cell, fg=colours[cell]) if cell in colours else cell


def _row(
    cells: Sequence[str], widths: Sequence[int], room: int, style: Callable[[str], str]
) -> str:
    shown = []
    for cell, size in zip(cells, widths, strict=True):
        fitting = beginning(cell, max(0, min(size, room)))
        text = fitting.rstrip()
        shown.append(style(text) + " " * (len(fitting) - len(text)) if text else fitting)
        room -= size + 2
    return "  ".join(shown).rstrip()
