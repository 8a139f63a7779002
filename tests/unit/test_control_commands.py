"""The table of commands: names and replies that Celery's tools know, and arguments of any kind."""

import json

import pytest
from celery.worker.control import Panel
from hypothesis import given
from hypothesis import strategies as st

from taskq.control import commands
from taskq.control.base import CommandError, Later
from taskq.control.commands import COMMANDS, SILENCE, find
from taskq.control.memory import LimitRate, LimitTime, Pause, Resume, Revoke, RevokeStamped
from tests.support.desk import PaperWorker


def obey(name, worker=None, **arguments):
    worker = worker or PaperWorker()
    command = find(name)
    return command.run(worker, command.read(arguments))


def change(name, worker=None, **arguments):
    command = find(name)
    return command.change(worker or PaperWorker(), command.read(arguments))


def test_there_is_every_command_of_celery_by_every_name():
    assert set(Panel.data) - set(commands.BY_NAME) == set()


@pytest.mark.parametrize("name", sorted(Panel.meta))
def test_a_command_is_a_question_if_it_is_one_for_celery(name):
    assert Panel.meta[name].type == find(name).kind


def test_no_name_stands_for_two_commands():
    names = [name for command in COMMANDS for name in (command.name, *command.aliases)]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "arguments", "reply"),
    [
        ("ping", {}, {"ok": "pong"}),
        ("report", {}, {"ok": "all is well"}),
        ("conf", {"with_defaults": True}, {"timezone": "UTC"}),
        ("dump_conf", {}, {}),
        ("active", {"safe": True}, [{"id": "running", "args": "(1,)"}]),
        ("dump_active", {}, [{"id": "running", "args": [1]}]),
        ("reserved", {}, [{"id": "waiting", "args": [1]}]),
        ("revoked", {}, []),
        ("clock", {}, {"clock": 1}),
        ("query_task", {"ids": "running"}, {"running": ["active", {"id": "running"}]}),
        ("query_task", {"ids": ["other"]}, {}),
        ("registered", {"taskinfoitems": ["rate_limit"]}, ["add [rate_limit=x]"]),
        ("registered", {"taskinfoitems": [], "builtins": False},
         ["add [exchange=x]", "add [routing_key=x]", "add [rate_limit=x]"]),
        ("active_queues", {}, [{"name": "taskq"}]),
        ("stats", {}, {"total": {"add": 1}, "pid": 1}),
        ("hello", {"from_node": "taskq@other", "revoked": {}}, {"revoked": [], "clock": 1}),
        ("hello", {"from_node": "taskq@paper", "revoked": []}, None),
        ("revoke", {"task_id": "1"}, {"ok": "tasks {'1'} flagged as revoked"}),
        ("revoke", {"task_id": ["running"], "terminate": True, "signal": "SIGTERM"},
         {"ok": "terminate: running"}),
        ("revoke", {"task_id": ["1"], "terminate": True}, {"ok": "terminate: tasks unknown"}),
        ("terminate", {"task_id": "running", "signal": 9}, {"ok": "terminate: running"}),
        ("revoke_by_stamped_headers", {"headers": {"colour": "blue"}},
         {"ok": "headers {'colour': ['blue']} flagged as revoked, but not terminated"}),
        ("revoke_by_stamped_headers", {"headers": ["colour=blue"], "terminate": True},
         {"ok": "headers {'colour': ['blue']} revoked"}),
        ("revoke_by_stamped_headers", {"headers": ["colour=red"], "terminate": True},
         {"ok": "headers {'colour': ['red']} were not terminated"}),
        ("rate_limit", {"task_name": "add", "rate_limit": "10/m"},
         {"ok": "new rate limit set successfully"}),
        ("rate_limit", {"task_name": "add", "rate_limit": 0},
         {"ok": "rate limit disabled successfully"}),
        ("time_limit", {"task_name": "add", "hard": 5}, {"ok": "time limits set successfully"}),
        ("add_consumer", {"queue": "q"}, {"ok": "add consumer q"}),
        ("cancel_consumer", {"queue": "q"}, {"ok": "no longer consuming from q"}),
        ("pool_grow", {}, {"ok": "pool will grow"}),
        ("pool_shrink", {"n": 2}, {"ok": "pool will shrink"}),
        ("pool_restart", {"modules": None, "reload": False, "reloader": None},
         {"ok": "reload started"}),
        ("autoscale", {"max": 7, "min": 3}, {"ok": "autoscale now max=7 min=3"}),
        ("enable_events", {}, {"ok": "task events enabled"}),
        ("disable_events", {}, {"ok": "task events already disabled"}),
        ("heartbeat", {}, None),
        ("shutdown", {"msg": "bye"}, SILENCE),
        ("election", {"id": "1", "topic": "task", "action": {}}, SILENCE),
        ("pause", {"queue": "q"}, {"ok": "queue q paused"}),
        ("resume", {"queue": "q"}, {"ok": "queue q resumed"}),
        ("drain", {}, {"ok": "takes nothing more"}),
        ("undrain", {}, {"ok": "takes messages again"}),
    ],
)  # fmt: skip
def test_a_command_replies_as_celery_does(name, arguments, reply):
    assert reply == obey(name, **arguments)


def test_memory_is_told_as_text():
    assert obey("memsample").endswith("MB")


def test_events_are_enabled_once():
    worker = PaperWorker()

    said = [obey(f"{word}_events", worker)["ok"] for word in ("enable", "enable", "disable")]

    assert ["task events enabled", "task events already enabled", "task events disabled"] == said


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("revoke", {"task_id": "1", "terminate": True}, ("terminate", ("1",), 15)),
        ("revoke", {"task_id": ["1", "1"], "terminate": True, "signal": "kill"},
         ("terminate", ("1",), 9)),
        ("terminate", {"task_id": "1", "signal": "SIGUSR1"}, ("terminate", ("1",), 10)),
        ("terminate", {"task_id": "1", "signal": None}, ("terminate", ("1",), 15)),
        ("add_consumer", {"queue": "q", "exchange": "e", "routing_key": "k", "x": 1},
         ("add_consumer", "q", "e", None, "k", {"x": 1})),
        ("pool_grow", {"n": 3}, ("pool_grow", 3)),
        ("pool_shrink", {"n": None}, ("pool_shrink", 1)),
    ],
)  # fmt: skip
def test_a_worker_is_told_what_to_do(name, arguments, told):
    worker = PaperWorker()

    obey(name, worker, **arguments)

    assert [told] == worker.told


@pytest.mark.parametrize(
    ("name", "arguments", "remembered"),
    [
        ("revoke", {"task_id": ["1", "2"], "terminate": True}, Revoke(("1", "2"))),
        ("terminate", {"task_id": "1"}, Revoke(("1",))),
        ("hello", {"from_node": "other", "revoked": {"1": 5.0}}, Revoke(("1",))),
        ("revoke_by_stamped_headers", {"headers": ["a=1", "a=2", "b=3"]},
         RevokeStamped({"a": ("1", "2"), "b": ("3",)})),
        ("rate_limit", {"task_name": "add", "rate_limit": 5}, LimitRate("add", "5")),
        ("time_limit", {"task_name": "add", "hard": 9}, LimitTime("add", 9.0, None)),
        ("time_limit", {"task_name": "add", "hard": 0, "soft": 1.5}, LimitTime("add", None, 1.5)),
        ("pause", {"queue": "q"}, Pause("q")),
        ("resume", {"queue": "q"}, Resume("q")),
    ],
)  # fmt: skip
def test_what_outlives_a_worker_is_remembered(name, arguments, remembered):
    assert remembered == change(name, **arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("revoke", {}, "task_id is missing: it must be a text of 1 to 255 bytes"),
        ("revoke", {"task_id": 5}, "task_id must be a text of 1 to 255 bytes, or a list"),
        ("revoke", {"task_id": [""]}, "task_id must be"),
        ("revoke", {"task_id": "x" * 300}, r"not 'x+\.\.\.$"),
        ("revoke", {"task_id": "1", "terminate": "maybe"}, "terminate must be true or false"),
        ("terminate", {"task_id": "1", "signal": "SIGNOT"}, "signal must be a signal's name"),
        ("terminate", {"task_id": "1", "signal": 1000}, "signal must be"),
        ("terminate", {"task_id": "1", "signal": True}, "signal must be"),
        ("revoke_by_stamped_headers", {"headers": {}}, "headers must be a mapping"),
        ("revoke_by_stamped_headers", {"headers": ["colour"]}, "headers must be a mapping"),
        ("rate_limit", {"task_name": "add", "rate_limit": "5/d"}, "Invalid rate limit string"),
        ("rate_limit", {"task_name": "add", "rate_limit": []}, "rate_limit must be a rate"),
        ("time_limit", {"task_name": "add", "hard": -1}, "hard must be a number of seconds"),
        ("time_limit", {"task_name": "add", "soft": float("nan")}, "soft must be a number"),
        ("pool_grow", {"n": 0}, "n must be a whole number from 1 to 1,000, not 0"),
        ("pool_grow", {"n": 1.5}, "n must be a whole number"),
        ("autoscale", {"max": "many"}, "max must be a whole number from 0"),
        ("add_consumer", {"queue": {}}, "queue must be a queue's name"),
        ("cancel_consumer", {"queue": "unknown"}, "there is no consumer"),
        ("active", {"safe": []}, "safe must be true or false"),
        ("objgraph", {}, "taskq has no such command"),
        ("memdump", {"samples": 3}, "taskq has no such command"),
        ("pong", {}, "there is no command 'pong'; did you mean 'ping'?"),
    ],
)
def test_what_cannot_be_obeyed_is_answered_with_what_is_allowed(name, arguments, error):
    with pytest.raises(CommandError, match=error):
        obey(name, **arguments)


@pytest.mark.parametrize("name", ["rate_limit", "time_limit"])
def test_an_unknown_task_gets_no_limit(name):
    with pytest.raises(CommandError, match=r"^unknown task$"):
        change(name, task_name="other", rate_limit="1/s", hard=1)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
_NAMES = st.sampled_from([a.name for command in COMMANDS for a in command.arguments])


@given(st.sampled_from(sorted(commands.BY_NAME)), st.dictionaries(_NAMES, anything))
def test_whatever_is_sent_there_is_a_reply(name, arguments):
    try:
        reply = obey(name, **arguments)
    except CommandError as error:
        reply = {"error": str(error)}

    if reply is not SILENCE and not isinstance(reply, Later):
        assert json.loads(json.dumps(reply)) == reply
