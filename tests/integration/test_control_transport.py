"""Commands, replies and the log of commands on real brokers, beside kombu's own mailboxes."""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from taskq.broker import amqp_history, sqlite_broadcast, sqlite_history
from taskq.broker.amqp import AmqpBroker
from taskq.broker.base import Broker, BrokerOptions, Listening, Outlet
from taskq.broker.sqlite import SqliteBroker
from taskq.broker.topology import logged
from taskq.errors import PublishError
from taskq.loop import Loop
from taskq.wire.control import Request, exchanges, read_reply, read_request, write_reply
from taskq.wire.control import write_request as write
from taskq.wire.message import Message, Properties
from tests.support.proxy import Proxy
from tests.support.rabbit import Rabbit, RabbitNode
from tests.support.wait import wait_until

REQUESTS, REPLIES = exchanges("celery")
LOG = "taskq.control"
MAILBOX = f"w1@vm.{REQUESTS}"


class Ear:
    """What was heard or played, and how often it was said to be ready."""

    listening: Listening

    def __init__(self, side: "Side") -> None:
        self.heard: list[Message] = []
        self.ready = 0
        self._side = side

    def be_ready(self) -> None:
        self.ready += 1

    @property
    def methods(self) -> list[str]:
        return [read_request(message).method for message in self.heard]

    def expect(self, *methods: str) -> None:
        """Wait until commands of just these *methods* have come, in this order."""
        self._side.until(lambda: len(self.heard) >= len(methods), f"{methods} to come")
        assert list(methods) == self.methods


class Side:
    """A broker on a loop that the test turns; everything opened here is closed with it."""

    def __init__(self, url: str, **options: Any) -> None:
        self.loop = Loop()
        self.broker: Broker = (
            SqliteBroker(BrokerOptions((url,), **options))
            if url.startswith("sqlite")
            else AmqpBroker(BrokerOptions((url,), name="test", **options))
        )
        self._outlet: Outlet | None = None
        self._ears: list[Ear] = []

    @property
    def outlet(self) -> Outlet:
        if self._outlet is None:
            self._outlet = self.broker.outlet(self.loop)
        return self._outlet

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Turn the loop until *condition* is true."""

        def turned() -> bool:
            self.loop.turn(0.01)
            return bool(condition())

        wait_until(turned, what, timeout=60)

    def ear(self, exchange: str = REQUESTS, pattern: str = "", queue: str | None = MAILBOX) -> Ear:
        """An ear that need not be ready yet."""
        ear = Ear(self)
        ear.listening = self.broker.listen(
            self.loop, exchange, pattern, on_message=ear.heard.append, on_ready=ear.be_ready,
            queue=queue,
        )  # fmt: skip
        self._ears.append(ear)
        return ear

    def listen(self, *arguments: Any, **options: Any) -> Ear:
        """An ear that is open."""
        ear = self.ear(*arguments, **options)
        self.until(lambda: ear.ready, "an ear")
        return ear

    def history(self, log: str = LOG) -> Ear:
        """What is played, not awaited yet."""
        ear = Ear(self)
        ear.listening = self.broker.history(
            self.loop, log, REQUESTS, on_message=ear.heard.append, on_ready=ear.be_ready
        )
        self._ears.append(ear)
        return ear

    def play(self) -> list[str]:
        """The methods of all that is played."""
        ear = self.history()
        self.until(lambda: ear.ready, "the end of the log")
        return ear.methods

    def say(self, method: str) -> None:
        self.until(
            lambda: self.outlet.broadcast(write(Request(method, {})), REQUESTS, ""), "a way out"
        )

    def keep(self, *methods: str) -> list[PublishError | None]:
        """Say what is to be kept; how each ended."""
        answers: list[PublishError | None] = []
        for method in methods:
            self.outlet.publish(write(Request(method, {})), logged(LOG, REQUESTS), answers.append)
        self.until(lambda: len(answers) == len(methods), f"a word about {methods}")
        return answers

    def close(self) -> None:
        for ear in self._ears:
            ear.listening.close()
        if self._outlet is not None:
            self._outlet.close()
        self.loop.close()


Open = Callable[..., Side]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens sides."""
    sides: list[Side] = []

    def open_side(url: str, **options: Any) -> Side:
        sides.append(Side(url, **options))
        return sides[-1]

    yield open_side
    for side in sides:
        side.close()


def told(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    """The fields of all events of that *name*."""
    found = [record for record in caplog.records if getattr(record, "event", "") == name]
    return [record.__dict__["fields"] for record in found]


# -- beside kombu --------------------------------------------------------------------------------


class Asker:
    """Real Celery's control, asking in a thread of its own while the test turns its loop."""

    def __init__(self, url: str, command: str, **options: Any) -> None:
        self.answers: list[Any] | None = None
        self._app = Celery("asker", broker=url, set_as_current=False)
        self._command, self._options = command, options
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        with self._app.connection_for_write() as connection:
            self.answers = self._app.control.broadcast(
                self._command, connection=connection, **self._options
            )

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def close(self) -> None:
        self._thread.join(30)
        self._app.close()


def test_celery_asks_and_hears_us(rabbit: Rabbit, opened: Open) -> None:
    side = opened(rabbit.url)
    ear = side.listen()
    asker = Asker(rabbit.url, "ping", reply=True, timeout=30, limit=1, destination=["w1@vm"])

    side.until(lambda: ear.heard, "a request")
    request = read_request(ear.heard[0])
    assert request.reply_to is not None
    reply = write_reply("w1@vm", {"ok": "pong"}, request.ticket, 7, request.serializer)
    side.until(lambda: side.outlet.broadcast(reply, *request.reply_to), "a way out")  # type: ignore[misc]
    side.until(lambda: asker.is_done, "Celery to hear that")
    asker.close()

    assert ("ping", ("w1@vm",)) == (request.method, request.destination)
    assert [{"w1@vm": {"ok": "pong"}}] == asker.answers


def test_we_ask_and_hear_a_mailbox_of_kombus(rabbit: Rabbit, opened: Open) -> None:
    app = Celery("worker", broker=rabbit.url, set_as_current=False)
    side = opened(rabbit.url)
    ear = side.listen(REPLIES, "asker", queue=None)
    with app.connection_for_read() as connection:
        node = app.control.mailbox(connection).Node("w2@vm", channel=connection.channel())
        node.handlers["ping"] = lambda state, **_: {"ok": "pong"}
        node.listen()
        request = Request("ping", {}, ticket="T", reply_to=(REPLIES, "asker"))
        side.until(lambda: side.outlet.broadcast(write(request), REQUESTS, ""), "a way out")

        def answered() -> bool:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.01)
            return bool(ear.heard)

        side.until(answered, "a reply")
    app.close()

    assert ("T", "w2@vm", {"ok": "pong"}) == read_reply(ear.heard[0])[:3]


def test_what_celery_tells_all_is_in_the_log(rabbit: Rabbit, opened: Open) -> None:
    side = opened(rabbit.url)
    assert side.play() == []
    app = Celery("asker", broker=rabbit.url, set_as_current=False)

    app.control.revoke(["one", "two"], destination=["w1@vm"])
    app.close()
    side.until(lambda: "revoke" in side.play(), "the log to have it")

    ear = side.history()
    side.until(lambda: ear.ready, "the end of the log")
    (request,) = map(read_request, ear.heard)
    assert ["one", "two"] == request.arguments["task_id"]
    assert ("w1@vm",) == request.destination
    assert 1 == request.clock


# -- names ---------------------------------------------------------------------------------------


def test_a_name_in_use_is_told_once_and_had_when_it_is_free(
    rabbit: Rabbit, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "taskq")
    first = opened(rabbit.url).listen()
    side = opened(rabbit.url, heartbeat=1)
    second = side.ear()

    side.until(lambda: told(caplog, "node-name-taken"), "that to be told")
    assert second.ready == 0
    first.listening.close()
    side.until(lambda: second.ready, "the name")
    side.say("ping")
    second.expect("ping")

    (event,) = told(caplog, "node-name-taken")
    assert "w1@vm" == event["node"]
    assert "RESOURCE_LOCKED" in event["reason"]


def test_a_name_that_an_older_program_left_behind_is_had_when_it_is_gone(
    rabbit: Rabbit, opened: Open
) -> None:
    side = opened(rabbit.url)
    with rabbit.channel() as channel:
        channel.queue_declare(MAILBOX, auto_delete=True, arguments={"x-expires": 10_000})
        ear = side.ear()
        side.until(lambda: ear._side.broker and ear.listening._refusals, "a refusal")  # type: ignore[attr-defined]
        channel.queue_delete(MAILBOX)

        side.until(lambda: ear.ready, "the name")


def test_a_cut_connection_does_not_lose_the_name(
    rabbit: Rabbit, rabbit_through_proxy: Proxy, opened: Open
) -> None:
    side = opened(rabbit_through_proxy.url)
    ear = side.listen()

    rabbit_through_proxy.drop()
    side.until(lambda: ear.ready == 2, "the ear to be open anew")
    side.say("ping")

    ear.expect("ping")


def test_nothing_that_control_needs_outlives_its_programs(rabbit: Rabbit, opened: Open) -> None:
    side = opened(rabbit.url)
    side.listen()
    side.listen(REPLIES, "asker", queue=None)
    side.say("ping")
    assert MAILBOX in rabbit.ctl("list_queues", "-p", rabbit.vhost, "name")

    side.close()

    listed = wait_until(
        lambda: (
            "pidbox" not in rabbit.ctl("list_queues", "-p", rabbit.vhost, "name")
            and rabbit.ctl("list_exchanges", "-p", rabbit.vhost, "name", "type", "durable")
        ),
        "the queues to go",
    )
    kinds = {tuple(line.split()) for line in listed.splitlines() if "pidbox" in line}
    assert {(REQUESTS, "fanout", "false"), (REPLIES, "direct", "false")} == kinds


# -- the log -------------------------------------------------------------------------------------


def test_the_log_is_what_it_was_after_a_restart_and_hears_what_follows(
    own_rabbit: Rabbit, opened: Open
) -> None:
    side, caller = opened(own_rabbit.url), opened(own_rabbit.url)
    ear = side.listen()
    assert side.keep("pause") == [None]

    own_rabbit.node.stop()
    own_rabbit.node.start()
    side.until(lambda: ear.ready == 2, "the ear to be open anew")

    assert caller.keep("resume") == [None]
    assert ["pause", "resume"] == side.play()
    assert "taskq.control" in own_rabbit.ctl("list_bindings", "-p", own_rabbit.vhost)
    side.until(lambda: ear.methods[-1:] == ["resume"], "the command to come")


def test_whoever_plays_the_log_binds_it_again(own_rabbit: Rabbit, opened: Open) -> None:
    side = opened(own_rabbit.url)
    assert side.keep("pause") == [None]
    own_rabbit.node.stop()
    own_rabbit.node.start()
    app = Celery("asker", broker=own_rabbit.url, set_as_current=False)

    assert ["pause"] == side.play()
    app.control.broadcast("resume")
    app.close()

    side.until(lambda: side.play() == ["pause", "resume"], "both")


def test_a_connection_lost_in_the_middle_plays_the_log_anew(
    rabbit: Rabbit, rabbit_through_proxy: Proxy, opened: Open
) -> None:
    side = opened(rabbit.url)
    assert [None] * 3_000 == side.keep(*["revoke"] * 3_000)
    ear = Ear(side)
    cut: list[bool] = []

    def hear(message: Message) -> None:
        ear.heard.append(message)
        if len(ear.heard) == 10:
            cut.append(True)
            rabbit_through_proxy.drop()

    ear.listening = AmqpBroker(BrokerOptions((rabbit_through_proxy.url,))).history(
        side.loop, LOG, REQUESTS, on_message=hear, on_ready=ear.be_ready
    )
    side.until(lambda: ear.ready, "the end of the log")
    ear.listening.close()

    assert [True] == cut
    assert 3_000 < len(ear.heard)
    assert 1 == ear.ready


def test_a_log_that_cannot_be_had_holds_nobody_up(
    rabbit: Rabbit, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "taskq")
    with rabbit.channel() as channel:
        channel.queue_declare(LOG, exclusive=True)
        side = opened(rabbit.url)
        ear = side.listen()

        assert side.play() == []
        assert [None, None] == side.keep("pause", "resume")

    ear.expect("pause", "resume")
    assert [LOG, LOG] == [event["log"] for event in told(caplog, "log-unusable")]


def test_a_log_that_says_nothing_holds_nobody_up(
    rabbit: Rabbit, opened: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue of another kind plays its messages to other consumers."""
    caplog.set_level(logging.WARNING, "taskq")
    monkeypatch.setattr(amqp_history, "_PATIENCE", 0.5)
    with rabbit.channel() as channel:
        channel.queue_declare(LOG, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_declare(LOG, passive=True)
        consumers = channel.consume(LOG, auto_ack=True, inactivity_timeout=0.01)
        next(consumers)

        assert opened(rabbit.url).play() == []

    assert told(caplog, "log-unusable")


@pytest.fixture
def rabbit_without_streams() -> Iterator[RabbitNode]:
    node = RabbitNode()
    node._env["RABBITMQ_FEATURE_FLAGS"] = "quorum_queue,implicit_default_bindings,user_limits"
    try:
        node.start()
        yield node
    finally:
        node.close()


def test_a_broker_without_streams_is_used_without_a_log(
    rabbit_without_streams: RabbitNode, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "taskq")
    side = opened(rabbit_without_streams.url())
    ear = side.listen()

    assert side.play() == []
    assert told(caplog, "log-unusable")
    side.say("ping")
    ear.expect("ping")
    assert side.keep("revoke") == [None]
    ear.expect("ping", "revoke")


# -- the embedded broker -------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


def test_a_bell_tells_that_there_is_news(
    file: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_broadcast, "_LOOK", 3600.0)
    side, caller = opened(file), opened(file)
    ear = side.listen()

    caller.say("ping")
    assert caller.keep("revoke") == [None]

    ear.expect("ping", "revoke")


def test_without_a_bell_it_looks_for_news(
    file: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_broadcast.Doorbell, "works", False)
    monkeypatch.setattr(
        sqlite_broadcast.Doorbell, "_on_event", lambda _self, fd, _: os.read(fd, 99)
    )
    side, caller = opened(file), opened(file)
    ear = side.listen()

    caller.say("ping")

    ear.expect("ping")


def test_a_log_in_a_file_forgets_the_oldest_of_too_many(
    file: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_history, "LOG_LENGTH", 3)
    side = opened(file)

    side.keep("one", "two", "three", "four", "five")

    assert ["three", "four", "five"] == side.play()


def test_a_log_in_a_file_forgets_what_is_old(
    file: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = opened(file)
    monkeypatch.setattr(sqlite_history.clock, "wall", lambda: 1e9)
    side.keep("old")
    monkeypatch.undo()

    assert side.play() == []
    side.keep("new")
    with SqliteBroker(BrokerOptions((file,)))._file.reading() as db:
        assert [(2,)] == db.execute("select id from history").fetchall()


def test_news_that_are_over_are_swept_out(
    file: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_broadcast, "_SWEEP", 0.0)
    side, caller = opened(file), opened(file)
    ear = side.listen()
    caller.say("one")
    monkeypatch.setattr(sqlite_broadcast, "_TTL", -1.0)
    caller.say("two")
    monkeypatch.undo()
    monkeypatch.setattr(sqlite_broadcast, "_SWEEP", 0.0)
    caller.say("three")

    side.until(lambda: "three" in ear.methods, "the last")
    with SqliteBroker(BrokerOptions((file,)))._file.reading() as db:
        found = db.execute("select body from news order by id").fetchall()
    assert ["one", "three"] == [json.loads(body)["method"] for (body,) in found]


def test_a_log_that_cannot_be_written_refuses(tmp_path: Path, opened: Open) -> None:
    side = opened(f"sqlite:///{tmp_path}/broker.db")
    side.keep("one")
    other = SqliteBroker(BrokerOptions((f"sqlite:///{tmp_path}/broker.db",)))
    answers: list[PublishError | None] = []
    message = Message.of(Properties(), b"")

    with other._file.writing():
        side.outlet.publish(message, logged(LOG, REQUESTS), answers.append, timeout=0.01)

    (refused,) = answers
    assert "not queued" in str(refused)
    other.close()
