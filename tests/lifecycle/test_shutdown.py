"""How a worker is stopped: what runs is finished or given back, and no task is lost or made up."""

import signal
from pathlib import Path

import pytest

from taskq import TimeoutError as ResultTimeout
from taskq.wire.dead import read as read_dead
from taskq.worker.dispatcher import DEPTH
from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.site import Site

COUNT = 2  # children, and tasks that run


class Scene:
    """A worker with its hands full: *held* run until *gate* exists, *waiting* wait behind them."""

    def __init__(
        self,
        site: Site,
        worker_process: StartWorker,
        ledger: Ledger,
        tmp_path: Path,
        **settings: str,
    ) -> None:
        self.site = site
        self.ledger = ledger
        self.gate = tmp_path / "gate"
        env = {f"TASKQ_{name.upper()}": value for name, value in settings.items()}
        self.worker: WorkerProcess = worker_process(
            *(APP, "-Q", "q1", "-c", str(COUNT)), env={**site.env, **env}
        )
        app = site.app()
        call = ("hold", str(self.gate))
        self.held = [app.send_task("tasks.act", args=call, queue="q1") for _ in range(COUNT)]
        ledger.wait_for(COUNT)
        self.waiting = [app.send_task("tasks.record", args=(n,), queue="q1") for n in range(10)]

    def assert_given_back(self) -> None:
        """All that ran and all that waited is in the queue again, and has no result."""
        everything = {each.id for each in (*self.held, *self.waiting)}
        queued = {message.headers["id"] for message in self.site.take("q1", len(everything))}
        assert everything == queued
        assert {each.id for each in self.held} == set(self.ledger.ids())
        assert 0 == self.site.count("q1.dead")
        for each in self.held:
            with pytest.raises(ResultTimeout):
                each.get(timeout=0.1)

    def assert_finished(self) -> None:
        """What ran is done, and what waited is in the queue again."""
        assert [None] * COUNT == [each.get(timeout=30) for each in self.held]
        queued = [message.headers["id"] for message in self.site.take("q1", len(self.waiting))]
        everything = [each.id for each in (*self.held, *self.waiting)]
        assert_conserved(everything, self.ledger, queued=queued, once=True)


def test_quit_kills_what_runs_and_gives_everything_back(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    scene = Scene(site, worker_process, ledger, tmp_path)

    assert 1 == scene.worker.stop(signal.SIGQUIT)
    scene.assert_given_back()


def test_what_was_given_back_runs_elsewhere(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    scene = Scene(site, worker_process, ledger, tmp_path)
    scene.worker.stop(signal.SIGQUIT)
    scene.gate.touch()

    worker_process(APP, "-Q", "q1", "-c", "1", env=site.env)

    assert [None] * COUNT == [each.get(timeout=30) for each in scene.held]
    assert list(range(10)) == [each.get(timeout=30) for each in scene.waiting]
    assert_conserved([each.id for each in (*scene.held, *scene.waiting)], ledger)
    assert COUNT == ledger.repeats()  # those that were killed, and no others


def test_a_soft_shutdown_lets_quit_wait_for_what_runs(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    scene = Scene(*(site, worker_process, ledger, tmp_path), worker_soft_shutdown_timeout="600")

    scene.worker.send(signal.SIGQUIT)
    scene.worker.wait_for("worker-stopping", how="SIGQUIT, finishing what runs")
    scene.gate.touch()

    assert 0 == scene.worker.wait()
    scene.assert_finished()


@pytest.mark.parametrize(
    ("number", "limit"),
    [
        (signal.SIGQUIT, "worker_soft_shutdown_timeout"),
        (signal.SIGTERM, "worker_shutdown_timeout"),
        (signal.SIGINT, "worker_shutdown_timeout"),
    ],
)
def test_what_runs_for_longer_than_its_limit_is_killed_and_given_back(
    site: Site,
    worker_process: StartWorker,
    ledger: Ledger,
    tmp_path: Path,
    number: signal.Signals,
    limit: str,
) -> None:
    scene = Scene(site, worker_process, ledger, tmp_path, **{limit: "0.3"})

    code = scene.worker.stop(number)

    scene.worker.wait_for("worker-stopping", how=f"{number.name}, finishing what runs")
    scene.worker.wait_for("worker-stopping", how=f"{limit} (0.3s) is over, at once")
    assert 1 == code
    scene.assert_given_back()


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGQUIT, signal.SIGQUIT),
        (signal.SIGQUIT, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT),
    ],
    ids=lambda signals: " ".join(each.name for each in signals),
)
def test_a_further_signal_ends_the_patience(
    site: Site,
    worker_process: StartWorker,
    ledger: Ledger,
    tmp_path: Path,
    signals: tuple[signal.Signals, ...],
) -> None:
    scene = Scene(
        *(site, worker_process, ledger, tmp_path),
        worker_soft_shutdown_timeout="600",
        worker_shutdown_timeout="600",
    )

    for number in signals[:-1]:
        scene.worker.send(number)
        scene.worker.wait_for("worker-stopping", how=f"{number.name}, finishing what runs")
    code = scene.worker.stop(signals[-1])

    assert 1 == code
    scene.assert_given_back()


def test_a_cold_stop_in_full_swing_loses_nothing_and_repeats_only_what_ran(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    app, gate = site.app(), tmp_path / "gate"
    held = app.send_task("tasks.act", args=("hold", str(gate)), queue="q1")
    sent = [app.send_task("tasks.work", args=(0.002,), queue="q1").id for _ in range(300)]
    worker = worker_process(APP, "-Q", "q1", "-c", "3", env=site.env)
    ledger.wait_for(50)

    assert 1 == worker.stop(signal.SIGQUIT)
    gate.touch()
    last = worker_process(APP, "-Q", "q1", "-c", "2", env=site.env)
    ledger.wait_for(1 + len(sent), timeout=60)
    held.get(timeout=30)

    assert 0 == last.stop()
    assert_conserved([held.id, *sent], ledger)
    # At most what the children held: what they ran, and what was handed over behind it.
    assert 1 <= ledger.repeats() <= 3 * DEPTH
    assert (0, 0) == (site.count("q1"), site.count("q1.dead"))


def test_what_was_acked_early_and_is_killed_leaves_a_dead_letter(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    scene = Scene(site, worker_process, ledger, tmp_path, task_acks_late="false")

    assert 1 == scene.worker.stop(signal.SIGQUIT)

    letters = site.take("q1.dead", COUNT)
    queued = [message.headers["id"] for message in site.take("q1", len(scene.waiting))]
    found = [read_dead(letter.headers) for letter in letters]
    assert ["WorkerLost: ended when its worker was stopped"] * COUNT == [
        letter and letter.reason for letter in found
    ]
    assert {each.id for each in scene.held} == {letter.headers["id"] for letter in letters}
    assert {each.id for each in scene.waiting} == set(queued)


def test_a_worker_with_nothing_to_do_stops_well_on_any_signal(
    site: Site, worker_process: StartWorker
) -> None:
    codes = {}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        worker = worker_process(APP, "-Q", "q1", "-c", "1", env=site.env)
        worker.wait_for("worker-ready")
        codes[number.name] = worker.stop(number)

    assert {"SIGTERM": 0, "SIGINT": 0, "SIGQUIT": 0} == codes


def test_wrong_options_are_exit_code_2(worker_process: StartWorker) -> None:
    assert 2 == worker_process(APP, "--pool=threads").wait()
