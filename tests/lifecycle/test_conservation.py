"""Nothing lost and nothing twice while nothing fails."""

import subprocess
import sys
from pathlib import Path

from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker
from tests.support.site import Site

FLOOD = Path(__file__).parents[1] / "support" / "programs" / "flood.py"


def test_ten_thousand_tasks_of_four_threads_and_a_forked_producer_run_exactly_once(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = worker_process(APP, "-Q", "q1", "-c", "2", "-l", "warning", env=site.env)
    worker.wait_for("worker-ready")

    flood = subprocess.run(
        [sys.executable, str(FLOOD), site.url, "q1", "4", "2000"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert 0 == flood.returncode, flood.stderr
    sent = flood.stdout.split()
    ledger.wait_for(len(sent), timeout=60)

    assert 10_001 == len(sent) == len(set(sent))
    assert 0 == worker.stop()
    assert 0 == site.count("q1")
    assert_conserved(sent, ledger, once=True)
