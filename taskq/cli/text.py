"""Text for terminals: spans of time as people write them, and tables that fit, harmless both."""

import re
import shutil
import sys
from collections.abc import Sequence

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

#: Columns do not get narrower than this where the terminal is narrow.
_NARROWEST = 8


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
    return text.ljust(width) if len(text) <= width else f"{text[: width - 1]}…"


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


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], narrow: Sequence[int]
) -> None:
    """One line a row: as wide as the terminal, or as it takes where there is none.

    Only the columns *narrow* are cut.
    """
    lines = [headings, *(tuple(map(one_line, row)) for row in rows)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    room -= 2 * len(headings) - 2
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    while sum(widths) > room:
        widest = max(narrow, key=widths.__getitem__)
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    for line in lines:
        click.echo("  ".join(map(beginning, line, widths)).rstrip())
