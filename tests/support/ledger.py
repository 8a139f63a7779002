"""What ran, how often: reading the file that test tasks append to, and balancing the account.

The tasks write it themselves (`app/tasks.py`).
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.wait import wait_until


class Ledger:
    """The reading side of the file: one entry for each run, in the order they were written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._counted = 0  # bytes
        self._runs = 0

    def __repr__(self) -> str:
        return f"Ledger({len(self.ids())} runs)"

    @property
    def env(self) -> dict[str, str]:
        """The variable by which a worker's tasks find the file."""
        return {"TASKQ_TEST_LEDGER": str(self.path)}

    def entries(self) -> list[tuple[str, str]]:
        """The task id and the remark of each run."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines()
        return [(task_id, remark) for task_id, _, remark in (line.partition(" ") for line in lines)]

    def ids(self) -> list[str]:
        """The task id of each run; an id stands here as often as it ran."""
        return [task_id for task_id, _ in self.entries()]

    def runs(self) -> int:
        """How many runs there were, repeated ones too; reads only what is new since the last call.

        For who asks often while the ledger grows long.
        """
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._counted)
                new = file.read()
            self._counted += len(new)
            self._runs += new.count(b"\n")
        return self._runs

    def repeats(self) -> int:
        """How many runs were not the first of their task."""
        ids = self.ids()
        return len(ids) - len(set(ids))

    def wait_for(self, count: int, *, timeout: float = 30.0) -> list[str]:
        """The ids once *count* different tasks have run; AssertionError after *timeout* seconds."""
        wait_until(
            lambda: self.runs() >= count and len(set(self.ids())) >= count,
            f"{count} tasks in {self.path}",
            timeout=timeout,
        )
        return self.ids()


def assert_conserved(
    sent: Iterable[str],
    ledger: Ledger,
    *,
    dead: Iterable[str] = (),
    queued: Iterable[str] = (),
    unknown: Iterable[str] = (),
    once: bool = False,
) -> None:
    """Every task that was *sent* ran, or is *dead* or still *queued*, and nothing else turned up.

    All by task id.  What is *unknown* was handed over without an answer, and may turn up.  With
    *once*, each must be in exactly one of these places and have run no more than once.
    """
    places = {"ran": ledger.ids(), "dead": list(dead), "queued": list(queued)}
    found = Counter(task_id for ids in places.values() for task_id in ids)
    expected = set(sent)
    lost = sorted(expected - found.keys())
    strange = sorted(found.keys() - expected - set(unknown))
    repeated = sorted(task_id for task_id, count in found.items() if count > 1) if once else []
    account = ", ".join(f"{len(ids)} {place}" for place, ids in places.items())
    balanced = not (lost or strange or repeated)
    assert balanced, (
        f"{len(expected)} sent; {account}\n"
        f"lost {len(lost)}: {lost[:5]}\n"
        f"never sent {len(strange)}: {strange[:5]}\n"
        f"more than once {len(repeated)}: {repeated[:5]}"
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """The ledger of this test, empty."""
    return Ledger(tmp_path / "ledger")
