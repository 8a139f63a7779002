"""Three beats of one schedule, of which one leads: whatever happens to it, another goes on.

No due time is lost, and one that was sent twice was sent with the same id.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from taskq.schedules import read_entry
from tests.support.beats import StartBeat
from tests.support.process import WorkerProcess
from tests.support.proxy import Proxy
from tests.support.site import Site
from tests.support.wait import wait_until

#: The schedule of tests/support/schedule/ticks.py.
ENTRIES = [
    read_entry(f"tick {number}", {"task": "ticks.tick", "schedule": 0.5}) for number in range(4)
]

KINDS = ("rabbitmq", "redis", "postgres")


class Band:
    """Three beats, and what they sent."""

    def __init__(self, beats: list[WorkerProcess], site: Site) -> None:
        self.beats = beats
        self._site = site

    def leader(self, *, after: WorkerProcess | None = None) -> WorkerProcess:
        """The one that leads, once another than *after* does."""

        def find() -> WorkerProcess | None:
            for beat in self.beats:
                told = [each["event"] for each in list(beat.events)]
                leads = [each for each in told if each in ("beat-leading", "beat-lost")][-1:]
                if beat is not after and beat.is_running and leads == ["beat-leading"]:
                    return beat
            return None

        return wait_until(find, "a beat to lead", timeout=60)

    def sends(self, beat: WorkerProcess, more: int) -> None:
        """Wait until *beat* has sent some *more*."""
        for _ in range(more):
            beat.wait_for("due-sent", timeout=60)

    def sent(self) -> list[str]:
        """The ids of all that is in the queue; to be called when the beats are gone."""
        count = self._site.count("default")
        messages = self._site.take("default", count)
        return [str(message.headers["id"]) for message in messages]


@pytest.fixture(params=KINDS)
def band(request: pytest.FixtureRequest, beat_process: StartBeat, tmp_path: Path) -> Band:
    env = {"TASKQ_APP": "ticks", "TASKQ_BEAT_LEASE": "4"}
    broker = f"sqlite:///{tmp_path}/broker.db"
    if request.param == "rabbitmq":
        broker = request.getfixturevalue("rabbit").url
        env["TASKQ_BEAT_STORE"] = f"sqlite:///{tmp_path}/beat.db"
    else:
        server: Any = request.getfixturevalue(f"own_{request.param}")
        env["TASKQ_BEAT_STORE"] = server.url if request.param == "redis" else f"db+{server.url}"
        env["TASKQ_BEAT_LEADER"] = "store"
    env["TASKQ_BROKER_URL"] = broker
    return Band([beat_process(env=env) for _ in range(3)], Site(broker))


def assert_no_gap(ids: list[str]) -> None:
    """Each entry was sent at each of its due times from the first to the last of them."""
    for entry in ENTRIES:
        own = {each for each in ids if each.startswith(f"{entry.name}@")}
        assert len(own) > 3
        first, last = min(own), max(own)
        moment = _moment(first)
        expected = {first}
        for occurrence in entry.upcoming(moment):
            expected.add(occurrence.id)
            if occurrence.id >= last:
                break
        assert expected == own


def _moment(id: str) -> float:
    return datetime.fromisoformat(id.partition("@")[2].replace("Z", "+00:00")).timestamp()


def stop_all(band: Band) -> None:
    for beat in band.beats:
        if beat.is_running:
            beat.send(signal.SIGCONT)
            assert beat.stop() == 0


def test_a_leader_that_is_killed_is_replaced(band: Band) -> None:
    for _ in range(2):
        leader = band.leader()
        band.sends(leader, 10)
        leader.kill()
    last = band.leader()
    band.sends(last, 10)
    stop_all(band)

    assert_no_gap(band.sent())


def test_a_leader_that_is_frozen_is_replaced(band: Band) -> None:
    frozen = band.leader()
    band.sends(frozen, 10)

    frozen.send(signal.SIGSTOP)
    band.sends(band.leader(after=frozen), 10)
    frozen.send(signal.SIGCONT)
    frozen.wait_for("beat-lost", timeout=60)
    band.sends(band.leader(after=frozen), 10)
    stop_all(band)

    assert_no_gap(band.sent())


def test_a_leader_that_stops_hands_over_without_a_double_send(band: Band) -> None:
    leader = band.leader()
    band.sends(leader, 10)
    assert leader.stop() == 0
    band.sends(band.leader(after=leader), 10)
    stop_all(band)

    ids = band.sent()
    assert_no_gap(ids)
    assert len(set(ids)) == len(ids)


@contextmanager
def proxies(url: str, count: int) -> Iterator[list[Proxy]]:
    opened = [Proxy(url) for _ in range(count)]
    try:
        yield opened
    finally:
        for proxy in opened:
            proxy.close()


@pytest.mark.parametrize("how", ["cut", "stall", "deafen"])
def test_a_leader_that_is_cut_off_is_replaced(
    beat_process: StartBeat, rabbit: Any, tmp_path: Path, how: str
) -> None:
    with proxies(rabbit.url, 3) as ways:
        beats = [
            beat_process(
                env={
                    "TASKQ_APP": "ticks",
                    "TASKQ_BEAT_LEASE": "4",
                    "TASKQ_BROKER_URL": way.url,
                    "TASKQ_BEAT_STORE": f"sqlite:///{tmp_path}/beat.db",
                }
            )
            for way in ways
        ]
        band = Band(beats, Site(rabbit.url))
        leader = band.leader()
        band.sends(leader, 10)
        way = ways[beats.index(leader)]

        getattr(way, how)()
        band.sends(band.leader(after=leader), 10)
        leader.wait_for("beat-lost", timeout=60)
        way.mend()
        way.resume()
        band.sends(band.leader(), 10)
        stop_all(band)

        assert_no_gap(band.sent())


def test_the_test_sees_a_gap() -> None:
    entry = ENTRIES[0]
    ids = [next(entry.upcoming(moment)).id for moment in (1000.0, 1000.5, 1001.0, 1002.0)]
    others = [
        next(each.upcoming(1000.0 + number / 2)).id for each in ENTRIES[1:] for number in range(4)
    ]

    with pytest.raises(AssertionError):
        assert_no_gap([*ids, *others])
