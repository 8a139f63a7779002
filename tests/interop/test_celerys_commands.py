"""The command line of real Celery sees and steers taskq's workers as it does its own.

What it is told by taskq is held beside what its own worker tells.
"""

import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.interop.fleet import ALL, OURS, SHOP, THEIRS, Fleet, form, node
from tests.support.program import leashed
from tests.support.wait import wait_until

#: Commands of `celery inspect`, and the mappings in their replies whose keys are not fixed.
INSPECT = {
    "ping": (),
    "clock": (),
    "report": (),
    "conf": None,
    "stats": ("total", "transport_options", "alternates"),
    "registered": (),
    "active": (),
    "reserved": (),
    "scheduled": (),
    "revoked": (),
    "active_queues": ("queue_arguments",),
}


def test_celerys_status_names_every_worker(fleet: Fleet) -> None:
    lines = fleet.celery("status", "-t", "5").splitlines()

    for name in ALL:
        assert f"->  {node(name)}: OK" in lines
    assert f"{len(ALL)} nodes online." in lines


@pytest.mark.parametrize("command", INSPECT)
def test_celerys_inspect_is_answered_as_by_its_own(fleet: Fleet, command: str) -> None:
    with fleet.holding(*ALL):
        replies = fleet.ask("inspect", command)

    variable = INSPECT[command]
    theirs = replies.pop(THEIRS)
    for name, reply in replies.items():
        if variable is None:
            assert type(theirs) is type(reply)
        else:
            assert_like(form(reply, *variable), form(theirs, *variable), name)


def assert_like(ours: Any, theirs: Any, where: str) -> None:
    """Whatever stands in *theirs* stands in *ours* with a value of its kind; nulls are any kind."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        missing = theirs.keys() - ours.keys()
        assert not missing, f"{where}: {missing} is not there"
        for key in theirs:
            assert_like(ours[key], theirs[key], f"{where}.{key}")
    else:
        assert ours == theirs or "null" in (ours, theirs), f"{where}: {ours}, not {theirs}"


def test_what_runs_is_told_as_celery_tells_it(fleet: Fleet) -> None:
    with fleet.holding(*ALL) as ids:
        active = fleet.ask("inspect", "active")
        known = fleet.ask("inspect", "query_task", *ids.values(), "not-there")

    for name, task_id in ids.items():
        (found,) = active[name]
        assert (found["id"], found["name"], found["type"]) == (task_id, "shop.hold", "shop.hold")
        assert found["args"][0].endswith(f"-{name}")
        assert (found["kwargs"], found["hostname"]) == ({}, node(name))
        assert found["delivery_info"]["routing_key"] == name
        assert found["worker_pid"] in fleet.members[name].family()
        assert found["time_start"] > 0
        assert found["acknowledged"] is (name == THEIRS)  # taskq's workers do so at the end
        assert_like(form(found), form(active[THEIRS][0]), name)
        assert [task_id] == list(known[name])
        assert "active" == known[name][task_id][0]
        assert known[name][task_id][1]["id"] == task_id


def test_registered_tasks_are_told_with_their_attributes(fleet: Fleet) -> None:
    plain = fleet.ask("inspect", "registered")

    for name in ALL:
        names = [each for each in plain[name] if each.startswith("shop.")]
        assert ["shop.add", "shop.fail", "shop.hold", "shop.note"] == names


def test_queues_are_told_as_celery_tells_them(fleet: Fleet) -> None:
    for name, queues in fleet.ask("inspect", "active_queues").items():
        (queue,) = queues
        assert (queue["name"], queue["durable"]) == (name, True)
        assert (queue["exclusive"], queue["no_ack"], queue["auto_delete"]) == (False, False, False)


def test_no_password_is_told(fleet: Fleet) -> None:
    for command in ("stats", "conf", "report"):
        printed = fleet.celery("inspect", "-t", "20", "-d", ",".join(map(node, OURS)), command)
        assert "guest:guest@" not in printed
        assert "open-sesame" not in printed


# -- control ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("rate_limit", "shop.add", "100/m"),
        ("rate_limit", "no.such.task", "10/s"),
        ("time_limit", "shop.add", "30", "60"),
        ("time_limit", "no.such.task", "30"),
        ("enable_events",),
        ("disable_events",),
        ("add_consumer", "more"),
        ("cancel_consumer", "more"),
        ("cancel_consumer", "never"),
        ("pool_grow", "1"),
        ("pool_shrink", "1"),
        ("revoke", "no-such-task"),
        ("terminate", "SIGTERM", "no-such-task"),
    ],
    ids=" ".join,
)
def test_celerys_control_is_answered_as_by_its_own(fleet: Fleet, command: tuple[str, ...]) -> None:
    if "more" not in command:
        told = fleet.ask("control", *command)
    else:  # a queue that Celery declares is of another kind
        told = fleet.ask("control", *command, to=OURS)
        (verb, queue) = command
        theirs = fleet.ask("control", verb, f"{queue}-theirs", to=(THEIRS,))
        told[THEIRS] = {"ok": theirs[THEIRS]["ok"].removesuffix("-theirs")}

    assert dict.fromkeys(ALL, told[THEIRS]) == told


def test_celerys_control_changes_the_number_of_children(fleet: Fleet) -> None:
    def sizes() -> set[int]:
        return {len(fleet.look("stats", name)["pool"]["processes"]) for name in ALL}

    assert {2} == sizes()
    fleet.ask("control", "pool_grow", "1")
    wait_until(lambda: {3} == sizes(), "one more child everywhere", timeout=60)
    fleet.ask("control", "pool_shrink", "1")
    wait_until(lambda: {2} == sizes(), "one child less everywhere", timeout=60)


def test_celerys_control_changes_the_queues(fleet: Fleet) -> None:
    for name in ALL:
        queue = f"another-{name}"
        fleet.ask("control", "add_consumer", queue, to=(name,))
        (_, added) = fleet.look("active_queues", name)
        assert queue == added["name"]

        done = fleet.send(name, "add", 1, 2, queue=queue)
        fleet.wait_for_state(done, "SUCCESS")

        fleet.ask("control", "cancel_consumer", queue, to=(name,))
        wait_until(
            lambda name=name: len(fleet.look("active_queues", name)) == 1,
            f"{name} to leave {queue}",
        )


def test_a_rate_limit_is_seen(fleet: Fleet) -> None:
    fleet.ask("control", "rate_limit", "shop.add", "600/m")

    for name, tasks in fleet.ask("inspect", "registered").items():
        assert "shop.add [rate_limit=600/m]" in tasks, name

    fleet.ask("control", "rate_limit", "shop.add", "0")


def test_a_task_that_celery_revoked_never_runs(fleet: Fleet) -> None:
    ids = {name: str(uuid.uuid4()) for name in ALL}
    fleet.ask("control", "revoke", *ids.values())

    for name, task_id in ids.items():
        fleet.send(name, "note", task_id, task_id=task_id)
    for name, task_id in ids.items():
        fleet.wait_for_state(task_id, "REVOKED")
        assert {*ids.values()} <= {*fleet.look("revoked", name)}

    assert not {*ids.values()} & {*fleet.ran()}


def test_a_task_that_celery_terminated_ends(fleet: Fleet) -> None:
    with fleet.holding(*ALL) as ids, fleet.holding(*ALL) as others:
        fleet.ask("control", "terminate", "SIGKILL", *ids.values())
        for name in ALL:
            fleet.wait_for_state(ids[name], "REVOKED")
            assert fleet.state(others[name]) == "STARTED"  # its neighbour is not harmed
    for task_id in others.values():
        fleet.wait_for_state(task_id, "SUCCESS")


# -- events ----------------------------------------------------------------------------------------


def test_celerys_dump_shows_every_event(fleet: Fleet, tmp_path: Path) -> None:
    fleet.ask("control", "enable_events")
    printed = tmp_path / "printed"
    with printed.open("w") as output:
        dump = subprocess.Popen(
            leashed(sys.executable, "-m", "celery", "-b", fleet.url, "events", "--dump"),
            cwd=SHOP,
            env={**fleet.env, "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        for name in ALL:  # each worker is heard before it is given work
            wait_until(
                lambda name=name: (
                    f"{node(name)} [" in printed.read_text()
                    or f"{node(name)} heartbeat" in printed.read_text()
                ),
                f"a sign of {name}",
            )
        ids = {name: fleet.send(name, "add", 20, 3) for name in ALL}
        failed = {name: fleet.send(name, "fail", "no luck") for name in ALL}
        for task_id in ids.values():
            wait_until(lambda: _told(printed, "succeeded", task_id), f"the end of {task_id}")
        for task_id in failed.values():
            wait_until(lambda: _told(printed, "failed", task_id), f"the end of {task_id}")
    finally:
        dump.terminate()
        dump.wait(30)
        fleet.ask("control", "disable_events")

    for task_id in (*ids.values(), *failed.values()):
        assert _told(printed, "received", task_id)
        assert _told(printed, "started", task_id)


def _told(printed: Path, subject: str, task_id: str) -> bool:
    return any(
        f"task {subject}" in line and task_id in line for line in printed.read_text().splitlines()
    )


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one-more", "celery-more"])
def test_celerys_shutdown_ends_one_worker(fleet: Fleet, name: str) -> None:
    fleet.launch(name)

    fleet.celery("control", "-d", node(name), "shutdown", code=69)  # nobody answers that

    assert fleet.members[name].wait() == 0
    assert all(fleet.members[each].is_running for each in ALL)
