"""`taskq dead` on both brokers: nothing is lost by looking, by sending again, or by a kill."""

import base64
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest

from taskq.broker.base import Queue
from taskq.cli.dead import dead
from taskq.deadletters import DeadLetters
from taskq.loop import Loop
from taskq.wire.message import Message, Properties, encode_properties
from tests.docs.pages import page
from tests.lifecycle.test_bad_messages import deep_headers
from tests.support.ledger import Ledger, assert_conserved
from tests.support.letters import a_letter, a_task, bury
from tests.support.process import APP, REPOSITORY, StartWorker
from tests.support.program import leashed
from tests.support.rabbit import Rabbit
from tests.support.site import Site
from tests.support.wait import wait_until

#: A folder's app whose task cannot run before there is a key.
SHOP = """
import os
from pathlib import Path
from taskq import TaskQ

app = TaskQ("shop", task_default_queue="q1")

@app.task(bind=True, autoretry_for=(PermissionError,), max_retries=1, retry_backoff=False,
          default_retry_delay=0)
def unlock(self, number):
    if not Path("key").exists():
        raise PermissionError("there is no key")
    with open(os.environ["TASKQ_TEST_LEDGER"], "a") as ledger:
        ledger.write(f"{self.request.id} {number}/{self.request.retries}\\n")
"""

#: Replays all of q1 in a process that gets a signal in the middle; the arguments are the broker,
#: which letter it is, and the signal.
STRUCK = """
import os, sys
from taskq import TaskQ
from taskq.deadletters import DeadLetters

url, middle, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
strike = lambda seen: seen == middle and os.kill(os.getpid(), number)
with TaskQ(broker=url) as app, DeadLetters(app, ["q1"]) as letters:
    letters.replay(None, strike)
"""


class Shell:
    """Somebody who calls `taskq dead` in *folder*, where the environment names the broker."""

    def __init__(self, url: str, folder: Path) -> None:
        ours = {key: value for key, value in os.environ.items() if not key.startswith("TASKQ_")}
        self._env = {**ours, "PYTHONPATH": str(REPOSITORY), "TASKQ_BROKER_URL": url}
        self._folder = folder

    def start(self, *words: str, **options: Any) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            leashed(sys.executable, *words),
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            | {"cwd": self._folder, "env": self._env, "text": True}
            | options,
        )

    def run(self, *words: str, code: int = 0, **options: Any) -> "subprocess.CompletedProcess[str]":
        """What `taskq dead *words*` printed; it must end with *code*."""
        process = self.start("-m", "taskq", "dead", *words, **options)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, f"{words}: {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(words, code, out, err)

    def told(self, *words: str, **options: Any) -> list[dict[str, Any]]:
        """What `taskq dead *words* --json` printed."""
        return [
            json.loads(line)
            for line in self.run(*words, "--json", **options).stdout.split("\n")
            if line
        ]


@pytest.fixture
def shell(site: Site, tmp_path: Path) -> Shell:
    """In an empty folder, so that --broker must do without an app."""
    return Shell(site.url, tmp_path)


@pytest.fixture
def at_work(site: Site) -> Shell:
    """In the folder of the tests' app."""
    return Shell(site.url, APP)


def fill(site: Site, count: int, **letter: Any) -> list[str]:
    """Put *count* dead letters of tasks that would run into q1.dead; their ids, in order."""
    ids = [f"task-{number:06}" for number in range(count)]
    with site.broker() as broker:
        bury(broker, [a_letter(a_task(each, retries=3, crashes=2), **letter) for each in ids])
    return ids


def identity(message: Message) -> tuple[Any, ...]:
    """A message, but for the count that a quorum queue keeps in it."""
    headers = {k: v for k, v in message.headers.items() if k != "x-delivery-count"}
    return headers, message.properties.correlation_id, message.properties.expiration, message.body


def ids_in(site: Site, queue: str) -> list[str]:
    """Take all messages out of *queue*; their tasks' ids."""
    return [str(message.headers["id"]) for message in site.take(queue, site.count(queue))]


def test_what_failed_is_listed_and_shown_and_runs_as_if_new_after_its_replay(
    site: Site, worker_process: StartWorker, ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    shell = Shell(site.url, tmp_path)
    sent = site.app().send_task("shop.unlock", args=(7,), queue="q1")
    worker_process(tmp_path, "-A", "shop", "-c", "1", env=site.env)
    wait_until(lambda: site.count("q1.dead") == 1, "the dead letter")

    (listed,) = shell.told("list", "-A", "shop")
    shown = shell.run("show", sent.id[:8], "-A", "shop").stdout
    (tmp_path / "key").touch()
    done = shell.run("replay", "-A", "shop").stdout
    ledger.wait_for(1)

    assert [(sent.id, "7/0")] == ledger.entries()
    assert "1 dead letter replayed." in done
    assert sent.id == listed["id"]
    assert "shop.unlock" == listed["task"]
    assert ("q1", "q1.dead", 2) == (listed["queue"], listed["dead_queue"], listed["attempts"])
    assert ("PermissionError", "there is no key") == (listed["exception"], listed["message"])
    for words in (sent.id, "(7,)", "there is no key", "in unlock", 'task: "shop.unlock"'):
        assert words in shown
    assert 0 == site.count("q1.dead")


def test_a_replayed_message_is_as_it_was_before_it_ever_ran(site: Site, shell: Shell) -> None:
    fresh = a_task("task-1", args=(1, "two"), expires=4_000_000_000.0, extra={"mine": 1})
    used = a_task(
        "task-1", args=(1, "two"), expires=4_000_000_000.0, retries=3, crashes=2, extra={"mine": 1}
    )
    with site.broker() as broker:
        bury(broker, [a_letter(used)])

    shell.run("replay", "--broker", site.url, "-Q", "q1")

    (replayed,) = site.take("q1", 1)
    # argsrepr and the like are there already, in a quorum queue too
    assert replayed == fresh
    assert 0 == site.count("q1.dead")


def test_two_thousand_replayed_tasks_run_exactly_once_each(
    site: Site, at_work: Shell, worker_process: StartWorker, ledger: Ledger
) -> None:
    sent = fill(site, 2000)
    worker = worker_process(APP, "-Q", "q1", "-c", "2", "-l", "warning", env=site.env)

    (told,) = at_work.told("replay", "-Q", "q1")
    ledger.wait_for(2000, timeout=60)

    assert {"replayed": 2000, "refused": [], "out_of_reach": 0} == told
    assert 0 == worker.stop()
    assert_conserved(
        sent, ledger, dead=ids_in(site, "q1.dead"), queued=ids_in(site, "q1"), once=True
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_replay_that_ends_in_the_middle_loses_nothing(
    site: Site,
    shell: Shell,
    worker_process: StartWorker,
    ledger: Ledger,
    number: signal.Signals,
) -> None:
    sent = fill(site, 2000)

    struck = shell.start("-c", STRUCK, site.url, "1000", str(int(number)))
    struck.communicate(timeout=60)
    assert struck.returncode != 0
    # RabbitMQ takes note of the end of a connection when it comes to it.
    wait_until(lambda: site.count("q1") + site.count("q1.dead") >= 2000, "all to be ready again")
    assert 0 < site.count("q1") < 2000
    repeated = site.count("q1") + site.count("q1.dead") - 2000
    shell.run("replay", "--broker", site.url, "-Q", "q1")
    worker = worker_process(APP, "-Q", "q1", "-c", "2", "-l", "warning", env=site.env)
    wait_until(lambda: len(ledger.ids()) >= 2000 + repeated, "all to run", timeout=60)

    assert 0 == worker.stop()
    assert_conserved(sent, ledger, dead=ids_in(site, "q1.dead"), queued=ids_in(site, "q1"))
    assert ledger.repeats() == repeated
    assert repeated < 1000  # only what was on its way


@pytest.mark.parametrize(
    ("words", "done"), [(["replay"], "replayed"), (["discard", "--yes"], "discarded")]
)
def test_in_several_queues_all_that_is_meant_goes_and_the_rest_stays(
    site: Site, shell: Shell, words: Sequence[str], done: str
) -> None:
    """What stays in front keeps acks from being joined; RabbitMQ loses such acks easily."""
    ids = [f"task-{number}" for number in range(300)]
    with site.broker() as broker:
        for queue in ("q1", "q2", "q3"):
            letters = [a_letter(a_task(f"{queue}-{each}"), queue=queue) for each in ids]
            bury(broker, [a_letter(a_task("stays", "other")), *letters], queue)

    meant = ("--task", "tasks.*", "--broker", site.url, "-Q", "q1,q2", "-Q", "q3")
    (told,) = shell.told(*words, *meant)

    assert {done: 900, "refused": [], "out_of_reach": 0} == told
    for queue in ("q1", "q2", "q3"):
        wait_until(lambda q=queue: site.count(f"{q}.dead") == 1, "the rest to be given back")
        assert ["stays"] == ids_in(site, f"{queue}.dead")
        sent = [f"{queue}-{each}" for each in ids] if done == "replayed" else []
        assert sent == ids_in(site, queue)


def test_looking_thirty_times_changes_nothing(site: Site, shell: Shell) -> None:
    with site.broker() as broker:
        letters = [a_letter(a_task(f"task-{n:02}")) for n in range(50)]
        bury(broker, letters)

    for _ in range(30):
        with DeadLetters(site.app(), ["q1"]) as looking:
            assert 50 == len(list(looking))
        wait_until(lambda: site.count("q1.dead") == 50, "the letters to be given back")
    listed = shell.told("list", "--broker", site.url, "-Q", "q1")

    assert [f"task-{n:02}" for n in range(50)] == [each["id"] for each in listed]
    wait_until(lambda: site.count("q1.dead") == 50, "the letters to be given back")
    assert [*map(identity, letters)] == [*map(identity, site.take("q1.dead", 50))]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_letters_in_the_hands_of_a_process_that_ends_are_given_back_in_order(
    site: Site, shell: Shell, tmp_path: Path, number: signal.Signals
) -> None:
    sent = fill(site, 300)
    os.mkfifo(tmp_path / "pipe")

    # Its reader takes one line and then no more, so that the export cannot come to its end.
    exporting = shell.start(
        "-m", "taskq", "dead", "export", "pipe", "--broker", site.url, "-Q", "q1"
    )
    with (tmp_path / "pipe").open() as lines:
        assert sent[0] == json.loads(lines.readline())["id"]
        wait_until(lambda: site.count("q1.dead") == 0, "all letters to be in its hands")
        exporting.send_signal(number)
        lines.read()  # what it still writes
        exporting.communicate(timeout=30)
        assert exporting.returncode == (1 if number == signal.SIGINT else -number)

    wait_until(lambda: site.count("q1.dead") == 300, "the letters to be given back")
    assert sent == ids_in(site, "q1.dead")


def test_what_cannot_be_sent_stays_and_is_told(rabbit: Rabbit, tmp_path: Path) -> None:
    site, shell = Site(rabbit.url), Shell(rabbit.url, tmp_path)
    with rabbit.channel() as channel:
        full = {"x-max-length": 0, "x-overflow": "reject-publish"}
        channel.queue_declare("q1", durable=True, arguments=full)
    fill(site, 3)

    (told,) = shell.told("replay", "--broker", site.url, "-Q", "q1", "--limit", "2", code=1)
    failed = shell.run("replay", "--broker", site.url, "-Q", "q1", "--limit", "1", code=1)

    assert 0 == told["replayed"]
    assert ["task-000000", "task-000001"] == [each["id"] for each in told["refused"]]
    assert "rejected" in told["refused"][0]["why"]
    assert "tasks.record[task-000000] stays in q1.dead: " in failed.stderr
    wait_until(lambda: site.count("q1.dead") == 3, "the letters to be given back")

    shell.run("replay", "--broker", site.url, "-Q", "q1", "--to", "q2")

    assert ["task-000000", "task-000001", "task-000002"] == ids_in(site, "q2")
    assert 0 == site.count("q1.dead")


def test_what_the_broker_dead_lettered_itself_goes_back_to_its_queue(
    site: Site, shell: Shell
) -> None:
    site.publish(a_task("task-1"), "q1")
    with site.broker() as broker:
        loop = Loop()
        intake = broker.intake(
            loop,
            on_delivery=lambda delivery: intake.reject(delivery, requeue=False),
            on_ready=lambda: None,
            on_lost=lambda _reason: None,
        )
        intake.consume([Queue("q1")], 1)
        wait_until(lambda: loop.turn(0.05) or site.count("q1.dead"), "the dead letter")
        intake.close()
        loop.close()

    (listed,) = shell.told("list", "--broker", site.url, "-Q", "q1")
    shell.run("replay", "--broker", site.url, "-Q", "q1")

    assert ("task-1", "q1") == (listed["id"], listed["queue"])
    if site.url.startswith("amqp"):
        assert "dead-lettered by the broker: rejected" == listed["reason"]
        assert listed["died_at"] is not None
    (replayed,) = site.take("q1", 1)
    assert a_task("task-1") == replayed


def test_delayed_tasks_whose_queue_was_deleted_are_found_and_sent_to_it(
    rabbit: Rabbit, tmp_path: Path
) -> None:
    site, shell = Site(rabbit.url), Shell(rabbit.url, tmp_path)
    app = site.app()
    app.send_task("tasks.record", args=(1,), queue="gone", countdown=2)
    wait_until(lambda: site.count("gone"), "a task in the queue")
    with rabbit.channel() as channel:
        channel.queue_delete("gone")
    late = app.send_task("tasks.record", args=(1,), queue="gone", countdown=1)
    wait_until(lambda: site.count("taskq.undeliverable"), "the message to have no queue")

    (listed,) = shell.told("list", "--broker", site.url)
    shell.run("replay", "--broker", site.url, "-Q", "taskq.undeliverable")

    assert (late.id, "gone") == (listed["id"], listed["queue"])
    assert "its queue was gone when its time came" == listed["reason"]
    assert [late.id] == ids_in(site, "gone")
    app.close()


def test_dead_letters_are_bounded_in_number_and_time(
    site: Site, worker_process: StartWorker
) -> None:
    app = site.app(dead_letter_max_length=3)
    env = {"TASKQ_DEAD_LETTER_MAX_LENGTH": "3", "TASKQ_DEAD_LETTER_TTL": "3600"}
    sent = [app.send_task("tasks.fail", args=("why",), queue="q1").id for _ in range(5)]

    worker = worker_process(APP, "-Q", "q1", "-c", "1", env={**site.env, **env})
    for each in sent:
        worker.wait_for("task-dead-lettered", id=each)
    assert 0 == worker.stop()

    assert 3 == site.count("q1.dead")
    letters = site.take("q1.dead", 3)
    assert sent[2:] == [letter.headers["id"] for letter in letters]
    assert ["3600000"] * 3 == [letter.properties.expiration for letter in letters]


# -- what anybody may have put there -------------------------------------------------------------

VALUES: list[Any] = [
    None, True, -1, 2**62, 1.5, 1e300, "", "text", "\x1b[31mred\n\ttab", b"\xff\x00",
    Decimal("1.10"), datetime(2026, 1, 2, tzinfo=UTC), [], [1, [2]], {}, {"k": {"l": []}},
]  # fmt: skip
NAMES = [
    "task", "id", "retries", "eta", "expires", "timelimit", "compression", "taskq-crashes", "other",
    "taskq-dead-queue", "taskq-dead-reason", "taskq-dead-at", "taskq-dead-attempts",
    "taskq-dead-properties", "taskq-dead-message",
]  # fmt: skip


def strangers(count: int) -> list[Message]:
    """Messages that no worker of ours wrote, the same ones each time."""
    draw = random.Random(7)
    made = [deep_headers(), Message(b"\0\0", b""), Message.of(Properties(), b"\xff" * 100)]
    while len(made) < count:
        names = draw.sample(NAMES, draw.randrange(len(NAMES)))
        headers = {name: draw.choice(VALUES) for name in names}
        content = draw.choice([None, "application/json", "application/x-msgpack", "text/html"])
        properties = Properties(headers=headers, content_type=content, delivery_mode=2)
        made.append(Message(encode_properties(properties), draw.randbytes(draw.randrange(50))))
    return made


def test_foreign_messages_are_listed_shown_and_exported_and_none_is_lost(
    site: Site, shell: Shell, tmp_path: Path
) -> None:
    messages = strangers(150)
    at = ("--broker", site.url, "-Q", "q1")
    with site.broker() as broker:
        bury(broker, messages)

    listed = shell.told("list", *at, "--limit", "1000")
    shown = shell.run("show", *{each["id"] for each in listed}, *at).stdout
    table = shell.run("list", *at, "--limit", "1000").stdout
    shell.run("export", "letters.jsonl", *at)

    exported = [json.loads(line) for line in (tmp_path / "letters.jsonl").read_text().splitlines()]
    assert 150 == len(listed) == len(exported) == len(table.splitlines()) - 1
    assert "\x1b" not in shown + table
    found = [
        Message(base64.b64decode(each["raw"]), base64.b64decode(each["body"])) for each in exported
    ]
    assert [*map(identity, messages)] == [*map(identity, found)]

    (told,) = shell.told("replay", *at, "--to", "q2", code=1)

    refused = {each["id"] for each in told["refused"]}
    assert told["replayed"] + len(told["refused"]) == 150
    assert "cannot be decoded" in told["refused"][0]["why"]
    wait_until(lambda: site.count("q1.dead") == len(told["refused"]), "the rest to be given back")
    assert refused == {each["id"] for each in shell.told("list", *at)}
    assert Counter(m.body for m in messages) == Counter(
        m.body for queue in ("q2", "q1.dead") for m in site.take(queue, site.count(queue))
    )


# -- how it talks --------------------------------------------------------------------------------


def test_where_nothing_is_dead_it_says_so(site: Site, at_work: Shell) -> None:
    listed = at_work.run("list")

    assert listed.stdout.startswith("No dead letters in default.dead on ")
    assert "" == listed.stderr
    assert [] == at_work.told("list")
    assert "No dead letters" in at_work.run("replay").stdout
    assert "No dead letters" in at_work.run("discard").stdout
    assert "No dead letters" in at_work.run("show", "some-id", code=1).stderr


def test_a_list_ends_and_says_how_many_more_there_are(site: Site, shell: Shell) -> None:
    fill(site, 120)

    listed = shell.run("list", "--broker", site.url, "-Q", "q1")

    assert 101 == len(listed.stdout.splitlines())
    assert "20 more were not looked at: see --depth and --limit." == listed.stderr.strip()


def test_discard_asks_and_takes_no_more_than_it_said(site: Site, shell: Shell) -> None:
    fill(site, 3)
    words = ("discard", "--task", "tasks.*", "--broker", site.url, "-Q", "q1")
    refused = shell.start("-m", "taskq", "dead", *words)
    assert "Discard 3 dead letters of q1.dead on" in refused.communicate("n\n", timeout=30)[1]
    assert 1 == refused.returncode

    # One after the other: while one command holds letters, another sees none.
    agreed = shell.start("-m", "taskq", "dead", *words)
    assert agreed.stderr is not None
    assert "Discard" in agreed.stderr.read(7)
    wait_until(lambda: site.count("q1.dead") == 3, "the letters to be given back")
    with site.broker() as broker:
        bury(broker, [a_letter(a_task("came-later"))])
    assert "3 dead letters discarded." in agreed.communicate("y\n", timeout=30)[0]

    assert ["came-later"] == ids_in(site, "q1.dead")


def test_discard_does_not_ask_who_says_yes(site: Site, shell: Shell) -> None:
    fill(site, 2)

    told = shell.told("discard", "--yes", "--broker", site.url, "-Q", "q1")

    assert [{"discarded": 2, "refused": [], "out_of_reach": 0}] == told
    assert 0 == site.count("q1.dead")


def test_an_export_to_the_terminal_has_nothing_else_in_it(site: Site, shell: Shell) -> None:
    sent = fill(site, 3)

    exported = shell.run("export", "-", "--broker", site.url, "-Q", "q1")

    assert sent == [json.loads(line)["id"] for line in exported.stdout.splitlines()]
    assert "3 dead letters exported." in exported.stderr


def on_a_terminal(shell: Shell, *words: str) -> str:
    """What `taskq dead *words*` shows on a terminal."""
    ours, theirs = pty.openpty()
    try:
        process = shell.start("-m", "taskq", "dead", *words, stdout=theirs, stderr=theirs)
    finally:
        os.close(theirs)
    shown = b""
    with suppress(OSError):  # Linux's way to say that the other side is closed
        while chunk := os.read(ours, 4096):
            shown += chunk
    os.close(ours)
    process.communicate(timeout=30)
    assert 0 == process.returncode, shown
    return shown.decode()


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
def test_on_a_terminal_the_table_fits_and_a_bar_shows_the_progress(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    shell = Shell(site.url, tmp_path)
    at = ("--broker", site.url, "-Q", "q1")
    with site.broker() as broker:
        tasks = [a_task(f"{n:08}-8a7f-4f4e-9e5c-0d5e8d3f2a11", "shop.a.long.name") for n in (1, 2)]
        bury(broker, [a_letter(each, reason="much to say " * 9) for each in tasks])

    table = on_a_terminal(shell, "list", *at).splitlines()
    bar = on_a_terminal(shell, "replay", *at)

    assert all(len(line) <= 70 for line in table)
    assert ["ID", "00000001", "00000002"] == [line.split()[0] for line in table]
    assert "2/2" in bar
    assert "2 dead letters replayed." in bar


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["list", "--older", "soon"], 2, "no time span"),
        (["list", "--depth", "70000"], 2, "65535"),
        (["list", "-A", "tasks", "--broker", "memory://"], 2, "not both"),
        (["replay", "--limit", "0"], 2, "--limit"),
        (["show"], 2, "ID"),
        (["export"], 2, "FILE"),
        (["list", "-A", "nobody"], 3, "nobody"),
        (["list"], 3, "no TaskQ app was found"),
        (["list", "--broker", "amqp://guest:secret@127.0.0.1:1//"], 1, "guest:***@127.0.0.1:1"),
        (["export", "/dev/full", "--broker", "sqlite:///a.db"], 0, "0 dead letters"),
    ],
)
def test_what_is_wrong_is_told_in_words_and_exit_code(
    words: Sequence[str], code: int, says: str, tmp_path: Path
) -> None:
    shell = Shell("", tmp_path)

    told = shell.run(*words, code=code)

    assert says in told.stdout + told.stderr
    assert "secret" not in told.stdout + told.stderr


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
def test_an_export_onto_a_full_disk_fails(site: Site, shell: Shell) -> None:
    fill(site, 3)

    told = shell.run("export", "/dev/full", "--broker", site.url, "-Q", "q1", code=1)

    assert "/dev/full cannot be written: No space left on device" in told.stderr
    assert 3 == site.count("q1.dead")


def test_every_command_and_option_stands_in_its_page() -> None:
    text = page("dead-letters")
    options = {
        name
        for command in dead.commands.values()
        for param in command.params
        if isinstance(param, click.Option)
        for name in param.opts
    }

    assert not [name for name in dead.commands if f"taskq dead {name}" not in text]
    assert options == set(re.findall(r"`(--?[\w-]+)`", text))
