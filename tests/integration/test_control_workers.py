"""Remote control of real workers: what lasts does, over restarts and cuts; no flood ends one."""

import random
from pathlib import Path

import pytest

from taskq import clock
from taskq.control.base import REQUESTS
from taskq.control.commands import COMMANDS
from taskq.errors import TaskRevokedError
from taskq.wire.control import Request, write_request
from taskq.wire.message import Message, Properties
from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.proxy import Proxy
from tests.support.rabbit import Rabbit
from tests.support.site import Site
from tests.support.wait import wait_until

ONE = ["taskq@one"]
PATIENCE = 30.0

#: A question that has an argument that it must be given.
GIVEN = {"query_task": {"ids": ["1"]}}


def start(
    site: Site, worker_process: StartWorker, *arguments: str, url: str | None = None
) -> WorkerProcess:
    env = {"TASKQ_BROKER_URL": url} if url else site.env
    worker = worker_process(APP, "-Q", "q1", "-c", "2", "-n", ONE[0], *arguments, env=env)
    worker.wait_for("worker-ready")
    return worker


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_answers_every_question(
    site: Site, worker_process: StartWorker, pool: str
) -> None:
    start(site, worker_process, "--pool", pool)
    control = site.app().control

    for command in COMMANDS:
        if command.kind == "inspect" and not command.hidden:
            for name in (command.name, *command.aliases):
                said = control.broadcast(name, GIVEN.get(name), ONE, reply=True, timeout=PATIENCE)
                assert [ONE] == [list(reply) for reply in said], name
                reply = said[0][ONE[0]]
                assert reply is not None, name
                assert "error" not in reply, (name, reply)


def test_a_task_revoked_before_the_worker_came_never_runs(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    app = site.app()
    revoked = app.send_task("tasks.record", args=(1,), queue="q1")
    revoked.revoke()
    kept = app.send_task("tasks.record", args=(2,), queue="q1")

    start(site, worker_process)

    assert 2 == kept.get(timeout=PATIENCE)
    with pytest.raises(TaskRevokedError):
        revoked.get(timeout=PATIENCE)
    assert [kept.id] == ledger.ids()
    assert 0 == site.count("q1")


def test_a_paused_queue_is_paused_for_a_worker_that_starts_later(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    app = site.app()
    app.control.pause("q1")
    result = app.send_task("tasks.record", args=(1,), queue="q1")

    worker = start(site, worker_process, "-Q", "q1,q2")
    other = app.send_task("tasks.record", args=(2,), queue="q2")
    assert 2 == other.get(timeout=PATIENCE)
    assert [other.id] == ledger.ids()
    app.control.resume("q1")

    assert 1 == result.get(timeout=PATIENCE)
    assert 0 == worker.stop()


def test_a_task_revokes_another(site: Site, worker_process: StartWorker, ledger: Ledger) -> None:
    start(site, worker_process)
    app = site.app()

    app.send_task("tasks.withdraw", args=("doomed",), queue="q1").get(timeout=PATIENCE)
    doomed = app.send_task("tasks.record", args=(1,), queue="q1", task_id="doomed")

    with pytest.raises(TaskRevokedError):
        doomed.get(timeout=PATIENCE)
    assert [] == ledger.ids()


def test_a_run_is_terminated_and_ends_as_revoked(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    worker = start(site, worker_process)
    app = site.app()
    gate = tmp_path / "gate"
    doomed = app.send_task("tasks.act", args=("hold", str(gate)), queue="q1")
    kept = app.send_task("tasks.act", args=("hold", str(gate)), queue="q1")
    ledger.wait_for(2)

    doomed.revoke(terminate=True)
    with pytest.raises(TaskRevokedError, match="terminated"):
        doomed.get(timeout=PATIENCE)
    gate.touch()

    assert kept.get(timeout=PATIENCE) is None
    assert [doomed.id] == app.control.inspect(ONE, timeout=PATIENCE).revoked()[ONE[0]]  # type: ignore[index]
    assert 0 == worker.stop()


def test_what_was_decided_while_a_worker_was_cut_off_is_known_to_it_afterwards(
    rabbit: Rabbit, rabbit_through_proxy: Proxy, worker_process: StartWorker
) -> None:
    site = Site(rabbit.url)
    worker = start(site, worker_process, url=rabbit_through_proxy.url)
    with site.app() as app:
        rabbit_through_proxy.cut()
        worker.wait_for("connection-lost", role="listener", timeout=60)
        app.AsyncResult("1").revoke()
        app.control.pause("q2")
        rabbit_through_proxy.mend()

        inspect = app.control.inspect(ONE, timeout=1.0)
        wait_until(
            lambda: inspect.revoked() == {ONE[0]: ["1"]}, "the worker to know it", timeout=60
        )


def test_a_flood_of_commands_half_of_them_malformed_ends_no_worker_and_loses_no_task(
    site: Site, worker_process: StartWorker, ledger: Ledger
) -> None:
    worker = start(site, worker_process, "-l", "warning")
    app = site.app()
    chance = random.Random(6)
    results = []

    for number, message in enumerate(flood(chance, 2000)):
        if number % 10 == 0:
            results.append(app.send_task("tasks.record", args=(number,), queue="q1"))
        app.producer.broadcast(message, REQUESTS, "")
    for result in results:
        result.get(timeout=PATIENCE)

    assert_conserved([result.id for result in results], ledger, once=True)
    said = app.control.inspect(ONE, timeout=PATIENCE).ping()
    assert {ONE[0]: {"ok": "pong"}} == said
    assert 0 == worker.stop()


def flood(chance: random.Random, count: int) -> list[Message]:
    """Half of them commands that change nothing for good, half of them broken in some way."""
    names = [c.name for c in COMMANDS if c.name not in ("shutdown", "drain", "cancel_consumer")]
    sound = [
        write_request(
            Request(
                chance.choice(["ping", "stats", "active", "heartbeat", "revoked", "conf"]),
                {},
                ticket="t",
                reply_to=("reply.celery.pidbox", "nobody"),
                expires=clock.wall() + 60,
            )
        )
        for _ in range(count // 2)
    ]
    broken = []
    for _ in range(count // 2):
        whole = write_request(Request(chance.choice(names), {"task_id": 5, "queue": [], "n": "x"}))
        match chance.randrange(4):
            case 0:
                broken.append(whole)  # its arguments are wrong
            case 1:
                body = bytearray(whole.body)
                body[chance.randrange(len(body))] = chance.randrange(256)
                broken.append(Message(whole.raw, bytes(body)))
            case 2:
                broken.append(Message(whole.raw, whole.body[: chance.randrange(len(whole.body))]))
            case _:
                noise = chance.randbytes(chance.randrange(200))
                broken.append(Message.of(Properties(content_type="application/x-msgpack"), noise))
    mixed = sound + broken
    chance.shuffle(mixed)
    return mixed
