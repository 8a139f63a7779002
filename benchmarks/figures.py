"""The figures of all runs, kept in a file, so that one side measured again is still compared."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.table import Figures, Medians, Row, medians_of


@dataclass(frozen=True)
class Measured:
    """What one side of one row found: *when*, and the figures of each round."""

    when: datetime
    runs: Sequence[Figures]


class Kept:
    """The last measurements of each side of each row in *file*.

    Those of another *scale* are as good as not there: few tasks are no measure for many.
    """

    def __init__(self, file: Path, scale: float) -> None:
        self._file = file
        self._scale = f"{scale:g}"
        self._all: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}

    def put(self, row: Row, side: str, measured: Measured) -> None:
        """Keep *measured* in the place of an earlier one."""
        rows = self._all.setdefault(self._scale, {})
        rows.setdefault(row.name, {})[side] = {
            "when": measured.when.isoformat(timespec="seconds"),
            "runs": [dict(run) for run in measured.runs],
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._all, indent=1))

    def get(self, row: Row) -> Mapping[str, Measured]:
        """What the sides of *row* found, as far as they were measured, in the row's order."""
        return dict(self._sides(row))

    def _sides(self, row: Row) -> Iterator[tuple[str, Measured]]:
        found = self._all.get(self._scale, {}).get(row.name, {})
        for side in row.sides:
            if side.name in found:
                kept = found[side.name]
                yield side.name, Measured(datetime.fromisoformat(kept["when"]), kept["runs"])

    def medians(self, row: Row) -> Medians:
        """The middle value of each figure of each side."""
        return {side: medians_of(measured.runs) for side, measured in self._sides(row)}
