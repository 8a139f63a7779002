"""What keys do to the view: which table is seen, how it is sorted, filtered, and what is chosen.

Pure: keys go in, and what somebody else must do comes out as an `Action`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from taskq.top.picture import Table

#: What can be seen; "all" is everything at once, with the cursor among the latest tasks.
VIEWS = ("all", "workers", "queues", "tasks", "latest")
_TABLES = VIEWS[1:]

HELP = (
    ("1 to 5, Tab", "everything at once, workers, queues, tasks by name, latest tasks; the next"),
    ("up, down, PgUp, PgDn", "choose a line (also k and j)"),
    ("s, r", "sort by the next column, the other way round"),
    ("/", "show only lines with a text; Enter ends it, Esc shows all again"),
    ("x", "revoke the chosen task, so that it does not run"),
    ("p", "pause the chosen queue on all workers, or resume it"),
    ("q", "leave"),
)

#: Lines that PgUp and PgDn go over.
_PAGE = 10


class Action(NamedTuple):
    """Something to be done to *name*: the id of a task, or the physical name of a queue."""

    verb: Literal["revoke", "pause", "resume"]
    name: str


class Part(NamedTuple):
    """A table as it is seen: from the line *first* on, with the *cursor* on one of its lines."""

    table: Table
    cursor: int | None
    sorted_by: int


@dataclass(slots=True)
class _Look:
    """How one table is looked at."""

    column: int | None = None
    backwards: bool = False
    #: The key of the chosen line, and where it was: so that the choice stays when lines move.
    chosen: str | None = None
    at: int = 0


class Stage:
    """The state of the screen."""

    def __init__(self) -> None:
        self.view = "all"
        self.filter = ""
        #: What is done with keys: they steer, are a text for the filter, or answer a question.
        self.mode: Literal["steer", "filter", "ask", "help"] = "steer"
        self.question = ""
        self.is_over = False
        self._looks = {name: _Look() for name in _TABLES}
        self._pending: Action | None = None

    def parts(self, tables: Mapping[str, Table]) -> list[Part]:
        """What is seen of *tables*, each whole."""
        names = _TABLES if self.view == "all" else (self.view,)
        return [self._part(tables[name]) for name in names]

    def press(self, key: str, tables: Mapping[str, Table]) -> Action | None:
        """*key* was pressed while *tables* were seen; what is to be done now, if anything."""
        match self.mode:
            case "filter":
                self._type(key)
            case "ask":
                self.mode = "steer"
                if key in ("y", "Y"):
                    return self._pending
            case "help":
                self.mode = "steer"
            case "steer":
                self._steer(key, self._part(tables[self._focus]))
        return None

    @property
    def _focus(self) -> str:
        """The table that has the cursor."""
        return "latest" if self.view == "all" else self.view

    def _part(self, table: Table) -> Part:
        look = self._looks[table.name]
        column = table.order if look.column is None else look.column
        seen = table.filtered(self.filter).sorted(look.column, look.backwards)
        if table.name != self._focus or not seen.rows:
            return Part(seen, None, column)
        keys = [row.key for row in seen.rows]
        at = keys.index(look.chosen) if look.chosen in keys else min(look.at, len(keys) - 1)
        return Part(seen, at, column)

    def _steer(self, key: str, part: Part) -> None:
        look = self._looks[self._focus]
        columns = len(part.table.columns)
        match key:
            case "q":
                self.is_over = True
            case "?" | "h":
                self.mode = "help"
            case "/":
                self.mode = "filter"
            case "escape":
                self.filter = ""
            case "tab":
                self.view = VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)]
            case "1" | "2" | "3" | "4" | "5":
                self.view = VIEWS[int(key) - 1]
            case "s":
                look.column, look.backwards = (part.sorted_by + 1) % columns, False
            case "r":
                look.backwards = not look.backwards
            case "up" | "k":
                self._choose(part, -1)
            case "down" | "j":
                self._choose(part, 1)
            case "page-up":
                self._choose(part, -_PAGE)
            case "page-down":
                self._choose(part, _PAGE)
            case "x" if part.table.name == "latest" and part.cursor is not None:
                chosen = part.table.rows[part.cursor]
                self._ask(Action("revoke", chosen.key), f"{chosen.values[1]}[{chosen.key}]")
            case "p" if part.table.name == "queues" and part.cursor is not None:
                chosen = part.table.rows[part.cursor]
                verb: Literal["resume", "pause"] = (
                    "resume" if chosen.values[1] == "paused" else "pause"
                )
                self._ask(Action(verb, chosen.key), f"queue {chosen.key} on all workers")

    def _choose(self, part: Part, step: int) -> None:
        if part.cursor is None:
            return
        look = self._looks[part.table.name]
        look.at = min(max(0, part.cursor + step), len(part.table.rows) - 1)
        # The first line stays the first, whatever becomes of the task that is there now.
        look.chosen = part.table.rows[look.at].key if look.at else None

    def _ask(self, action: Action, what: str) -> None:
        self.mode, self._pending = "ask", action
        self.question = f"{action.verb} {what}? y/n"

    def _type(self, key: str) -> None:
        match key:
            case "enter":
                self.mode = "steer"
            case "escape":
                self.mode, self.filter = "steer", ""
            case "backspace":
                self.filter = self.filter[:-1]
            case _ if len(key) == 1 and key.isprintable():
                self.filter += key


def share(room: int, wanted: Sequence[int]) -> list[int]:
    """Lines for each that wants some: in all as many as there is *room* for, shared evenly."""
    given = [0] * len(wanted)
    while room > 0 and (hungry := [n for n, want in enumerate(wanted) if given[n] < want]):
        for n in hungry[:room]:
            given[n] += 1
        room -= len(hungry[:room])
    return given
