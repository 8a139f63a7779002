"""taskq's own commands, in Python and on the command line, see and steer the whole fleet.

Real Celery's worker is one of it.
"""

import json
import uuid
from typing import Any

import pytest

from taskq.control.inspector import Control
from tests.interop.fleet import ALL, OURS, THEIRS, Fleet, node
from tests.support.wait import wait_until

NODES = tuple(map(node, ALL))


@pytest.fixture
def control(fleet: Fleet) -> Control:
    return fleet.ours.control


def by_name(replies: Any) -> dict[str, Any]:
    """Replies, however they are given, by short name; all must be there."""
    if isinstance(replies, list):
        replies = {name: said for each in replies for name, said in each.items()}
    assert {*NODES} == (replies or {}).keys()
    return {name: replies[node(name)] for name in ALL}


# -- in Python -------------------------------------------------------------------------------------


def test_all_workers_answer_a_question_to_all(control: Control) -> None:
    """Who they are is not known beforehand, so this waits for one more for a while."""
    assert {name: {"ok": "pong"} for name in NODES} == control.inspect(timeout=5).ping()


@pytest.mark.parametrize(
    "question",
    [
        *("stats", "active", "reserved", "scheduled", "revoked", "registered", "active_queues"),
        *("conf", "report", "clock"),
    ],
)
def test_each_question_is_answered_by_all(control: Control, question: str) -> None:
    ask = control.inspect(NODES, timeout=30)

    replies = by_name(getattr(ask, question)())

    assert not any(isinstance(each, dict) and "error" in each for each in replies.values())


def test_patterns_choose_workers(control: Control) -> None:
    assert control.inspect(pattern="cel*@fleet", matcher="glob", timeout=2).ping() == {
        node(THEIRS): {"ok": "pong"}
    }
    assert control.inspect(pattern="o.e@fl", matcher="pcre", timeout=2).ping() == {
        node("one"): {"ok": "pong"}
    }


def test_what_runs_is_told_by_all(fleet: Fleet, control: Control) -> None:
    with fleet.holding(*ALL) as ids:
        active = by_name(control.inspect(NODES, timeout=30).active())
        found = by_name(control.inspect(NODES, timeout=30).query_task(*ids.values()))

    for name, task_id in ids.items():
        assert [task_id] == [each["id"] for each in active[name]]
        assert {task_id: "active"} == {each: said[0] for each, said in found[name].items()}


def test_replies_come_one_by_one(control: Control) -> None:
    replies = control.stream("ping", destination=NODES, timeout=30)

    assert {*NODES} == {name for name, said in replies if said == {"ok": "pong"}}


def test_a_revoked_task_runs_nowhere(fleet: Fleet, control: Control) -> None:
    ids = {name: str(uuid.uuid4()) for name in ALL}
    by_name(control.revoke([*ids.values()], destination=NODES, reply=True, timeout=30))

    for name, task_id in ids.items():
        fleet.send(name, "note", task_id, task_id=task_id)
    for task_id in ids.values():
        fleet.wait_for_state(task_id, "REVOKED")

    assert not {*ids.values()} & {*fleet.ran()}


def test_a_result_revokes_its_task_wherever_it_runs(fleet: Fleet) -> None:
    with fleet.holding(*ALL) as ids:
        for task_id in ids.values():
            fleet.ours.AsyncResult(task_id).revoke(terminate=True, signal="SIGKILL")
        for task_id in ids.values():
            fleet.wait_for_state(task_id, "REVOKED")


def test_a_queue_is_paused_and_resumed(fleet: Fleet, control: Control) -> None:
    """Which Celery's worker does not know; it says so, and goes on."""
    replies = by_name(control.pause("one", destination=NODES, reply=True, timeout=30))
    assert "error" in replies.pop(THEIRS)
    assert all("ok" in said for said in replies.values())
    held = fleet.send("one", "note", "while it was paused")
    done = fleet.send("two", "add", 1, 1)
    fleet.wait_for_state(done, "SUCCESS")
    assert not control.inspect([node("one")], timeout=30).query_task(held)[node("one")]

    control.resume("one", destination=NODES, reply=True, timeout=30)

    fleet.wait_for_state(held, "SUCCESS")


def test_stacks_are_told_of_children_that_run(fleet: Fleet, control: Control) -> None:
    with fleet.holding(*OURS):
        ask = control.inspect([node(name) for name in OURS], timeout=30)
        stacks, stats = ask.dump(), ask.stats()

    assert stacks is not None
    assert stats is not None
    for name in OURS:
        texts = stacks[node(name)]
        assert set(texts) == {*map(str, stats[node(name)]["pool"]["processes"])}
        assert sum("deeds.py" in text and "in hold" in text for text in texts.values()) == 1


# -- on the command line ---------------------------------------------------------------------------


def asked(fleet: Fleet, *command: str, code: int = 0) -> dict[str, Any]:
    """The replies by short name to `taskq inspect|control`."""
    kind, *rest = command
    options = ("-d", ",".join(NODES), "-t", "30", "--json")
    lines = fleet.taskq(kind, *rest, *options, code=code).splitlines()
    return by_name({line["node"]: line["reply"] for line in map(json.loads, lines)})


def test_taskqs_status_lists_all_workers(fleet: Fleet) -> None:
    told = fleet.taskq("status", "-t", "5")

    lines = [line.split() for line in told.splitlines()]
    assert {*NODES} <= {words[0] for words in lines if words}
    assert f"{len(ALL)} workers" in told
    with fleet.holding(*ALL):
        printed = fleet.taskq("status", "-d", ",".join(NODES), "-t", "30", "--json")
    for record in map(json.loads, printed.splitlines()):
        name = record["node"].partition("@")[0]
        assert (record["active"], record["children"], record["queues"]) == (1, 2, [name])
        assert record["pid"] in fleet.members[name].family()


def test_taskqs_inspect_shows_what_runs(fleet: Fleet) -> None:
    with fleet.holding(*ALL) as ids:
        told = fleet.taskq("inspect", "active", "-d", ",".join(NODES), "-t", "30")
        replies = asked(fleet, "inspect", "active")

    for name, task_id in ids.items():
        assert task_id in told
        assert node(name) in told
        assert [task_id] == [each["id"] for each in replies[name]]


def test_taskqs_control_sets_limits_everywhere(fleet: Fleet) -> None:
    limited = asked(fleet, "control", "rate_limit", "shop.note", "600/m")
    assert {name: {"ok": "new rate limit set successfully"} for name in ALL} == limited
    for tasks in asked(fleet, "inspect", "registered").values():
        assert "shop.note [rate_limit=600/m]" in tasks
    asked(fleet, "control", "rate_limit", "shop.note", "0")
    timed = asked(fleet, "control", "time_limit", "shop.note", "--soft", "30", "--hard", "60")
    assert {name: {"ok": "time limits set successfully"} for name in ALL} == timed


def test_taskqs_control_says_what_went_wrong(fleet: Fleet) -> None:
    replies = asked(fleet, "control", "rate_limit", "no.such.task", "10/s", code=1)

    assert {name: {"error": "unknown task"} for name in ALL} == replies
    missing = fleet.taskq("inspect", "ping", "-d", "nobody@fleet", code=69)
    assert missing == ""


def test_taskqs_control_changes_the_number_of_children(fleet: Fleet) -> None:
    def sizes() -> set[int]:
        return {
            len(said["pool"]["processes"]) for said in asked(fleet, "inspect", "stats").values()
        }

    asked(fleet, "control", "pool_grow", "1")
    wait_until(lambda: {3} == sizes(), "one more child everywhere", timeout=60)
    asked(fleet, "control", "pool_shrink", "1")
    wait_until(lambda: {2} == sizes(), "one child less everywhere", timeout=60)


def test_taskqs_control_terminates_what_runs(fleet: Fleet) -> None:
    with fleet.holding(*ALL) as ids:
        asked(fleet, "control", "terminate", *ids.values(), "--signal", "SIGKILL")
        for task_id in ids.values():
            fleet.wait_for_state(task_id, "REVOKED")


@pytest.mark.parametrize("name", ["three-more", f"{THEIRS}-three-more"])
def test_taskqs_shutdown_ends_one_worker(fleet: Fleet, name: str) -> None:
    fleet.launch(name)

    fleet.taskq("control", "shutdown", "-d", node(name), "-t", "30")

    assert fleet.members[name].wait() == 0
    assert all(fleet.members[each].is_running for each in ALL)
