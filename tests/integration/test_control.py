"""`app.control` over both brokers: who is asked answers; what must last reaches who comes later."""

import os
import threading

import pytest

from taskq import TaskQ
from taskq.control.base import CommandError
from taskq.control.memory import Pause, Revoke
from taskq.errors import BrokerUnavailable, PublishError
from tests.support.desk import PaperWorker, listening
from tests.support.ports import free_port
from tests.support.wait import wait_until

#: Long enough for a slow machine; who answers does so at once, and all that were named are waited
#: for no longer.
PATIENCE = 30.0


@pytest.fixture
def fleet(site):
    """Two paper workers, alpha and beta."""
    with (
        site.broker() as broker,
        listening(broker, PaperWorker("taskq@alpha")) as alpha,
        listening(broker, PaperWorker("taskq@beta")) as beta,
    ):
        yield alpha, beta


NODES = ["taskq@alpha", "taskq@beta"]


def test_all_that_are_asked_answer(site, fleet):
    control = site.app().control

    said = control.inspect(NODES, timeout=PATIENCE).ping()

    assert {node: {"ok": "pong"} for node in NODES} == said


def test_everybody_is_asked_where_nobody_is_named(site, fleet):
    control = site.app().control

    said = control.broadcast("ping", reply=True, timeout=PATIENCE, limit=2)

    assert sorted(NODES) == sorted(node for reply in said for node in reply)


def test_one_that_is_named_answers_alone(site, fleet):
    alpha, beta = fleet
    control = site.app().control

    said = control.heartbeat(destination=["taskq@beta"], reply=True, timeout=PATIENCE)

    assert [{"taskq@beta": None}] == said
    assert [[], ["heartbeat"]] == [alpha.told, beta.told]


def test_workers_are_found_by_their_names(site, fleet):
    control = site.app().control

    said = control.broadcast(
        "ping", reply=True, timeout=PATIENCE, limit=1, pattern="*@al*", matcher="glob"
    )

    assert [{"taskq@alpha": {"ok": "pong"}}] == said


def test_nobody_answers_for_a_worker_that_is_not_there(site, fleet):
    inspect = site.app().control.inspect("taskq@nowhere", timeout=0.2)

    assert inspect.stats() is None


def test_replies_are_heard_as_they_come(site, fleet):
    alpha, beta = fleet
    heard = []
    replies = site.app().control.stream("dump", timeout=PATIENCE, limit=2)

    listener = threading.Thread(target=lambda: heard.extend(replies))
    listener.start()
    wait_until(lambda: alpha.dumps and beta.dumps, "both asked")
    beta.dumps[0].set("second first")
    wait_until(lambda: heard or not listener.is_alive(), "a reply")
    first = list(heard)
    alpha.dumps[0].set("first second")
    listener.join()

    assert [("taskq@beta", "second first")] == first
    assert ("taskq@alpha", "first second") == heard[1]


def test_a_callback_hears_each_reply(site, fleet):
    heard = []

    said = site.app().control.broadcast(
        "ping", reply=True, timeout=PATIENCE, limit=2, callback=heard.append
    )

    assert said == heard
    assert len(heard) == 2


@pytest.mark.parametrize(
    ("question", "arguments"),
    [
        ("stats", ()),
        ("active", (True,)),
        ("reserved", ()),
        ("scheduled", ()),
        ("revoked", ()),
        ("registered", ("rate_limit",)),
        ("active_queues", ()),
        ("conf", (True,)),
        ("report", ()),
        ("query_task", ("running", ["other"])),
        ("clock", ()),
        ("hello", ("me", ["1"])),
        ("memsample", ()),
    ],
)
def test_every_question_has_an_answer(site, fleet, question, arguments):
    inspect = site.app().control.inspect("taskq@alpha", timeout=PATIENCE)

    said = getattr(inspect, question)(*arguments)

    assert ["taskq@alpha"] == list(said)
    assert "error" not in said["taskq@alpha"]


@pytest.mark.parametrize(
    ("command", "arguments", "told"),
    [
        ("terminate", ("running",), ("terminate", ("running",), 15)),
        ("pool_grow", (2,), ("pool_grow", 2)),
        ("pool_shrink", (), ("pool_shrink", 1)),
        ("pool_restart", (), "pool_restart"),
        ("add_consumer", ("q", None, None, None, {"max_priority": 5}),
         ("add_consumer", "p.q", None, None, None, {"max_priority": 5})),
        ("cancel_consumer", ("q",), ("cancel_consumer", "p.q")),
        ("drain", (), "drain"),
        ("undrain", (), "undrain"),
        ("shutdown", (), "shutdown"),
    ],
)  # fmt: skip
def test_every_command_is_obeyed(site, fleet, command, arguments, told):
    alpha, beta = fleet
    control = site.app(queue_prefix="p.").control

    assert [] == getattr(control, command)(*arguments, destination=["taskq@alpha"])

    wait_until(lambda: alpha.told, command)
    assert [[told], []] == [alpha.told, beta.told]


def test_what_was_decided_reaches_workers_that_start_later(site):
    app = site.app(queue_prefix="p.")
    app.AsyncResult("1").revoke()
    app.control.revoke(["2", "3"])
    app.control.revoke_by_stamped_headers({"colour": ["blue", "red"]})
    app.control.rate_limit("add", "10/m")
    app.control.time_limit("add", soft=1.5)
    app.control.pause("a")
    app.control.pause("b")
    app.control.resume("a")

    with site.broker() as broker, listening(broker, PaperWorker()) as worker:
        known = worker.remembered

    assert ["1", "2", "3"] == list(known.revoked)
    assert ["blue", "red"] == list(known.revoked_headers["colour"])
    assert known.rate_limits == {"add": "10/m"}
    assert known.time_limits == {"add": (None, 1.5)}
    assert known.paused == {"p.b"}


def test_what_is_decided_reaches_workers_that_are_there(site, fleet):
    app = site.app()

    said = app.control.pause("a", reply=True, timeout=PATIENCE, limit=2)
    app.AsyncResult("1").revoke(terminate=True, signal="SIGKILL")

    assert [{"ok": "queue a paused"}] * 2 == [reply for each in said for reply in each.values()]
    for worker in fleet:
        wait_until(lambda worker=worker: worker.told, "the end of 1")
        assert [Pause("a"), Revoke(("1",))] == worker.changes
        assert [("terminate", ("1",), 9)] == worker.told


def test_many_threads_ask_at_once(site, fleet):
    control = site.app().control
    said = []

    def ask():
        said.append(control.inspect(NODES, timeout=PATIENCE).ping())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [sorted(NODES)] * 8 == [sorted(each) for each in said]


def test_a_forked_child_asks_and_steers(site, fleet):
    app = site.app()
    app.control.revoke("parent")
    app.control.inspect(NODES, timeout=PATIENCE).ping()

    child = os.fork()
    if child == 0:
        try:
            app.control.revoke("child")
            answered = app.control.inspect(NODES, timeout=PATIENCE).ping()
            os._exit(0 if sorted(answered) == NODES else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert len(app.control.inspect(NODES, timeout=PATIENCE).ping()) == 2
    for worker in fleet:
        wait_until(lambda worker=worker: worker.remembered.is_revoked("child"), "both revoked")


def test_a_mistake_is_told_before_anything_is_sent(site):
    control = site.app().control

    with pytest.raises(CommandError, match="'10/s'"):
        control.rate_limit("add", "10/d")
    with pytest.raises(CommandError, match="signal"):
        control.revoke("1", terminate=True, signal="SIGNONE")


def test_a_command_of_other_workers_is_sent_as_it_is(site, fleet):
    said = site.app().control.broadcast(
        "make_tea", {"sugar": 2}, destination=["taskq@alpha"], reply=True, timeout=PATIENCE
    )

    (reply,) = (each["taskq@alpha"]["error"] for each in said)
    assert reply.startswith("there is no command 'make_tea'")


def test_a_broker_that_is_away_is_told():
    url = f"amqp://guest:secret@127.0.0.1:{free_port()}/"
    with TaskQ(broker=url, publish_timeout=0.3) as app:
        with pytest.raises(BrokerUnavailable, match=r"amqp://guest:\*+@127\.0\.0\.1") as away:
            app.control.ping()
        with pytest.raises(BrokerUnavailable, match="no command can be sent"):
            app.control.shutdown()
        with pytest.raises(PublishError, match="the command revoke was not sent to amqp://"):
            app.AsyncResult("1").revoke()

    assert "secret" not in str(away.value)


def test_within_one_process_memory_is_broker_enough():
    with TaskQ(broker="memory://control") as app, listening(app.broker, PaperWorker()) as worker:
        said = app.control.inspect(timeout=0.2).ping()
        app.control.revoke("1")
        wait_until(lambda: worker.remembered.is_revoked("1"), "the revocation")

    assert {"taskq@paper": {"ok": "pong"}} == said
