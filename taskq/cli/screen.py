"""The frame of `taskq top` drawn with rich: on a terminal again and again, elsewhere once as text.

What stands in it comes from `taskq.top`.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from taskq.cli.text import clean
from taskq.errors import ConfigurationError
from taskq.top.stage import HELP, Part, share

#: What has a colour of its own.
_COLOURS = {
    "online": "green", "SUCCESS": "green", "FAILURE": "red", "silent": "yellow", "offline": "red",
    "RETRY": "yellow", "STARTED": "cyan", "REVOKED": "magenta", "paused": "yellow",
    "draining": "yellow",
}  # fmt: skip

#: Columns and lines where there is no terminal.
_WIDTH, _HEIGHT = 100, 40


class Frame(NamedTuple):
    """All that is seen at a moment: a line above, tables, a line below."""

    head: str
    parts: Sequence[Part]
    foot: str
    #: Whether the help is seen in place of the tables.
    help: bool = False


class Screen:
    """Draws frames; ConfigurationError without rich."""

    def __init__(self) -> None:
        try:
            from rich.console import Console
            from rich.live import Live
        except ImportError:
            raise ConfigurationError(
                "taskq top draws with rich, which is not installed: pip install 'taskq[top]'"
            ) from None
        on_terminal = sys.stdout.isatty()
        self._console = Console(
            width=None if on_terminal else int(os.environ.get("COLUMNS", _WIDTH)),
            height=None if on_terminal else int(os.environ.get("LINES", _HEIGHT)),
            highlight=False,
        )
        self._live = Live(console=self._console, screen=True, auto_refresh=False)

    def __enter__(self) -> "Screen":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, frame: Frame) -> None:
        """Draw *frame* in place of the last one."""
        self._live.update(self._drawn(frame), refresh=True)

    def print(self, frame: Frame) -> None:
        """Print *frame*, once."""
        self._console.print(self._drawn(frame))

    def _drawn(self, frame: Frame) -> Any:
        from rich.console import Group
        from rich.text import Text

        line = {"no_wrap": True, "overflow": "ellipsis"}
        head = Text(clean(frame.head), style="bold", **line)  # type: ignore[arg-type]
        foot = Text(clean(frame.foot), style="reverse", **line)  # type: ignore[arg-type]
        body = [_help()] if frame.help else self._tables(frame.parts)
        return Group(head, *body, *([Text(), foot] if frame.foot else []))

    def _tables(self, parts: Sequence[Part]) -> list[Any]:
        from rich.text import Text

        # Each table has a blank line and headings above it; head and foot take three lines.
        room = self._console.height - 3 - 2 * len(parts)
        given = share(max(0, room), [len(part.table.rows) for part in parts])
        drawn: list[Any] = []
        for part, lines in zip(parts, given, strict=True):
            drawn += [Text(), _table(part, lines)]
        return drawn


def _table(part: Part, lines: int) -> Any:
    """So many *lines* of a table, the one with the cursor among them."""
    from rich.table import Table as Drawn
    from rich.text import Text

    table, cursor = part.table, part.cursor
    drawn = Drawn(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for at in table.shown:
        column = table.columns[at]
        drawn.add_column(
            Text(column.heading, style="underline" if at == part.sorted_by else ""),
            justify="right" if column.is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    first = 0 if cursor is None else max(0, min(cursor - lines // 2, len(table.rows) - lines))
    for at, row in enumerate(table.rows[first : first + lines], start=first):
        cells = table.cells(row)
        texts = [Text(clean(cells[n]), style=_COLOURS.get(cells[n], "")) for n in table.shown]
        drawn.add_row(*texts, style="reverse" if at == cursor else "")
    return drawn


def _help() -> Any:
    from rich.table import Table as Drawn

    drawn = Drawn(box=None, padding=(0, 2, 0, 0), show_header=False)
    for keys, words in HELP:
        drawn.add_row(keys, words)
    return drawn
