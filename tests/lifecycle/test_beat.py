"""Beat as a process: what it sends, what people change meanwhile, and who takes care of it."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.beats import APP, StartBeat
from tests.support.process import StartWorker, WorkerProcess, _environment
from tests.support.redis_server import RedisServer
from tests.support.site import Site
from tests.support.wait import wait_until


class Stage:
    """One schedule of the app `quiet`, on one broker."""

    def __init__(self, site: Site, folder: Path, start: StartBeat) -> None:
        self.site = site
        self._start = start
        self.env = {
            **site.env,
            "TASKQ_APP": "quiet",
            "TASKQ_BEAT_LEASE": "4",
            "TASKQ_BEAT_STORE": f"sqlite:///{folder}/beat.db",
            "TASKQ_RESULT_BACKEND": f"sqlite:///{folder}/results.db",
        }

    def own(self, **entries: Mapping[str, Any]) -> None:
        """What the app's own schedule is for those that are started from now on."""
        self.env["TEST_SCHEDULE"] = json.dumps(entries)

    def beat(self, **env: str) -> WorkerProcess:
        return self._start(env=self.env | env)

    def leader(self, **env: str) -> WorkerProcess:
        beat = self.beat(**env)
        beat.wait_for("beat-leading")
        return beat

    def command(self, *arguments: str, code: int = 0) -> str:
        """What `taskq schedule *arguments*` printed."""
        ran = subprocess.run(
            [sys.executable, "-m", "taskq", "schedule", *arguments],
            cwd=APP,
            env=_environment() | self.env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert code == ran.returncode, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def listed(self) -> dict[str, dict[str, Any]]:
        lines = self.command("list", "--json").splitlines()
        return {line["name"]: line for line in map(json.loads, lines)}


@pytest.fixture
def stage(site: Site, tmp_path: Path, beat_process: StartBeat) -> Stage:
    return Stage(site, tmp_path, beat_process)


@pytest.fixture
def small_stage(tmp_path: Path, beat_process: StartBeat) -> Stage:
    """Without a server, for what no broker has a say in."""
    return Stage(Site(f"sqlite:///{tmp_path}/taskq.db"), tmp_path, beat_process)


# -- what is sent ----------------------------------------------------------------------------------


def test_what_is_due_is_sent_as_celerys_beat_sends_it(stage: Stage) -> None:
    stage.own(
        often={
            "task": "quiet.work",
            "schedule": 0.5,
            "args": [1, "two"],
            "kwargs": {"three": 3},
            "options": {"priority": 2, "expires": 600, "headers": {"own": "yes"}},
        },
        foreign={"task": "somebody.elses", "schedule": 0.5, "options": {"queue": "work"}},
    )
    beat = stage.leader()
    for beginning in ("often@", "foreign@"):
        wait_until(lambda start=beginning: _sent(beat.events, start), f"{beginning} to be sent")
    assert beat.stop() == 0

    messages = stage.site.take("work", stage.site.count("work"))
    (sent, *_) = [each for each in messages if each.headers["task"] == "quiet.work"]
    headers = sent.headers
    assert headers["id"].startswith("often@")
    assert headers["id"] == headers["root_id"] == sent.properties.correlation_id
    assert headers["parent_id"] is None
    assert headers["celery_beat_task"] is True
    assert headers["periodic_task_name"] == "often"
    assert headers["own"] == "yes"
    assert headers["origin"].startswith(f"gen{beat.pid}@")
    assert headers["expires"]
    assert sent.properties.priority == 2
    assert json.loads(sent.body)[:2] == [[1, "two"], {"three": 3}]
    assert {each.headers["task"] for each in messages} == {"quiet.work", "somebody.elses"}


def test_what_cannot_be_sent_holds_up_nothing_else(rabbit: Any, stage: Stage) -> None:
    there = {"exchange": "nowhere", "routing_key": "x"}
    stage.own(
        bad={"task": "quiet.work", "schedule": 0.5, "options": there},
        good={"task": "quiet.work", "schedule": 0.5},
    )
    beat = stage.leader()

    for _ in range(3):
        failed = beat.wait_for("due-failed")
        assert failed["id"].startswith("bad@")
        assert beat.wait_for("due-sent")["id"].startswith("good@")


def test_a_run_waits_for_the_last_one_to_end(small_stage: Stage) -> None:
    """Nobody runs it, so it is sent once; also by a beat that comes later."""
    small_stage.own(slow={"task": "quiet.work", "schedule": 0.5, "overlap": "skip"})
    first = small_stage.leader()
    sent = first.wait_for("due-sent")["id"]
    assert sent == first.wait_for("due-skipped")["last"]
    assert first.stop() == 0

    second = small_stage.leader()
    assert sent == second.wait_for("due-skipped")["last"]
    assert second.stop() == 0

    assert small_stage.site.count("work") == 1


def test_of_several_that_are_late_one_is_sent_if_they_must_not_overlap(small_stage: Stage) -> None:
    small_stage.own(other={"task": "somebody.elses", "schedule": 3600})
    assert small_stage.leader().stop() == 0

    # Due again and again since the first one stopped, which is late and not missed.
    small_stage.own(slow={"task": "quiet.work", "schedule": 0.02, "overlap": "skip"})
    second = small_stage.leader()
    sent = second.wait_for("due-sent")["id"]
    for _ in range(20):
        assert sent == second.wait_for("due-skipped")["last"]
    assert second.stop() == 0

    assert small_stage.site.count("work") == 1


def test_a_run_that_people_start_counts_as_the_last_one(small_stage: Stage) -> None:
    """Nobody runs it, so that nothing is sent while it waits."""
    small_stage.own(slow={"task": "quiet.work", "schedule": 0.5, "overlap": "skip"})
    beat = small_stage.leader()
    beat.wait_for("due-skipped")

    started = small_stage.command("run-now", "slow").partition("[")[2].partition("]")[0]

    beat.wait_for("due-skipped", last=started)


def test_overlaps_need_results_that_can_be_read(small_stage: Stage) -> None:
    small_stage.own(slow={"task": "quiet.work", "schedule": 1, "overlap": "skip"})

    beat = small_stage.beat(TASKQ_RESULT_BACKEND="disabled://")

    assert beat.wait() == 3
    assert "needs a result store" in beat.log()


# -- what people change --------------------------------------------------------------------------


def test_changes_take_effect_without_a_restart(stage: Stage) -> None:
    stage.own(own={"task": "quiet.work", "schedule": 0.5})
    beat = stage.leader()
    beat.wait_for("due-sent")

    stage.command("disable", "own")
    beat.wait_for("schedule-changed")
    stage.command("add", "new", "--task", "quiet.work", "--schedule", "1s", "--args", "[5]")
    assert beat.wait_for("schedule-changed")["entries"] == 2
    added = next(
        number for number, each in enumerate(beat.events) if each["event"] == "schedule-changed"
    )
    wait_until(lambda: len(_sent(beat.events[added:], "new@")) >= 2, "the new entry to be sent")
    assert not _sent(beat.events[added + 1 :], "own@")

    stage.command("remove", "new")
    assert beat.wait_for("schedule-changed")["entries"] == 1
    stage.command("enable", "own")
    beat.wait_for("schedule-changed")
    changed = len(beat.events)
    wait_until(lambda: _sent(beat.events[changed:], "own@"), "the old entry to be sent again")
    assert not _sent(beat.events[changed:], "new@")


def _sent(events: list[dict[str, Any]], beginning: str) -> list[str]:
    sent = [each["id"] for each in list(events) if each["event"] == "due-sent"]
    return [each for each in sent if each.startswith(beginning)]


def test_the_list_shows_what_became_of_the_last_runs(
    small_stage: Stage, worker_process: StartWorker
) -> None:
    small_stage.own(
        good={"task": "quiet.work", "schedule": 3600},
        bad={"task": "quiet.fail", "schedule": "0 0 1 1 *", "args": ["no luck"]},
        idle={"task": "quiet.work", "schedule": "@yearly", "enabled": False},
    )
    small_stage.command("run-now", "good")
    small_stage.command("run-now", "bad")
    assert small_stage.listed()["good"]["state"] == "PENDING"
    worker = worker_process(APP, "-c", "1", "-Q", "work", env=small_stage.env)
    worker.wait_for("task-succeeded")
    worker.wait_for("task-failed")

    listed = small_stage.listed()

    assert (listed["good"]["state"], listed["good"]["error"]) == ("SUCCESS", None)
    assert (listed["bad"]["state"], listed["bad"]["error"]) == ("FAILURE", "ValueError: no luck")
    assert listed["bad"]["seconds"] > 0
    assert listed["bad"]["last"]["id"].startswith("bad@")
    assert (listed["idle"]["last"], listed["idle"]["next"]) == (None, None)
    assert listed["good"]["next"]
    table = small_stage.command("list")
    assert [line.split()[0] for line in table.splitlines()] == ["NAME", "good", "bad", "idle"]
    assert "ValueError: no luck" in table
    assert "ValueError" in small_stage.command("show", "bad")


def test_an_added_entry_is_put_in_place_of_the_apps_until_it_is_removed(
    small_stage: Stage,
) -> None:
    small_stage.own(own={"task": "quiet.work", "schedule": 60})
    options = ("--task", "quiet.work", "--schedule", "30 7 * * mon", "--timezone", "Asia/Kathmandu")

    assert "--replace" in small_stage.command("add", "own", *options, code=1)
    small_stage.command("add", "own", *options, "--replace")

    assert small_stage.listed()["own"]["schedule"]["crontab"] == "30 7 * * mon"
    assert "that of the app is in force" in small_stage.command("remove", "own")
    assert small_stage.listed()["own"]["schedule"] == {"every": 60}
    assert "disable it" in small_stage.command("remove", "own", code=1)


def test_the_next_runs_of_all_entries_are_told_in_their_order(small_stage: Stage) -> None:
    small_stage.own(
        a={"task": "quiet.work", "schedule": 60},
        b={"task": "quiet.work", "schedule": 90},
        off={"task": "quiet.work", "schedule": 1, "enabled": False},
    )

    lines = [json.loads(line) for line in small_stage.command("next", "5", "--json").splitlines()]

    assert [line["name"] for line in lines].count("a") == 3
    assert [line["name"] for line in lines].count("b") == 2
    assert sorted(line["at"] for line in lines) == [line["at"] for line in lines]
    assert len(small_stage.command("next").splitlines()) == 11


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "nothing"), "there is no entry 'nothing'"),
        (("run-now", "nothing"), "there is no entry 'nothing'"),
        (("enable", "nothing"), "there is no entry 'nothing'"),
        (("add", "x", "--task", "quiet.fail", "--schedule", "1s"), "quiet.fail"),
        (("add", "x", "--task", "a.b", "--schedule", "61 * * * *"), "minute='61'"),
        (("add", "x", "--task", "a.b", "--schedule", "1s", "--args", "{"), "no JSON"),
        (("add", "x", "--task", "a.b", "--schedule", "1s", "--timezone", "Mars"), "Mars"),
    ],
)
def test_what_is_wrong_is_told(small_stage: Stage, arguments: tuple[str, ...], words: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "taskq", "schedule", *arguments],
        cwd=APP,
        env=_environment() | small_stage.env,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ran.returncode in (1, 2, 3)
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr


# -- its store -----------------------------------------------------------------------------------


def test_a_second_host_is_refused_by_a_sqlite_store(small_stage: Stage, tmp_path: Path) -> None:
    assert small_stage.leader().stop() == 0
    with sqlite3.connect(tmp_path / "beat.db") as db:
        db.execute("update beat_host set name = 'elsewhere', boot = 'another', seen = seen + 5")
    db.close()

    beat = small_stage.beat()

    assert beat.wait() == 3
    assert "is in use by host 'elsewhere'" in beat.log()


def test_beat_waits_for_a_store_that_is_away_and_goes_on_without_it(
    small_stage: Stage, own_redis: RedisServer
) -> None:
    small_stage.own(often={"task": "quiet.work", "schedule": 0.5})
    small_stage.env["TASKQ_BEAT_STORE"] = own_redis.url
    small_stage.env["TASKQ_RESULT_BACKEND_TIMEOUT"] = "1"
    own_redis.stop()

    beat = small_stage.beat()
    away = beat.wait_for("beat-store-away")
    assert own_redis.password not in away["reason"]
    own_redis.start()

    beat.wait_for("due-sent")


def test_on_rabbitmq_beat_goes_on_while_its_store_is_away(
    rabbit: Any, own_redis: RedisServer, tmp_path: Path, beat_process: StartBeat
) -> None:
    stage = Stage(Site(rabbit.url), tmp_path, beat_process)
    stage.own(often={"task": "quiet.work", "schedule": 0.5})
    stage.env["TASKQ_BEAT_STORE"] = own_redis.url
    stage.env["TASKQ_RESULT_BACKEND_TIMEOUT"] = "1"
    beat = stage.leader()

    own_redis.stop()
    beat.wait_for("beat-store-away")
    seen = len(beat.events)
    wait_until(lambda: len(_sent(beat.events[seen:], "often@")) > 4, "more to be sent")

    own_redis.start()
    wait_until(lambda: stage.listed()["often"]["last"], "a run to be noted")


# -- with a worker -------------------------------------------------------------------------------


def test_a_worker_with_beat_sends_and_runs(stage: Stage, worker_process: StartWorker) -> None:
    stage.own(often={"task": "quiet.work", "schedule": 0.5})
    worker = worker_process(APP, "-c", "1", "-Q", "work", "-B", env=stage.env)

    due = worker.wait_for("due-sent")
    assert worker.wait_for("task-succeeded", id=due["id"])

    assert worker.stop() == 0  # and nothing of it is left
    assert [each["event"] for each in worker.events].count("beat-stopped") == 1


def test_a_beat_that_dies_is_started_again(small_stage: Stage, worker_process: StartWorker) -> None:
    worker = worker_process(APP, "-c", "1", "-Q", "work", "-B", env=small_stage.env)
    beat = worker.wait_for("beat-leading")["pid"]

    os.kill(beat, signal.SIGKILL)

    assert "SIGKILL" in worker.wait_for("beat-died")["how"]
    assert beat != worker.wait_for("beat-leading")["pid"]


def test_a_beat_ends_when_its_worker_is_killed(
    small_stage: Stage, worker_process: StartWorker
) -> None:
    worker = worker_process(APP, "-c", "1", "-Q", "work", "-B", env=small_stage.env)
    worker.wait_for("beat-leading")

    worker.kill()  # and nothing of it is left


def test_new_code_has_a_new_beat(small_stage: Stage, worker_process: StartWorker) -> None:
    worker = worker_process(APP, "-c", "1", "-Q", "work", "-B", env=small_stage.env)
    beat = worker.wait_for("beat-leading")["pid"]

    worker.send(signal.SIGHUP)

    worker.wait_for("beat-stopped", pid=beat)
    assert beat != worker.wait_for("beat-leading")["pid"]
    assert "beat-died" not in [each["event"] for each in worker.events]
