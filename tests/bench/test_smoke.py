"""Every benchmark runs, with a handful of tasks and without peers; how fast is not judged here."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.figures import Kept
from benchmarks.lab import Lab
from benchmarks.rows import ROWS
from benchmarks.session import measure
from benchmarks.table import Row
from tests.support.rabbit import GivenServer, RabbitNode

_SCALE = 0.001


@pytest.fixture(scope="module")
def lab(rabbit_node: RabbitNode | GivenServer) -> Iterator[Lab]:
    """Servers for all rows; RabbitMQ is the session's own if it may be looked into."""
    node = rabbit_node if isinstance(rabbit_node, RabbitNode) else None
    with Lab(_SCALE, rabbit=node) as lab:
        yield lab


@pytest.mark.parametrize("row", ROWS, ids=[f"row-{row.name}" for row in ROWS])
def test_a_row_is_measured_and_shown(row: Row, lab: Lab, tmp_path: Path):
    sides = [side.name for side in row.sides if not side.peer]
    if lab.bare is None:
        sides = [name for name in sides if " C " not in f" {name} "]
    kept = Kept(tmp_path / "figures.json", _SCALE)

    measure([row], kept, lab, rounds=1, only=sides, patient=False)

    found = Kept(tmp_path / "figures.json", _SCALE).medians(row)
    assert sides == list(found)
    assert all(math.isfinite(value) for figures in found.values() for value in figures.values())
    assert row.workload in report.table([row], kept)
    assert any(line.startswith(f"| {row.name} | taskq | ") for line in _page(row, kept))


def _page(row: Row, kept: Kept) -> list[str]:
    return list(report.page([row], kept, {"RabbitMQ": "3"}, "plot.png"))
