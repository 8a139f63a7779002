"""What a ready file tells, and what it does not."""

import json
import os
import subprocess
import sys
from pathlib import Path

from taskq.worker.health import STALE, ailment

NOW = 1_000_000.0


def write(path: Path, **told: object) -> str:
    path.write_text(json.dumps({"pid": os.getpid(), "time": NOW, "consuming": True} | told))
    return str(path)


def test_a_fresh_file_of_a_living_worker_is_health(tmp_path: Path) -> None:
    assert ailment(write(tmp_path / "f"), NOW, consuming=True) is None


def test_a_missing_file_and_one_that_is_no_ready_file_say_so(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("[]")

    assert "is not there" in str(ailment(str(tmp_path / "none"), NOW))
    assert "is no ready file" in str(ailment(str(tmp_path / "bad"), NOW))


def test_a_file_that_is_not_renewed_is_of_a_stuck_worker(tmp_path: Path) -> None:
    assert "has not turned" in str(ailment(write(tmp_path / "f"), NOW + STALE + 1))


def test_a_worker_without_its_broker_is_alive_but_not_consuming(tmp_path: Path) -> None:
    path = write(tmp_path / "f", consuming=False)

    assert ailment(path, NOW) is None
    assert "no connection" in str(ailment(path, NOW, consuming=True))


def test_the_file_of_a_killed_worker_is_no_health(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    assert "is gone" in str(ailment(write(tmp_path / "f", pid=gone.pid), NOW))
