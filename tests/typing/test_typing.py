"""What type checkers see of the public API: run on examples that must pass and on mistakes."""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_FOUND = re.compile(r"^[^:]*?(\w+\.py):(\d+): error: .*\[([\w-]+)\]$")
_WANTED = re.compile(r"# E: ([\w, -]+)$")


@pytest.fixture(scope="module")
def errors():
    """The codes of mypy's errors by file and line."""
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-color-output"),
            *("--config-file", str(_ROOT / "pyproject.toml")),
            *(str(_HERE / name) for name in ("accepted.py", "refused.py")),
        ],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    found = defaultdict(lambda: defaultdict(set))
    for line in ran.stdout.splitlines():
        if match := _FOUND.match(line):
            file, number, code = match.groups()
            found[file][int(number)].add(code)
    assert found, f"mypy found nothing to say:\n{ran.stdout}\n{ran.stderr}"
    return found


def test_what_is_right_is_accepted(errors):
    assert dict(errors["accepted.py"]) == {}


def test_what_is_wrong_is_refused_where_it_stands(errors):
    lines = (_HERE / "refused.py").read_text().splitlines()
    wanted = {
        number: set(match.group(1).split(", "))
        for number, line in enumerate(lines, 1)
        if (match := _WANTED.search(line))
    }

    assert wanted == dict(errors["refused.py"])
