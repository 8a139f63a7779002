"""A worker's ear for commands: who is meant, what is answered, and what no command can do to it."""

import itertools
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq import clock
from taskq.broker import open_broker
from taskq.broker.base import BrokerOptions
from taskq.broker.topology import logged
from taskq.control import mailbox as mailbox_module
from taskq.control.base import LOG, REPLIES, REQUESTS
from taskq.control.mailbox import Mailbox
from taskq.control.memory import Pause, Resume, Revoke
from taskq.loop import Loop
from taskq.wire.control import Request, read_reply, write_request
from taskq.wire.message import Message, Properties
from tests.support.desk import PaperWorker

NUMBERS = itertools.count()


class Post:
    """A paper worker with a mailbox, and who writes to it, on one loop."""

    def __init__(self, outlet=None):
        url = f"memory://post-{next(NUMBERS)}"
        self.broker = open_broker(BrokerOptions(urls=(url,)))
        self.loop = Loop()
        self.worker = PaperWorker("taskq@paper")
        self.outlet = self.broker.outlet(self.loop)
        self.mailbox = Mailbox(self.loop, self.broker, outlet or self.outlet, self.worker)
        self.heard = []
        self.ready = False
        self.broker.listen(
            self.loop,
            REPLIES,
            "me",
            on_message=lambda message: self.heard.append(read_reply(message)),
            on_ready=lambda: None,
        )

    def open(self):
        self.mailbox.start(self.on_ready)
        self.turn_until(lambda: self.ready)
        return self

    def on_ready(self):
        self.ready = True

    def say(self, method, arguments=None, **fields):
        wanted = {"ticket": "t", "reply_to": (REPLIES, "me")} | fields
        self.send(write_request(Request(method, arguments or {}, **wanted)))

    def send(self, message):
        self.outlet.broadcast(message, REQUESTS, "")

    def log(self, method, arguments, **fields):
        """As `say`, confirmed and kept."""
        answers = []
        message = write_request(Request(method, arguments, **fields))
        self.outlet.publish(message, logged(LOG, REQUESTS), answers.append)
        assert answers == [None]

    def ask(self, method, arguments=None, **fields):
        """The reply to that, which is the next to come."""
        self.say(method, arguments, **fields)
        self.turn_until(lambda: self.heard)
        return self.heard.pop(0)

    def settle(self):
        """Let all be done that was said, as a last question is answered last."""
        self.say("ping", ticket="settled")
        self.turn_until(lambda: any(reply.ticket == "settled" for reply in self.heard))
        return [reply for reply in self.heard if reply.ticket != "settled"]

    def turn_until(self, is_done):
        deadline = clock.monotonic() + 30
        while not is_done():
            assert clock.monotonic() < deadline
            self.loop.turn(0.1)


@pytest.fixture
def post():
    post = Post().open()
    yield post
    post.mailbox.close()
    post.loop.close()


def test_a_question_is_answered_with_its_ticket_and_a_later_clock(post):
    reply = post.ask("ping", clock=41)

    assert ("t", "taskq@paper", {"ok": "pong"}, 42) == tuple(reply)


def test_a_reply_is_written_as_the_question_was(post):
    written = []
    post.broker.listen(
        post.loop, REPLIES, "packed", on_message=written.append, on_ready=lambda: None
    )

    post.say("ping", serializer="msgpack", reply_to=(REPLIES, "packed"))
    post.turn_until(lambda: written)

    assert written[0].labels.content_type == "application/x-msgpack"


def test_nobody_is_answered_who_wants_no_reply(post):
    post.say("drain", ticket=None, reply_to=None)

    assert [] == post.settle()
    assert ["drain"] == post.worker.told


@pytest.mark.parametrize(
    ("meant", "fields"),
    [
        (True, {}),
        (True, {"destination": ("taskq@other", "taskq@paper")}),
        (False, {"destination": ("taskq@other",)}),
        (True, {"pattern": "*@paper", "matcher": "glob"}),
        (False, {"pattern": "*@stone", "matcher": "glob"}),
        (True, {"pattern": r"\w+@pap", "matcher": "pcre"}),
        (False, {"pattern": r"\w+@pap$", "matcher": "pcre"}),
        (True, {"pattern": "*@stone", "destination": ("taskq@paper",), "matcher": "glob"}),
        (False, {"pattern": "*@paper", "destination": ("taskq@stone",), "matcher": "glob"}),
        (True, {"pattern": "*@stone"}),
        # Nothing that can be sent as a pattern takes long or does harm.
        (False, {"pattern": "*", "matcher": "sql"}),
        (False, {"pattern": "(", "matcher": "pcre"}),
        (False, {"pattern": "t{1,99999999999}", "matcher": "pcre"}),
        (False, {"pattern": "(.+)+x", "matcher": "pcre"}),
        (False, {"pattern": ".*.*.*.*.*.*.*.*x", "matcher": "pcre"}),
        (False, {"pattern": "(?x)(.+) +x", "matcher": "pcre"}),
        (False, {"pattern": "(.|)(.|)(.|)(.|)(.|)(.|)(.|)x", "matcher": "pcre"}),
        (False, {"pattern": "*" * 256, "matcher": "pcre"}),
        (True, {"pattern": "*" * 255, "matcher": "glob"}),
    ],
)
def test_who_is_meant_obeys(post, meant, fields):
    post.say("heartbeat", **fields)
    said = post.settle()

    assert (["heartbeat"] if meant else []) == post.worker.told
    assert len(said) == meant


def test_who_is_gone_long_ago_is_not_obeyed(post):
    post.say("shutdown", expires=clock.wall() - 3600)
    post.say("drain", expires=clock.wall() - 1)
    post.settle()

    assert ["drain"] == post.worker.told


def test_what_outlives_a_worker_is_obeyed_however_late(post):
    post.say("pause", {"queue": "q"}, expires=clock.wall() - 3600)
    post.settle()

    assert post.worker.remembered.paused == {"q"}
    assert post.worker.changes == [Pause("q")]


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("pong", {}, "there is no command 'pong'"),
        ("pool_grow", {"n": "x"}, "n must be a whole number"),
        ("rate_limit", {"task_name": "sub", "rate_limit": "1/s"}, "unknown task"),
    ],
)
def test_what_cannot_be_obeyed_is_answered_with_the_error(post, method, arguments, error):
    said = post.ask(method, arguments).value

    assert list(said) == ["error"]
    assert said["error"].startswith(error)


def test_a_fault_of_the_worker_costs_a_reply_and_no_more(post, caplog):
    post.worker.stats = lambda: {}["nothing"]

    assert {"error": "KeyError('nothing')"} == post.ask("stats").value
    assert {"ok": "pong"} == post.ask("ping").value
    assert "the command stats failed: KeyError('nothing')" in caplog.text


def test_a_reply_that_cannot_be_sent_is_answered_with_the_error(post):
    post.worker.stats = lambda: {"what": object()}

    assert "what" in post.ask("stats").value["error"]


def test_a_reply_may_come_later(post):
    post.say("dump")
    post.turn_until(lambda: post.worker.dumps)
    assert {"ok": "pong"} == post.ask("ping", ticket="other").value

    post.worker.dumps[0].set({"17": "here"})
    post.turn_until(lambda: post.heard)

    assert ("t", {"17": "here"}) == (post.heard[0].ticket, post.heard[0].value)


def test_replies_go_to_no_exchange_of_a_strangers_choice(post):
    said = []
    for exchange in ("orders", "celeryev", REQUESTS):
        post.broker.listen(post.loop, exchange, "#", on_message=said.append, on_ready=lambda: None)
        post.say("heartbeat", reply_to=(exchange, "me"))
    post.settle()

    assert len(post.worker.told) == 3
    assert all(b"method" in message.body for message in said)  # the requests themselves


def test_commands_that_change_something_are_told_in_the_log(post, caplog):
    caplog.set_level(logging.INFO, "taskq")

    post.ask("pool_grow", {"n": 2})
    post.ask("ping")
    post.ask("revoke", {"task_id": ["x" * 200] * 100})

    told = [record for record in caplog.records if record.event == "control-command"]
    assert ["pool_grow", "revoke"] == [record.fields["command"] for record in told]
    assert "told to pool_grow {'n': 2}" == told[0].getMessage()
    assert len(told[1].getMessage()) < 1200


# -- the log -----------------------------------------------------------------------------------


def test_what_was_decided_before_is_known_before_the_worker_begins():
    post = Post()
    post.log("revoke", {"task_id": "1"})
    post.log("pause", {"queue": "a"})
    post.log("pause", {"queue": "b"})
    post.log("resume", {"queue": "a"})
    post.log("revoke", {"task_id": ["2", "3"], "terminate": True}, expires=1.0)
    post.log("rate_limit", {"task_name": "add", "rate_limit": "1/s"})
    post.log("rate_limit", {"task_name": "gone", "rate_limit": "1/s"})
    post.log("terminate", {"task_id": "4"}, destination=("taskq@other",))
    post.log("shutdown", {})
    post.log("revoke", {"task_id": 7})
    post.log("revoke", {"task_id": "5"}, ticket="t", reply_to=(REPLIES, "me"))
    post.mailbox.start(post.on_ready)
    assert not post.worker.changes

    post.turn_until(lambda: post.ready)

    known = post.worker.remembered
    assert ["1", "2", "3", "5"] == list(known.revoked)
    assert known.paused == {"b"}
    assert known.rate_limits == {"add": "1/s"}
    assert Resume("a") in post.worker.changes
    assert Revoke(("1", "2", "3", "5")) in post.worker.changes
    assert [] == post.worker.told
    assert [] == post.settle()


def test_what_is_said_while_the_log_is_played_counts_more():
    post = Post()
    post.log("pause", {"queue": "q"})
    post.mailbox.start(post.on_ready)
    post.log("resume", {"queue": "q"})

    post.turn_until(lambda: post.ready)
    post.settle()

    assert post.worker.remembered.paused == set()


def test_a_worker_without_an_ear_begins_all_the_same(monkeypatch):
    """RabbitMQ keeps a second worker of the same name from its mailbox."""
    monkeypatch.setattr(mailbox_module, "_PATIENCE", 0.01)
    post = Post()
    post.log("pause", {"queue": "q"})
    post.broker.listen = lambda *_, **__: None

    post.open()

    assert post.worker.remembered.paused == {"q"}


def test_a_change_that_cannot_be_made_does_not_keep_a_worker_from_beginning():
    post = Post()
    post.log("pause", {"queue": "q"})
    post.log("revoke", {"task_id": "1"})
    post.worker.apply = lambda change: {}[change]

    post.open()

    assert post.worker.remembered.is_revoked("1")


# -- too much of it ------------------------------------------------------------------------------


def test_what_cannot_be_read_is_counted_and_told_once(post, monkeypatch, caplog):
    monkeypatch.setattr(mailbox_module, "_REPORT", 0.01)
    for body in (b"{", b"[]", b'{"method": 5}', b"\xff" * 100):
        post.send(Message.of(Properties(content_type="application/json"), body))
    post.settle()
    post.turn_until(lambda: "cannot be read" in caplog.text)

    assert {"ok": "pong"} == post.ask("ping").value
    assert "4 commands cannot be read" in caplog.text


def test_of_too_many_requests_the_latest_are_dropped_and_told(monkeypatch, caplog):
    monkeypatch.setattr(mailbox_module, "_MOST_REQUESTS", 10)
    monkeypatch.setattr(mailbox_module, "_REPORT", 0.01)
    post = Post().open()

    for _ in range(25):
        post.say("heartbeat")
    post.turn_until(lambda: "dropped" in caplog.text)

    assert ["heartbeat"] * 10 == post.worker.told
    assert "15 commands were dropped" in caplog.text


def test_a_flood_of_commands_leaves_the_loop_to_others(post):
    """The loop turns in between, again and again, and what is due then is done."""
    seen = []

    def look():
        seen.append(len(post.worker.told))
        post.loop.call_later(0.001, look)

    look()
    for _ in range(5000):
        post.say("heartbeat", reply_to=None)
    post.settle()

    assert len(post.worker.told) == 5000
    assert len([count for count in set(seen) if 0 < count < 5000]) >= 2


class Jammed:
    """Stands for an outlet whose broker takes nothing at times."""

    def __init__(self):
        self.is_jammed = True
        self.sent = []

    def broadcast(self, message, exchange, routing_key):
        if not self.is_jammed:
            self.sent.append((read_reply(message).ticket, exchange, routing_key))
        return not self.is_jammed


def test_replies_that_cannot_go_out_are_sent_later_in_their_order():
    outlet = Jammed()
    post = Post(outlet).open()
    for ticket in "abc":
        post.say("heartbeat", ticket=ticket)
    post.turn_until(lambda: len(post.worker.told) == 3)
    assert outlet.sent == []

    outlet.is_jammed = False
    post.say("heartbeat", ticket="d")
    post.turn_until(lambda: len(outlet.sent) == 4)

    assert [(ticket, REPLIES, "me") for ticket in "abcd"] == outlet.sent


def test_replies_that_nobody_waits_for_any_more_are_dropped(monkeypatch):
    monkeypatch.setattr(mailbox_module, "_KEPT", 0.0)
    outlet = Jammed()
    post = Post(outlet).open()
    post.say("heartbeat")
    post.turn_until(lambda: post.mailbox._replies)
    post.turn_until(lambda: not post.mailbox._replies)

    assert outlet.sent == []


def test_of_too_many_unsent_replies_the_oldest_are_dropped(monkeypatch):
    monkeypatch.setattr(mailbox_module, "_MOST_REPLIES", 3)
    outlet = Jammed()
    post = Post(outlet).open()
    for number in range(5):
        post.say("heartbeat", ticket=str(number))
    post.turn_until(lambda: len(post.worker.told) == 5)

    outlet.is_jammed = False
    post.turn_until(lambda: outlet.sent)

    assert ["2", "3", "4"] == [ticket for ticket, _, _ in outlet.sent]


def test_a_closed_mailbox_hears_and_says_nothing():
    post = Post().open()
    post.say("dump")
    post.turn_until(lambda: post.worker.dumps)

    post.mailbox.close()
    post.mailbox.close()
    post.worker.dumps[0].set({})
    post.say("heartbeat")
    for _ in range(3):
        post.loop.turn(0)

    assert [] == post.heard
    assert [] == post.worker.told


bodies = st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
).map(lambda value: json.dumps(value).encode())
near_misses = st.fixed_dictionaries(
    {"method": st.sampled_from(["revoke", "stats", "rate_limit", "autoscale", "hello"])},
    optional={
        name: st.none() | st.text(max_size=9) | st.dictionaries(st.text(max_size=9), st.integers())
        for name in ("arguments", "destination", "pattern", "matcher", "ticket", "reply_to")
    },
).map(lambda value: json.dumps(value).encode())


@given(st.lists(bodies | near_misses, min_size=1, max_size=5))
def test_nothing_that_can_be_sent_ends_a_worker(sent):
    post = Post().open()
    for body in sent:
        post.send(Message.of(Properties(content_type="application/json"), body))

    post.settle()

    post.mailbox.close()
    post.loop.close()
