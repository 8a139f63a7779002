"""The fixtures of the fault suite are those of its arena; after a long run comes the account."""

from collections.abc import Iterator

import pytest

from tests.faults.arena import SCALE, arena, arena_on, tally

__all__ = ["arena", "arena_on", "tally"]

HEADINGS = (
    *("run", "sent", "unknown", "refused", "done", "dead-lettered", "still queued", "deleted"),
    *("ran again", "seconds"),
)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the account of each test as the table of `docs/faults.md`."""
    rows = [row for report in terminalreporter.getreports("passed") for row in _rows(report)]
    if rows and SCALE > 1:
        terminalreporter.write_line("")
        for row in (HEADINGS, ["---"] + ["---:"] * (len(HEADINGS) - 1), *rows):
            terminalreporter.write_line(f"| {' | '.join(row)} |")


def _rows(report: pytest.TestReport) -> Iterator[list[str]]:
    for name, account in report.user_properties:
        if name == "account":
            test = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
            yield [test, *(f"{number:,}" for number in account), f"{report.duration:.0f}"]
