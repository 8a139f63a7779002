"""No task waits for a long one while somebody else could run it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskq import TaskQ
from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker
from tests.support.site import Site

WORKER = (APP, "-Q", "q1", "-c", "2", "-l", "warning")


def call(app: TaskQ, word: str, argument: object = None, *, count: int = 1) -> list[str]:
    """Send *count* tasks, all of one name, so that only their arguments tell how long they take."""
    act = app.signature("tasks.act", (word, argument), queue="q1", ignore_result=True)
    return [result.id for result in app.send_many([act] * count)]


@pytest.fixture
def app(site: Site) -> Iterator[TaskQ]:
    app = TaskQ("caller", broker=site.url)
    yield app
    app.close()


def test_short_tasks_get_past_one_that_turns_out_long(
    app: TaskQ, site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = worker_process(*WORKER, env=site.env)

    sent = call(app, "ok", count=300)
    ledger.wait_for(300)
    for _ in range(5):  # wherever among the others it stands
        sent += call(app, "ok", count=50)
    long = call(app, "hold", str(gate))
    sent += long
    for _ in range(5):
        sent += call(app, "ok", count=50)

    ledger.wait_for(len(sent))  # each stands there from its start
    gate.touch()
    assert 0 == worker.stop()
    assert_conserved(sent, ledger, once=True)


def test_a_worker_that_is_busy_leaves_what_it_holds_to_another(
    app: TaskQ, site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    busy = worker_process(*WORKER, env=site.env)
    sent = call(app, "ok", count=300)
    ledger.wait_for(300)  # it holds many from now on, because they are short

    sent += call(app, "hold", str(gate), count=2)
    ledger.wait_for(302)
    sent += call(app, "ok", count=60)
    free = worker_process(*WORKER, env=site.env)
    ledger.wait_for(362)

    gate.touch()
    assert 0 == busy.stop()
    assert 0 == free.stop()
    assert 0 == site.count("q1")
    assert_conserved(sent, ledger, once=True)
