"""The command: `python -m benchmarks [ROW...]`; see README.md."""

import argparse
import signal
import sys
import time
from pathlib import Path

from benchmarks import peers, report, session
from benchmarks.figures import Kept
from benchmarks.lab import Lab
from benchmarks.rows import ROWS

#: A quick run has so much of a full one's tasks.
_QUICK = 0.1


def main() -> int:
    """Measure, print the table, and write the report if asked to."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers go in order then, too
    known = {row.name: row for row in ROWS}
    if unknown := [name for name in options.rows if name not in known]:
        sys.stderr.write(f"there is no row {', '.join(unknown)}; there are {', '.join(known)}\n")
        return 2
    rows = [known[name] for name in options.rows] or list(ROWS)
    scale = options.scale or (_QUICK if options.quick else 1.0)
    kept = Kept(peers.STORE / "figures.json", scale)
    if not options.table:
        with Lab(scale, _say) as lab:
            session.measure(rows, kept, lab, rounds=options.rounds, only=options.sides)
    sys.stdout.write(report.table(rows, kept))
    if options.report:
        with Lab() as lab:
            report.write(ROWS, kept, lab.versions(), options.report)
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("rows", nargs="*", help="rows to measure, also with commas between; else all")
    add("--sides", help="only these (taskq,celery,...); others are compared as kept from before")
    add("--rounds", type=int, default=3, help="how often each side runs (3)")
    add("--quick", action="store_true", help="a tenth of the tasks")
    add("--scale", type=float, help="this part of the tasks")
    add("--table", action="store_true", help="measure nothing, show what was kept")
    add("--report", type=Path, nargs="?", const=report.PAGE, help="write docs/benchmarks.md")
    options = parser.parse_args()
    options.rows = [name for words in options.rows for name in words.split(",") if name]
    options.sides = options.sides.split(",") if options.sides else None
    return options


if __name__ == "__main__":
    sys.exit(main())
