"""Messages that are no tasks: each ends in the dead-letter queue with its reason, nothing runs."""

import json
import struct
from dataclasses import dataclass, replace
from typing import Any

import pytest

from taskq.errors import TaskqError
from taskq.wire.dead import read as read_dead
from taskq.wire.message import Message, Properties
from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker
from tests.support.site import Site

HEADERS: dict[str, Any] = {"lang": "py", "task": "tasks.record", "id": "SET BELOW", "retries": 0}
BODY = [[1], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
PROPERTIES = Properties(content_type="application/json", content_encoding="utf-8", delivery_mode=2)
SIGNATURE = {"task": "tasks.record", "args": [2], "kwargs": {}, "options": {"task_id": "later"}}


@dataclass(frozen=True)
class Bad:
    """One kind of bad message, and words that its reason must contain."""

    name: str
    reason: str
    message: Message


def bad(
    name: str,
    reason: str,
    *,
    body: Any = BODY,
    raw_body: bytes | None = None,
    without: tuple[str, ...] = (),
    headers: dict[str, Any] | None = None,
    **properties: Any,
) -> Bad:
    fields = HEADERS | {"id": name} | (headers or {})
    kept = {key: value for key, value in fields.items() if key not in without}
    encoded = json.dumps(body).encode() if raw_body is None else raw_body
    return Bad(name, reason, Message.of(replace(PROPERTIES, headers=kept, **properties), encoded))


def deep_headers() -> Message:
    """Properties whose header table is nested deeper than anybody means; RabbitMQ passes it on."""
    table = b""
    for _ in range(200):
        table = b"\x01kF" + struct.pack(">I", len(table)) + table
    return Message(struct.pack(">HI", 1 << 13, len(table)) + table, b"{}")


CASES = [
    bad("unknown-task", "not registered", headers={"task": "tasks.nobody"}),
    bad("bad-json", "json", raw_body=b"[[1], {"),
    bad("unknown-type", "__type__", body=[[{"__type__": "x", "__value__": 1}], {}, {}]),
    bad("unknown-compression", "compression", headers={"compression": "application/x-snappy"}),
    bad("not-compressed", "compress", headers={"compression": "application/x-gzip"}),
    bad("pickle", "accept_content", content_type="application/x-python-serialize"),
    bad("no-content-type", "content", content_type=None),
    bad("bad-eta", "eta", headers={"eta": "soon"}),
    bad("bad-expires", "expires", headers={"expires": "never"}),
    bad("kwargs-list", "kwargs", body=[[1], [], {}]),
    bad("args-mapping", "args", body=[{}, {}, {}]),
    bad("two-parts", "list of", body=[[1], {}]),
    bad("body-text", "list of", body="x"),
    bad("hybrid", "protocol 1", body={"args": [1]}),
    bad("timelimit-of-three", "timelimit", headers={"timelimit": [1, 2, 3]}),
    bad("retries-text", "retries", headers={"retries": "many"}),
    bad("chain", "chain", body=[[1], {}, {"chain": [SIGNATURE]}]),
    bad("chord", "chord", body=[[1], {}, {"chord": SIGNATURE}]),
    bad("callbacks", "callbacks", body=[[1], {}, {"callbacks": [SIGNATURE]}]),
    bad("errbacks", "errbacks", body=[[1], {}, {"errbacks": [SIGNATURE]}]),
    bad("deep", "nest", raw_body=b"[[" + b"[" * 100_000 + b"]" * 100_000 + b"], {}, {}]"),
]
NAMELESS = [
    bad("no-id", "id", without=("id",)),
    bad("id-number", "id", headers={"id": 7}),
    bad("protocol-1", "protocol 1", without=("task", "id"), body={"task": "t", "id": "1"}),
    bad("foreign", "task", without=("task", "id", "lang", "retries"), raw_body=b"hello"),
    Bad("unreadable-headers", "cannot be decoded", deep_headers()),
]


def test_every_bad_message_is_dead_lettered_with_its_reason_and_the_next_task_runs(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    app = site.app()
    for case in [*CASES, *NAMELESS]:
        site.publish(case.message, "q1")
    good = app.send_task("tasks.record", args=(1,), queue="q1")
    worker = worker_process(APP, "-Q", "q1", "-c", "2", env=site.env)

    assert 1 == good.get(timeout=30)
    letters = site.take("q1.dead", len(CASES) + len(NAMELESS))

    reasons = {}
    for letter in letters:
        found = read_dead(letter.headers)
        assert found is not None
        reasons[letter.body, letter.headers.get("id")] = found.reason
    for case in [*CASES, *NAMELESS]:
        key = case.message.body, case.message.headers.get("id")
        assert case.reason in reasons[key], (case.name, reasons[key])
    assert worker.is_running
    assert [good.id] == ledger.ids()
    dead_ids = [letter.headers.get("id") for letter in letters]
    sent = [good.id, *(case.name for case in CASES)]
    assert_conserved(sent, ledger, dead=[each for each in dead_ids if each in set(sent)], once=True)


def test_a_bad_message_with_an_id_fails_for_whoever_waits_for_it(
    site: Site, worker_process: StartWorker
) -> None:
    app = site.app(task_serializer="json")
    waiting = app.send_task("tasks.record", args=(1,), queue="q1", headers={}, task_id="awaited")
    unknown = app.send_task("tasks.nobody", queue="q1")
    (original,) = [m for m in site.take("q1", 2) if m.headers["id"] == "awaited"]
    site.publish(Message(original.raw, b"[[1], {"), "q1")
    site.publish(
        original.copy(headers={**original.headers, "id": unknown.id, "task": "tasks.nobody"}), "q1"
    )
    worker_process(APP, "-Q", "q1", "-c", "1", env=site.env)

    with pytest.raises(TaskqError, match="json"):
        waiting.get(timeout=30)
    with pytest.raises(TaskqError, match=r"tasks\.nobody"):
        unknown.get(timeout=30)
