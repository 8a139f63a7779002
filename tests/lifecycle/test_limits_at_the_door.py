"""What is too large or nested too deep is kept out, and what is held and logged is bounded."""

import gzip
import json
import re
from pathlib import Path

import pytest

from taskq import TaskqError
from taskq.wire.dead import read as read_dead
from taskq.wire.message import Message
from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker
from tests.support.redis_server import RedisServer
from tests.support.site import Site

LIMIT = 100_000


def a_message(site: Site) -> Message:
    """A message for `record`, taken out of its queue."""
    site.app().send_task("tasks.record", args=(1,), queue="q0")
    (message,) = site.take("q0", 1)
    return message


def test_what_is_larger_than_the_receiver_allows_is_dead_lettered_unopened(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    app = site.app()  # allows itself more than the worker does
    sent = {
        "large": app.send_task("tasks.act", args=("ok", "x" * LIMIT), queue="q1"),
        "packed": app.send_task(
            "tasks.act", args=("ok", "x" * LIMIT), queue="q1", compression="gzip"
        ),
    }
    # Not even JSON: nobody will know, because nobody opens it.
    broken = a_message(site)
    site.publish(Message(broken.raw, b"[" * (LIMIT + 1)), "q1")
    # A gigabyte in a megabyte.
    bomb = gzip.compress(b"[" + b" " * (1 << 26) + b"]")
    headers = {**broken.headers, "id": "bomb", "compression": "application/x-gzip"}
    site.publish(Message(broken.copy(headers=headers).raw, bomb[: LIMIT - 1]), "q1")
    good = app.send_task("tasks.act", args=("ok", "x" * (LIMIT // 2)), queue="q1")
    worker_process(
        *(APP, "-Q", "q1", "-c", "1"), env={**site.env, "TASKQ_TASK_MAX_PAYLOAD": str(LIMIT)}
    )

    assert "x" * (LIMIT // 2) == good.get(timeout=30)
    letters = site.take("q1.dead", 4)

    reasons = {}
    for letter in letters:
        found = read_dead(letter.headers)
        assert found is not None
        reasons[letter.headers["id"]] = found.reason
    assert {
        sent["large"].id: f"body is larger than {LIMIT} bytes",
        sent["packed"].id: f"uncompressed body is larger than {LIMIT} bytes",
        broken.headers["id"]: f"body is larger than {LIMIT} bytes",
        "bomb": f"uncompressed body is larger than {LIMIT} bytes",
    } == reasons
    assert_conserved([good.id, *reasons], ledger, dead=reasons, once=True)
    with pytest.raises(TaskqError, match="larger than"):
        sent["large"].get(timeout=30)


def test_a_task_nested_too_deep_does_no_harm(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    template = a_message(site)
    deep = b"[" * 3_000_000 + b"]" * 3_000_000
    site.publish(Message(template.raw, b"[" + deep + b", {}, {}]"), "q1")
    good = site.app().send_task("tasks.record", args=(1,), queue="q1")
    worker = worker_process(APP, "-Q", "q1", "-c", "1", env=site.env)

    assert 1 == good.get(timeout=30)
    (letter,) = site.take("q1.dead", 1)

    found = read_dead(letter.headers)
    assert found is not None
    assert "nested too deep" in found.reason
    assert [good.id] == ledger.ids()
    assert [] == [event for event in worker.events if event["event"] == "child-died"]


def test_a_worker_with_its_hands_full_takes_no_more_and_loses_nothing(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    gate, size, count = tmp_path / "gate", 50_000, 60
    app = site.app()
    holder = app.send_task("tasks.act", args=("hold", str(gate)), queue="q1")
    worker = worker_process(
        *(APP, "-Q", "q1", "-c", "1", "--prefetch=10"),
        env={**site.env, "TASKQ_WORKER_MAX_HELD_BYTES": str(4 * size)},
    )
    worker.wait_for("task-received", id=holder.id)
    sent = [
        app.send_task("tasks.act", args=("ok", "x" * size), queue="q1").id for _ in range(count)
    ]

    held = worker.wait_for("intake-paused")["held"]
    left = site.count("q1")
    gate.touch()
    worker.wait_for("intake-resumed")
    ledger.wait_for(1 + count)

    assert 4 * size < held <= 10 * (size + 1000)
    assert left >= count - 10
    assert worker.stop() == 0
    assert_conserved([holder.id, *sent], ledger, once=True)
    assert 0 == site.count("q1")


def test_no_log_shows_a_password_or_more_of_an_argument_than_was_allowed(
    site: Site, worker_process: StartWorker, own_redis: RedisServer
) -> None:
    app = site.app()
    megabyte = "argument-" * 120_000
    worker = worker_process(
        *(APP, "-Q", "q1", "-c", "1", "--loglevel=debug"),
        env={
            **site.env,
            "TASKQ_RESULT_BACKEND": own_redis.url,
            "TASKQ_RESULT_STORE_RETRY": "0.2",
            "TASKQ_REPR_MAX_LENGTH": "100",
        },
    )
    for word in ("ok", "fail", megabyte):
        app.send_task("tasks.act", args=(word, megabyte), queue="q1")
    app.send_task("tasks.act", args=("ok", [[megabyte[:50_000]] * 6] * 6), queue="q1")
    app.send_task("tasks.act", args=("ok",), kwargs={megabyte: 1}, queue="q1")
    for event in ("task-succeeded", "task-failed", "task-failed", "task-succeeded", "task-failed"):
        worker.wait_for(event)
    own_redis.stop()
    app.send_task("tasks.act", args=("ok", megabyte), queue="q1")
    worker.wait_for("result-lost")
    worker.stop()

    log = worker.log()
    assert "results   redis://:***@" in log
    assert own_redis.password not in log
    assert "guest:guest" not in log
    assert max(map(len, re.findall(r"(?:argument-)+", log))) <= 100
    assert "argument-argument-" in log
    assert len(log) < 100_000


def test_json_lines_are_bounded_too(site: Site, worker_process: StartWorker) -> None:
    worker = worker_process(
        *(APP, "-Q", "q1", "-c", "1", "--loglevel=debug", "--log-style=json"),
        env={**site.env, "TASKQ_REPR_MAX_LENGTH": "100"},
    )
    site.app().send_task("tasks.act", args=("fail", "argument-" * 120_000), queue="q1")
    worker.wait_for("task-dead-lettered")
    worker.stop()

    lines = [json.loads(line) for line in worker.log().splitlines() if line.startswith("{")]
    assert {"task-failed", "task-dead-lettered"} <= {line.get("event") for line in lines}
    assert max(map(len, re.findall(r"(?:argument-)+", worker.log()))) <= 100


QUOTING = """
from taskq import Reject, Task, TaskQ, hooks

app = TaskQ("tests")

class Told(Task):
    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        raise RuntimeError(args)

@hooks.task_postrun
def after(*, args, **_):
    raise RuntimeError(args)

@app.task(bind=True, base=Told, throws=(KeyError,), max_retries=1, default_retry_delay=0)
def quote(self, text, way):
    match way:
        case "return":
            return [text]
        case "retry":
            raise self.retry(exc=ValueError(text))
        case "exhaust":
            raise self.retry()
        case "reject":
            raise Reject(text)
        case "expected":
            raise KeyError(text)
        case "cause":
            raise ValueError("short") from ValueError(text)
        case "group":
            inner = ExceptionGroup("short", [OSError(text)])
            raise ExceptionGroup("short", [ValueError("short"), inner])
        case "note":
            error = ValueError("short")
            error.add_note(text)
            raise error
        case "send":
            quote.apply_async((text,), {"way": "return"}, exchange="nowhere")
"""


def test_whatever_quotes_an_argument_is_cut_in_the_log(
    site: Site, worker_process: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text(QUOTING)
    ways = ["return", "retry", "exhaust", "reject", "expected", "cause", "group", "note", "send"]
    app = site.app()
    for way in ways:
        app.send_task("tasks.quote", args=("argument-" * 2000, way), queue="q1")
    worker = worker_process(
        *(tmp_path, "-Q", "q1", "-c", "1", "--loglevel=debug"),
        env={**site.env, "TASKQ_REPR_MAX_LENGTH": "100"},
    )
    site.take("q1.dead", len(ways) - 1)  # all but one have failed for good
    assert 0 == worker.stop()

    quoted = re.findall(r"(?:argument-)+", worker.log())
    assert {"hook-failed", "task-retried", "task-rejected", "task-failed-expected"} <= {
        event["event"] for event in worker.events
    }
    assert len(quoted) > 2 * len(ways)
    assert max(map(len, quoted)) <= 100


def test_a_message_shows_as_much_of_its_arguments_as_the_setting_allows(site: Site) -> None:
    for longest in (50, 3000):
        app = site.app(repr_max_length=longest)
        app.send_task("t", args=("argument-" * 300,), kwargs={"k": "x" * 2700}, queue="q1")
        (message,) = site.take("q1", 1)
        shown = [message.headers[name] for name in ("argsrepr", "kwargsrepr")]
        assert [min(longest, 2700 + extra) for extra in (5, 9)] == [len(each) for each in shown]
