"""Flower shows taskq's workers as it shows Celery's, and its buttons steer them."""

import html
import re
import shutil
import subprocess
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.interop.fleet import ALL, THEIRS, Fleet, Flower, node
from tests.support.program import find_program, leashed
from tests.support.wait import wait_until

#: Where people find what the tests have seen.
ARTEFACTS = Path(__file__).parents[1] / "artefacts"


@pytest.fixture
def watched(fleet: Fleet, flower: Flower) -> Flower:
    """Flower beside the fleet, whose logs are shown if the test fails."""
    return flower


# -- pages -----------------------------------------------------------------------------------------


def test_the_table_of_workers_shows_all_of_them(fleet: Fleet, watched: Flower) -> None:
    before = watched.workers()
    done = [fleet.send(name, "add", 1, 1) for name in ALL]
    failed = [fleet.send(name, "fail", "no luck") for name in ALL]
    for task_id in done:
        watched.wait_for_task(task_id, "SUCCESS")
    for task_id in failed:
        watched.wait_for_task(task_id, "FAILURE")

    rows = watched.workers()

    for name in ALL:
        row = rows[name]
        for kind, more in (("received", 2), ("started", 2), ("succeeded", 1), ("failed", 1)):
            event = f"task-{kind}"
            assert more == row[event] - before[name].get(event, 0), (name, event)
        assert row["pid"] in fleet.members[name].family()
        assert node(name) in watched.page("/workers")
    wait_until(lambda: all(map(_counts, watched.workers().values())), "heartbeats that count")


def _counts(row: dict[str, Any]) -> bool:
    """Whether a worker that lives has told its load, and how many tasks it has run."""
    return not row["status"] or (len(row["loadavg"] or ()) == 3 and row["processed"] >= 2)


@pytest.mark.parametrize("name", ALL)
def test_a_workers_page_shows_its_pool_queues_tasks_and_settings(
    fleet: Fleet, watched: Flower, name: str
) -> None:
    done = fleet.send(name, "add", 1, 1)
    fleet.wait_for_state(done, "SUCCESS")

    with fleet.holding(name) as ids:
        watched.json("/api/workers", refresh=1, workername=node(name))
        page = html.unescape(watched.page(f"/worker/{node(name)}"))

    for part in ("Pool", "Broker", "Queues", "Tasks", "Limits", "Config", "System"):
        assert f">{part}</a>" in page
    cells = [
        re.sub(r"<[^>]+>|\s+", " ", cell).strip() for cell in re.findall(r"<td.*?</td>", page, re.S)
    ]
    pairs = dict(reversed([*pairwise(cells)]))  # the first of a name counts
    assert pairs["Worker PID"].replace(",", "") == str(fleet.members[name].pid)
    assert pairs["Hostname"] == "127.0.0.1"
    assert pairs["Virtual host"] == fleet.url.rpartition("/")[2]
    assert name in cells  # its queue
    assert int(pairs["shop.add"].replace(",", "")) >= 1
    assert ids[name] in page  # it runs
    assert "shop.fail" in page  # its limits can be set
    assert "guest:guest" not in page
    assert "open-sesame" not in page


@pytest.mark.parametrize("name", ALL)
def test_a_tasks_page_shows_what_became_of_it(fleet: Fleet, watched: Flower, name: str) -> None:
    task_id = fleet.send(name, "add", 20, 3)
    failed = fleet.send(name, "fail", "no luck")
    watched.wait_for_task(task_id, "SUCCESS")
    watched.wait_for_task(failed, "FAILURE")

    row = watched.tasks()[task_id]
    found = watched.json(f"/api/task/info/{task_id}")

    assert (row["name"], row["worker"], row["result"]) == ("shop.add", node(name), "23")
    assert (found["args"], found["kwargs"], found["retries"]) == ("(20, 3)", "{}", 0)
    assert found["received"] <= found["started"] <= found["succeeded"]
    assert found["runtime"] >= 0
    assert "shop.add" in watched.page(f"/task/{task_id}")
    page = html.unescape(watched.page(f"/task/{failed}"))
    assert "ValueError('no luck')" in page
    assert "Traceback" in page
    assert watched.json(f"/api/task/result/{task_id}")["result"] == 23
    assert watched.json(f"/api/task/result/{failed}")["state"] == "FAILURE"


def test_the_brokers_page_shows_each_queue(fleet: Fleet, watched: Flower) -> None:
    for name in ALL:
        watched.json("/api/workers", refresh=1, workername=node(name))

    def names() -> set[str]:
        return set(re.findall(r"<td>([\w.-]+)</td>", watched.page("/broker")))

    wait_until(lambda: names() >= {*ALL}, "all queues")  # the plugin counts each few seconds


# -- buttons ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_limits_of_a_task_are_set(fleet: Fleet, watched: Flower, name: str) -> None:
    limit = "/api/task/rate-limit/shop.note"
    to = {"workername": node(name)}

    assert watched.press(limit, ratelimit="600/m", **to) == "new rate limit set successfully"
    assert "shop.note [rate_limit=600/m]" in fleet.look("registered", name)
    assert watched.press(limit, ratelimit="0", **to).endswith("successfully")
    assert "many" in watched.press(limit, code=403, ratelimit="many", **to)
    timeout = "/api/task/timeout/shop.note"
    assert watched.press(timeout, soft=30, hard=60, **to) == "time limits set successfully"


@pytest.mark.parametrize("name", ALL)
def test_the_pool_grows_and_shrinks(fleet: Fleet, watched: Flower, name: str) -> None:
    def size() -> int:
        return len(fleet.look("stats", name)["pool"]["processes"])

    assert watched.press(f"/api/worker/pool/grow/{node(name)}", n=2).startswith("Growing")
    wait_until(lambda: size() == 4, f"more children of {name}")
    assert watched.press(f"/api/worker/pool/shrink/{node(name)}", n=2).startswith("Shrinking")
    wait_until(lambda: size() == 2, f"fewer children of {name}")
    assert "Failed to autoscale" in watched.press(
        f"/api/worker/pool/autoscale/{node(name)}", code=403, min=1, max=5
    )


@pytest.mark.parametrize("name", ALL)
def test_a_worker_takes_from_one_more_queue(fleet: Fleet, watched: Flower, name: str) -> None:
    queue = f"flowers-{name}"
    consumer = f"/api/worker/queue/{{}}-consumer/{node(name)}"

    assert watched.press(consumer.format("add"), queue=queue) == f"add consumer {queue}"
    done = fleet.send(name, "add", 1, 2, queue=queue)
    fleet.wait_for_state(done, "SUCCESS")

    assert (
        watched.press(consumer.format("cancel"), queue=queue) == f"no longer consuming from {queue}"
    )


@pytest.mark.parametrize("name", ALL)
def test_a_revoked_task_never_runs(fleet: Fleet, watched: Flower, name: str) -> None:
    task_id = str(uuid.uuid4())
    watched.press(f"/api/task/revoke/{task_id}")
    wait_until(
        lambda: task_id in fleet.look("revoked", name),
        f"{name} to hear of it",
    )

    fleet.send(name, "note", task_id, task_id=task_id)

    watched.wait_for_task(task_id, "REVOKED")
    fleet.wait_for_state(task_id, "REVOKED")
    assert task_id not in fleet.ran()


@pytest.mark.parametrize("name", ALL)
def test_a_running_task_is_terminated(fleet: Fleet, watched: Flower, name: str) -> None:
    with fleet.holding(name) as ids, fleet.holding(name) as others:
        watched.press(f"/api/task/revoke/{ids[name]}", terminate="true", signal="SIGTERM")

        watched.wait_for_task(ids[name], "REVOKED")
        fleet.wait_for_state(ids[name], "REVOKED")
    fleet.wait_for_state(others[name], "SUCCESS")


@pytest.mark.parametrize("name", ["two-more", f"{THEIRS}-two-more"])
def test_a_worker_is_shut_down(fleet: Fleet, watched: Flower, name: str) -> None:
    fleet.launch(name)
    wait_until(lambda: name in watched.workers(), f"Flower to see {name}")
    watched.json("/api/workers", refresh=1, workername=node(name))

    assert watched.press(f"/api/worker/shutdown/{node(name)}") == "Shutting down!"

    assert fleet.members[name].wait() == 0
    wait_until(lambda: not watched.workers()[name]["status"], f"Flower to see the end of {name}")


# -- in a browser ----------------------------------------------------------------------------------


def test_a_browser_shows_the_fleet(fleet: Fleet, watched: Flower, tmp_path: Path) -> None:
    ARTEFACTS.mkdir(exist_ok=True)
    taken = tmp_path / "workers.png"

    def look() -> str:
        """The page as it stands after its scripts ran."""
        return subprocess.run(
            leashed(
                find_program("chromium", "chromium"),
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *(f"--user-data-dir={tmp_path}/profile", "--window-size=1280,720"),
                *("--virtual-time-budget=10000", f"--screenshot={taken}", "--dump-dom"),
                f"{watched.url}/workers",
            ),
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    page = look()

    for name in ALL:
        assert re.search(rf'href="/worker/{name}(@|%40)fleet"', page), page
    assert page.count("Online") >= len(ALL)
    assert taken.read_bytes().startswith(b"\x89PNG")
    shutil.copy(taken, ARTEFACTS / "flower-workers.png")
