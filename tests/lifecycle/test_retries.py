"""Tasks that are tried again by a real worker: when, how often, as what, and how they end."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from taskq import MaxRetriesExceededError, Task, clock
from taskq.wire import task as wire
from taskq.wire.dead import read as read_dead
from taskq.wire.headers import TaskHeaders
from tests.support.ledger import Ledger
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.site import Site


def start(site: Site, worker_process: StartWorker, *arguments: str, **env: str) -> WorkerProcess:
    worker = worker_process(
        *(APP, "-Q", "q1,q2", "-c", "2", *arguments),
        env={**site.env, "TASKQ_INCLUDE": "retries", **env},
    )
    worker.wait_for("worker-ready")
    return worker


def delays(worker: WorkerProcess, task_id: str) -> list[float]:
    """Before which delays *task_id* was tried again."""
    return [
        event["delay"]
        for event in worker.events
        if event["event"] == "task-retried" and event["id"] == task_id
    ]


def assert_dead(site: Site, task_id: str, exception: str, attempts: int) -> None:
    """*task_id* is the one dead letter, and failed with *exception* at its last attempt."""
    (message,) = site.take("q1.dead", 1)
    letter = read_dead(message.headers)
    assert letter is not None
    assert (message.headers["id"], letter.exception_type) == (task_id, exception)
    assert letter.attempts == attempts


def test_a_retry_may_change_arguments_queue_and_delay_and_keeps_its_id(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = start(site, worker_process)
    how = {"args": ["second"], "kwargs": {}, "countdown": 0.25, "queue": "q2"}

    result = site.app().send_task("retries.again", args=("first", how), queue="q1")

    assert ["second", 1, "q2"] == result.get(timeout=30)
    assert [(result.id, "first"), (result.id, "second")] == ledger.entries()
    assert [0.25] == delays(worker, result.id)


def test_a_retry_may_name_the_moment(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = start(site, worker_process)
    how = {"args": ["second"], "kwargs": {}, "eta": clock.utc() + timedelta(seconds=1)}

    result = site.app().send_task("retries.again", args=("first", how), queue="q1")

    assert ["second", 1, "q1"] == result.get(timeout=30)
    assert clock.utc() >= how["eta"]
    (delay,) = delays(worker, result.id)
    assert 0 <= delay <= 1


def test_a_retry_is_the_same_task_in_everything_but_its_count(
    site: Site, worker_process: StartWorker
) -> None:
    start(site, worker_process)
    app = site.app()
    result = app.send_task(
        *("retries.same", (), {}),
        queue="q1",
        priority=3,
        expires=600,
        headers={"trace": "t1"},
        shadow="nickname",
        time_limit=60,
        soft_time_limit=50,
        ignore_result=False,
        serializer="msgpack",
    )

    first, second = result.get(timeout=30)

    assert first == second
    assert (first["id"], first["queue"], first["priority"]) == (result.id, "q1", 3)
    assert (first["headers"], first["shadow"]) == ({"trace": "t1"}, "nickname")
    assert (first["timelimit"], first["serializer"]) == ([60, 50], "msgpack")
    assert first["expires"] is not None


def test_a_retry_keeps_its_place_in_a_group_and_under_its_parent(
    site: Site, worker_process: StartWorker, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/results.db"
    start(site, worker_process, TASKQ_RESULT_BACKEND=store)
    kept = {"root_id": "root", "parent_id": "parent", "group": "group", "group_index": 7}
    headers = TaskHeaders("retries.same", "member", **kept)  # type: ignore[arg-type]

    site.publish(wire.encode(headers, (), {}), "q1")
    first, second = site.app(result_backend=store).AsyncResult("member").get(timeout=30)

    assert first == second
    assert kept == {name: first[name] for name in kept}


def test_a_retry_of_a_broadcast_goes_back_to_the_queue_it_came_from_alone(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    fanout = {"exchange": "everybody", "exchange_type": "fanout"}
    queues = {"q1": fanout, "q2": fanout}
    worker = start(site, worker_process, TASKQ_TASK_QUEUES=json.dumps(queues))

    site.app().send_task("retries.broadcast", exchange="everybody")
    worker.wait_for("task-succeeded")
    worker.wait_for("task-succeeded")

    assert 0 == worker.stop()
    runs = [(queue, retries) for queue in ("q1", "q2") for retries in "01"]
    assert runs == sorted(ledger.entries())
    assert (0, 0) == (site.count("q1"), site.count("q2"))


@pytest.mark.parametrize("name", ["exhaust", "by_hand"])
def test_when_retries_run_out_a_task_fails_with_its_reason(
    site: Site, worker_process: StartWorker, ledger: Ledger, name: str
) -> None:
    start(site, worker_process)
    args = {"exhaust": ["no luck"], "by_hand": ["t1", "no luck"]}[name]

    result = site.app().send_task(f"retries.{name}", args=args, queue="q1", task_id="t1")
    with pytest.raises(LookupError, match="no luck"):
        result.get(timeout=30)

    assert ["t1"] * 3 == ledger.ids()
    assert_dead(site, "t1", "LookupError", attempts=3)


@pytest.mark.parametrize("name", ["exhaust", "by_hand"])
def test_when_retries_run_out_without_a_reason_that_is_the_reason(
    site: Site, worker_process: StartWorker, ledger: Ledger, name: str
) -> None:
    start(site, worker_process)
    args = {"exhaust": [], "by_hand": ["t1"]}[name]

    result = site.app().send_task(f"retries.{name}", args=args, queue="q1", task_id="t1")
    with pytest.raises(MaxRetriesExceededError, match=rf"retries\.{name}\[t1\] was tried 3 times"):
        result.get(timeout=30)

    assert ["t1"] * 3 == ledger.ids()
    assert_dead(site, "t1", "MaxRetriesExceededError", attempts=3)


def test_without_a_limit_there_is_no_end(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    start(site, worker_process)

    result = site.app().send_task("tasks.act", args=("retry", 25), queue="q1")

    assert 25 == result.get(timeout=60)
    assert [result.id] * 26 == ledger.ids()


def test_named_exceptions_are_tried_again_by_themselves_further_and_further_apart(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = start(site, worker_process)
    app = site.app()
    results = {
        kind: app.send_task("retries.flaky", args=(kind,), queue="q1")
        for kind in ("connection", "file", "value")
    }

    for kind, error in [
        ("file", FileNotFoundError),
        ("value", ValueError),
        ("connection", ConnectionError),
    ]:
        with pytest.raises(error, match="flaky"):
            results[kind].get(timeout=30)

    ran = [ledger.ids().count(results[kind].id) for kind in ("connection", "file", "value")]
    assert [5, 1, 1] == ran
    assert [0.02, 0.04, 0.05, 0.05] == delays(worker, results["connection"].id)


def test_a_function_says_when_to_try_again_and_when_to_give_up(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = start(site, worker_process)
    app = site.app()

    twice = app.send_task("retries.judged", args=("twice",), queue="q1")
    never = app.send_task("retries.judged", args=("never",), queue="q1")
    for result, words in ((twice, "twice"), (never, "never")):
        with pytest.raises(RuntimeError, match=words):
            result.get(timeout=30)

    assert [1 / 64, 2 / 64] == delays(worker, twice.id)
    assert [3, 1] == [ledger.ids().count(each.id) for each in (twice, never)]
    dead = {message.headers["id"] for message in site.take("q1.dead", 2)}
    assert {twice.id, never.id} == dead


def test_a_function_that_says_nonsense_fails_the_task_and_is_told_so(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    start(site, worker_process)

    result = site.app().send_task("retries.judged", args=("nonsense",), queue="q1")
    with pytest.raises(TypeError, match=r"said 'tomorrow' of RuntimeError\('nonsense'\).*seconds"):
        result.get(timeout=30)

    assert [result.id] == ledger.ids()
    assert "RuntimeError: nonsense" in (result.traceback or "")
    assert_dead(site, result.id, "TypeError", attempts=1)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"quue": "q2"}, TypeError, "did you mean 'queue'"),
        ({"queue": "q3"}, Exception, "'q3' is not in task_queues"),
        ({"countdown": float("inf")}, ValueError, "give seconds"),
        ({"args": []}, TypeError, "missing a required argument"),
    ],
    ids=["option", "queue", "countdown", "arguments"],
)
def test_a_retry_that_cannot_be_sent_is_how_the_task_fails(
    site: Site,
    worker_process: StartWorker,
    ledger: Ledger,
    how: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    worker = start(
        *(site, worker_process),
        TASKQ_TASK_CREATE_MISSING_QUEUES="false",
        TASKQ_TASK_QUEUES='["q1", "q2"]',
    )

    result = site.app().send_task("retries.again", args=("first", how), queue="q1")
    with pytest.raises(error, match=words):
        result.get(timeout=30)

    assert [result.id] == ledger.ids()
    assert [] == [event for event in worker.events if event["event"] == "child-died"]


def test_that_a_task_is_tried_again_is_stored_before_the_next_try_can_end(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/results.db"
    start(site, worker_process, TASKQ_RESULT_BACKEND=store, TASKQ_TEST_STATES="1")

    result = site.app(result_backend=store).send_task("retries.exhaust", queue="q1")
    with pytest.raises(MaxRetriesExceededError):
        result.get(timeout=30)

    assert ["exhaust", "RETRY", "exhaust", "RETRY", "exhaust"] == [
        remark for _, remark in ledger.entries()
    ]
    assert result.state == "FAILURE"


def test_a_task_may_bring_its_function_by_its_class() -> None:
    class Patient(Task[Any, Any]):
        def retry_when(self, error: Exception, attempt: int) -> float | None:
            return {"again": 5.0 * attempt}.get(str(error))

        def run(self) -> None: ...

    policy = Patient().retry_policy

    assert policy.delay_after(OSError("again"), 2) == 10
    assert policy.delay_after(OSError("enough"), 2) is None
