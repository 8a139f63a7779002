"""The health of a real worker, asked from outside."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.process import APP, REPOSITORY, StartWorker
from tests.support.site import Site
from tests.support.wait import wait_until


def healthcheck(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "taskq", "healthcheck", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_worker_is_healthy_from_its_readiness_to_its_stop(
    site: Site, worker_process: StartWorker, tmp_path: Path
) -> None:
    file = str(tmp_path / "ready")
    before = healthcheck(file)
    worker = worker_process(APP, "-Q", "q1", "-c", "1", "--ready-file", file, env=site.env)
    worker.wait_for("worker-ready")
    wait_until(Path(file).exists, "the ready file")

    during = healthcheck(file, "--consuming", "--json")
    worker.stop()
    after = healthcheck(file)

    assert [1, 0, 1] == [before.returncode, during.returncode, after.returncode]
    assert {"healthy": True, "reason": None} == json.loads(during.stdout)
    assert "is not there" in after.stderr


def test_a_killed_worker_is_not_healthy(
    site: Site, worker_process: StartWorker, tmp_path: Path
) -> None:
    file = str(tmp_path / "ready")
    worker = worker_process(APP, "-Q", "q1", "-c", "1", "--ready-file", file, env=site.env)
    worker.wait_for("worker-ready")
    wait_until(Path(file).exists, "the ready file")

    worker.stop(signal.SIGKILL)

    assert "is gone" in healthcheck(file).stderr
