"""`taskq queues` on both brokers: what it tells is so, and nothing is lost by what it does."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from taskq.broker.base import Queue, Route
from taskq.broker.topology import ROUTE_HEADER
from taskq.cli.queues import queues
from taskq.loop import Loop
from taskq.queues import Move
from taskq.wire.message import Message
from tests.docs.pages import page
from tests.support.ledger import Ledger
from tests.support.letters import a_letter, a_task, bury
from tests.support.process import APP, REPOSITORY, StartWorker
from tests.support.program import leashed
from tests.support.rabbit import Rabbit, RabbitNode
from tests.support.site import Site
from tests.support.wait import wait_until

#: Moves all of q1 to q2 in a process that is killed in the middle; the arguments are the broker and
#: after how many messages.
STRUCK = """
import os, signal, sys
from taskq import TaskQ
from taskq.queues import Move

url, middle = sys.argv[1], int(sys.argv[2])
strike = lambda dealt: dealt >= middle and os.kill(os.getpid(), signal.SIGKILL)
with TaskQ(broker=url, task_queues=["q1", "q2"]) as app:
    Move(app, "q1", "q2").run(strike)
"""


class Operator:
    """Somebody who calls `taskq queues` in *folder*, where the environment names the broker."""

    def __init__(self, url: str, folder: Path, **env: str) -> None:
        ours = {key: value for key, value in os.environ.items() if not key.startswith("TASKQ_")}
        self._env = {**ours, "PYTHONPATH": str(REPOSITORY), "TASKQ_BROKER_URL": url, **env}
        self._folder = folder

    def run(
        self, *words: str, code: int = 0, stdin: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """What `taskq queues *words*` printed; it must end with *code*."""
        done = subprocess.run(
            leashed(sys.executable, "-m", "taskq", "queues", *words),
            cwd=self._folder,
            env=self._env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def told(self, *words: str, **options: Any) -> list[dict[str, Any]]:
        """What `taskq queues *words* --json` printed."""
        return [
            json.loads(line) for line in self.run(*words, "--json", **options).stdout.splitlines()
        ]


@pytest.fixture
def operator(site: Site) -> Operator:
    """In the folder of the tests' app, which knows q1 and q2."""
    return Operator(site.url, APP, TASKQ_TASK_QUEUES='["q1", "q2"]')


def fill(site: Site, count: int, queue: str = "q1", **more: Any) -> list[str]:
    """Put *count* tasks into *queue*; their ids, in order."""
    ids = [f"task-{number:06}" for number in range(count)]
    with site.broker() as broker:
        loop = Loop()
        outlet = broker.outlet(loop)
        answers: list[object] = []
        for id in ids:
            route = Route("", queue, (Queue(queue),))
            outlet.publish(a_task(id, **more), route, answers.append)
        wait_until(lambda: loop.turn(0.05) or len(answers) == count, "the confirms", timeout=60)
        outlet.close()
        loop.close()
    assert not any(answers)
    return ids


def ids_of(messages: Sequence[Message]) -> list[str]:
    return [str(message.headers["id"]) for message in messages]


# -- looking -------------------------------------------------------------------------------------


def test_the_list_tells_what_is_ready_delayed_and_dead(site: Site, operator: Operator) -> None:
    fill(site, 3)
    with site.broker() as broker:
        bury(broker, [a_letter(a_task("dead"))])
    site.app().send_task("tasks.add", args=(1, 2), queue="q1", countdown=600)

    first, second, *rest = operator.told("list")
    table = operator.run("list").stdout.splitlines()

    assert ("q1", 3, 1, True) == tuple(first[key] for key in ("queue", "ready", "dead", "exists"))
    assert ("q2", None, False) == tuple(second[key] for key in ("queue", "ready", "exists"))
    if site.url.startswith("amqp"):
        assert ("quorum", 0, None) == tuple(first[key] for key in ("type", "consumers", "age"))
        assert [{"queue": None, "delayed": 1}] == rest
        assert "1 message for any of the broker's queues wait" in table[-1]
    else:
        assert ("sqlite", 1, []) == (first["type"], first["delayed"], rest)
        assert 0 <= first["age"] < 600
    assert ["QUEUE", "TYPE", "READY"] == table[0].split()[:3]
    assert ["q1", first["type"], "3"] == table[1].split()[:3]
    assert ["q2", "none", "-"] == table[2].split()[:3]


def test_queues_that_the_app_does_not_know_are_listed_by_their_names(
    site: Site, tmp_path: Path
) -> None:
    fill(site, 2, "strange")
    operator = Operator("", tmp_path)

    found = operator.told("list", "strange", "strange.dead", "--broker", site.url)[:2]

    assert [("strange", 2), ("strange.dead", 0)] == [(f["queue"], f["ready"]) for f in found]


def test_looking_makes_no_queue(site: Site, operator: Operator) -> None:
    for _ in range(2):
        assert not any(found["exists"] for found in operator.told("list") if found["queue"])


def test_the_type_of_any_queue_of_rabbitmq_is_known(rabbit: Rabbit, tmp_path: Path) -> None:
    arguments: dict[str, dict[str, Any]] = {
        "plain": {},
        "urgent": {"x-queue-type": "classic", "x-max-priority": 5, "x-expires": 600_000},
        "safe": {"x-queue-type": "quorum", "x-max-length": 10, "x-delivery-limit": 3},
        "log": {"x-queue-type": "stream", "x-max-age": "1D"},
    }
    with rabbit.channel() as channel:
        for name, given in arguments.items():
            channel.queue_declare(name, durable=True, arguments=given)
        channel.queue_declare("passing")

        found = Operator(rabbit.url, tmp_path).told(
            "list", *arguments, "passing", "nowhere", "-b", rabbit.url
        )

    assert {
        "plain": "classic",
        "urgent": "classic",
        "safe": "quorum",
        "log": "stream",
        "passing": "classic",
        "nowhere": None,
    } == {each["queue"]: each["type"] for each in found if each["queue"]}


def test_delayed_tasks_whose_queue_was_deleted_are_listed(rabbit: Rabbit, tmp_path: Path) -> None:
    operator = Operator(rabbit.url, tmp_path)
    site = Site(rabbit.url)
    site.app().send_task("tasks.add", queue="gone", countdown=5)
    operator.run("delete", "gone", "--yes", "-b", rabbit.url)
    wait_until(lambda: rabbit.count("taskq.undeliverable"), "the message that leads nowhere")
    site.apps[0].close()

    found = operator.told("list", "-b", rabbit.url)

    assert [1] == [each["ready"] for each in found if each["queue"] == "taskq.undeliverable"]


@pytest.fixture(scope="module")
def managed_node() -> Iterator[RabbitNode]:
    """A node whose management plugin answers."""
    node = RabbitNode("collect_statistics_interval = 500\n", management=True)
    try:
        node.start()
        yield node
    finally:
        node.close()


def test_rabbitmqs_management_tells_what_amqp_does_not(
    managed_node: RabbitNode, rabbit: Rabbit, tmp_path: Path
) -> None:
    managed = Rabbit(managed_node)
    url = managed_node.api.removesuffix("/api/")
    with managed.channel() as channel:
        channel.queue_declare("q1", durable=True, arguments={"x-queue-type": "quorum"})
        channel.confirm_delivery()
        for _ in range(3):
            channel.basic_publish("", "q1", b"")
        assert channel.basic_get("q1")[0] is not None
        operator = Operator(managed.url, tmp_path)

        def unacked() -> bool:
            told = operator.told("list", "q1", "-b", managed.url, "--management", url)[0]
            return (told["unacked"], told["type"]) == (1, "quorum")

        wait_until(unacked, "the plugin to count", timeout=60)
    with rabbit.channel() as channel:
        channel.queue_declare("q1", durable=True)
    wrong = operator.run("list", "q1", "-b", rabbit.url, "--management", url, code=1)
    away = operator.run(
        "list", "q1", "-b", managed.url, "--management", "http://u:secret@127.0.0.1:1", code=1
    )

    assert "it belongs to another broker" in wrong.stderr
    assert "http://u:***@127.0.0.1:1" in away.stderr
    assert "secret" not in away.stderr


# -- purging and deleting ------------------------------------------------------------------------


def test_a_purge_asks_first_and_says_how_many_went(site: Site, operator: Operator) -> None:
    fill(site, 3)

    refused = operator.run("purge", "q1", code=1, stdin="n\n")
    assert "Throw 3 messages of q1" in refused.stderr
    assert 3 == site.count("q1")
    obeyed = operator.run("purge", "q1", stdin="y\n")
    assert "3 messages of q1 thrown away." in obeyed.stdout
    assert 0 == site.count("q1")
    fill(site, 2)
    assert [{"queue": "q1", "purged": 2}] == operator.told("purge", "q1", "--yes")


def test_a_queue_is_deleted_if_it_may_be(site: Site, operator: Operator) -> None:
    fill(site, 2)

    assert "not empty" in operator.run("delete", "q1", "--if-empty", "--yes", code=1).stderr
    assert "with 2 messages" in operator.run("delete", "q1", code=1, stdin="n\n").stderr
    assert 2 == site.count("q1")
    operator.run("delete", "q1", "--if-unused", stdin="y\n")

    assert not operator.told("list", "q1")[0]["exists"]
    assert "there is no queue 'q1'" in operator.run("delete", "q1", "--yes", code=1).stderr


# -- moving --------------------------------------------------------------------------------------


def test_messages_are_moved_in_order_with_all_that_belongs_to_them(
    site: Site, operator: Operator
) -> None:
    ids = fill(site, 300, extra={"mine": "yes"})
    fill(site, 0, "q2")

    assert [{"moved": 250, "refused": []}] == operator.told("move", "q1", "q2", "--limit", "250")
    moved = site.take("q2", 250)
    left = site.take("q1", 50)

    assert ids == ids_of(moved) + ids_of(left)
    assert {"yes"} == {message.headers.get("mine") for message in moved}
    assert not {"x-death", ROUTE_HEADER} & moved[0].headers.keys()


def test_a_moved_task_that_was_delayed_is_tried_again_where_it_is(
    site: Site, operator: Operator, worker_process: StartWorker, ledger: Ledger
) -> None:
    app = site.app()
    result = app.send_task("tasks.act", args=("retry", 2), queue="q1", countdown=0.3)
    wait_until(lambda: site.count("q1") == 1, "the task's time")

    assert "1 message moved from q1 to q2." in operator.run("move", "q1", "q2").stdout
    worker_process(APP, "-Q", "q2", "-c", "1", env=site.env)

    assert 2 == result.get(timeout=30)
    assert [result.id] * 3 == ledger.ids()
    assert 0 == site.count("q1")


def test_a_move_that_is_killed_in_the_middle_loses_nothing(site: Site, tmp_path: Path) -> None:
    ids = fill(site, 600)

    struck = subprocess.run(
        leashed(sys.executable, "-c", STRUCK, site.url, "250"),
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=60,
        check=False,
    )
    assert -signal.SIGKILL == struck.returncode
    wait_until(lambda: site.count("q1") + site.count("q2") >= 600, "what was in hand")
    Operator(site.url, tmp_path, TASKQ_TASK_QUEUES='["q1", "q2"]').run(
        "move", "q1", "q2", "-b", site.url
    )

    assert 0 == site.count("q1")
    found = site.take("q2", site.count("q2"))
    assert set(ids) == set(ids_of(found))
    assert len(found) - len(ids) <= 200  # those on their way, twice


def test_what_others_take_meanwhile_is_not_waited_for(site: Site) -> None:
    fill(site, 5)
    app = site.app(task_queues=["q1", "q2"])
    moving = Move(app, "q1", "q2")
    site.take("q1", 5)

    moving.run(lambda _dealt: None)

    assert (5, 0) == (moving.expected, moving.moved)


def test_dead_letters_that_are_moved_live_on(site: Site, operator: Operator) -> None:
    with site.broker() as broker:
        bury(broker, [a_letter(a_task("dead"))])

    operator.run("move", "q1.dead", "q2")
    (message,) = site.take("q2", 1)

    assert "dead" == message.headers["id"]
    assert message.properties.expiration is None


# -- pausing -------------------------------------------------------------------------------------


def test_a_paused_queue_is_left_alone_by_all_workers_until_it_is_resumed(
    site: Site, operator: Operator, worker_process: StartWorker
) -> None:
    app = site.app()
    for name in ("w1@here", "w2@here"):
        worker = worker_process(APP, "-Q", "q1,q2", "-c", "1", "-n", name, env=site.env)
        worker.wait_for("worker-ready")

    (paused,) = operator.told("pause", "q1", "-t", "5")
    waiting = app.send_task("tasks.add", args=(1, 1), queue="q1")
    assert 4 == app.send_task("tasks.add", args=(2, 2), queue="q2").get(timeout=30)
    assert 1 == site.count("q1")
    (resumed,) = operator.told("resume", "q1", "-t", "5")

    assert {"w1@here", "w2@here"} == paused["workers"].keys() == resumed["workers"].keys()
    assert 2 == waiting.get(timeout=30)


def test_a_queue_may_be_paused_while_there_is_no_worker(site: Site, operator: Operator) -> None:
    told = operator.run("pause", "q1", "-t", "0.2").stdout

    assert "q1 paused for workers that start later; none answered." in told


# -- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["purge"], 2, "NAME"),
        (["move", "q1", "q1"], 1, "cannot be moved to itself"),
        (["move", "nowhere", "q1"], 1, "there is no queue 'nowhere'"),
        (["purge", "nowhere", "--yes"], 1, "there is no queue 'nowhere'"),
        (["move", "q1", "q2", "--limit", "0"], 2, "--limit"),
        (["list", "-A", "tasks", "-b", "memory://"], 2, "not both"),
        (["list", "-A", "nobody"], 3, "nobody"),
        (["list", "-b", "amqp://guest:secret@127.0.0.1:1//"], 1, "guest:***@127.0.0.1:1"),
        (["list", "-b", "amqp://h", "--management", "me:secret@h"], 3, "takes a URL"),
    ],
)
def test_what_is_wrong_is_told_in_words_and_exit_code(
    words: Sequence[str], code: int, says: str, tmp_path: Path
) -> None:
    operator = Operator(f"sqlite:///{tmp_path}/taskq.db", APP)

    told = operator.run(*words, code=code)

    assert says in told.stdout + told.stderr
    assert "secret" not in told.stdout + told.stderr


def test_a_slip_of_the_pen_moves_nothing(site: Site, operator: Operator) -> None:
    fill(site, 1)

    assert "there is no queue 'q3'" in operator.run("move", "q1", "q3", code=1).stderr

    assert 1 == site.count("q1")
    assert not operator.told("list", "q3")[0]["exists"]


def test_every_command_and_option_stands_in_its_page() -> None:
    text = page("queues")
    options = {
        name
        for command in queues.commands.values()
        for param in command.params
        if isinstance(param, click.Option)
        for name in param.opts
    }

    assert not [name for name in queues.commands if f"taskq queues {name}" not in text]
    assert options == set(re.findall(r"`(--?[\w-]+)`", text))
