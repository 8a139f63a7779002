"""One session of measuring: the sides of each row in turn, round by round."""

import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from benchmarks import peers
from benchmarks.figures import Kept, Measured
from benchmarks.lab import Lab
from benchmarks.table import Figures, Row, Side, shown


def measure(
    rows: Sequence[Row],
    kept: Kept,
    lab: Lab,
    *,
    rounds: int,
    only: Collection[str] | None = None,
    patient: bool = True,
) -> None:
    """Run the sides of *rows* A B A B ..., *rounds* times each, and keep what they find.

    *only* names the sides to run; None: all.  A side that fails is left out from then on, for an
    hour's measuring must not be lost to a peer that hangs; unless *patient* is off.
    """
    chosen = [
        (row, [side for side in row.sides if only is None or side.name in only]) for row in rows
    ]
    if any(side.peer for _, sides in chosen for side in sides):
        peers.install(lab.say)
    done, total = 0, rounds * sum(len(sides) for _, sides in chosen)
    for row, sides in chosen:
        lab.say(f"row {row.name}: {row.workload}")
        found: dict[str, list[Figures]] = {side.name: [] for side in sides}
        failed: set[str] = set()
        for side in [side for _ in range(rounds) for side in sides]:
            done += 1
            if side.name in failed:
                continue
            begun = time.monotonic()
            try:
                figures = side.run(lab)
            except Exception as error:
                if not patient:
                    raise
                failed.add(side.name)
                lab.say(f"[{done}/{total}] {side.name} failed: {error!r}")
                continue
            found[side.name].append(figures)
            kept.put(row, side.name, Measured(datetime.now(UTC), found[side.name]))
            lab.say(f"[{done}/{total}] {_line(side, figures)} ({time.monotonic() - begun:.0f} s)")


def _line(side: Side, figures: Figures) -> str:
    return f"{side.name}: " + ", ".join(f"{shown(value)} {name}" for name, value in figures.items())
