"""Events go out without anybody waiting, and of too many some are dropped and counted."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from taskq.events import sender as module
from taskq.events.sender import EventSender
from taskq.loop import Loop
from taskq.wire.event import EXCHANGE, SEVERAL, EventWriter
from taskq.wire.message import Message
from tests.support.wait import wait_until


class Outlet:
    """Takes broadcasts while it is *well*."""

    def __init__(self) -> None:
        self.well = True
        self.taken: list[tuple[str, str, Any]] = []

    def broadcast(self, message: Message, exchange: str, routing_key: str) -> bool:
        if self.well:
            self.taken.append((exchange, routing_key, json.loads(message.body)))
        return self.well

    def publish(self, *_: Any, **__: Any) -> None:
        raise AssertionError("events are broadcast")

    def close(self, timeout: float = 5.0) -> None:
        """Nothing is held here."""

    @property
    def ids(self) -> list[str]:
        return [each["uuid"] for _, key, body in self.taken if key == SEVERAL for each in body]


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def make(loop: Loop) -> tuple[EventSender, Outlet]:
    outlet = Outlet()
    return EventSender(loop, outlet, EventWriter("w1@here", 1, 0.0)), outlet


def put(sender: EventSender, *ids: object) -> None:
    for task_id in ids:
        sender.put(sender.writer.started(str(task_id), 1.0))


def turn_until(loop: Loop, condition: Any) -> None:
    wait_until(lambda: loop.turn(0.05) or condition(), "the sender")


def test_events_about_tasks_travel_together(loop: Loop) -> None:
    sender, outlet = make(loop)

    put(sender, "a", "b", "c")
    turn_until(loop, lambda: outlet.taken)

    ((exchange, key, body),) = outlet.taken
    assert (EXCHANGE, SEVERAL, 3) == (exchange, key, len(body))


def test_an_event_about_the_worker_goes_alone_and_at_once(loop: Loop) -> None:
    sender, outlet = make(loop)

    assert sender.tell("worker-online", {"freq": 2.0})

    ((exchange, key, body),) = outlet.taken
    assert (EXCHANGE, "worker.online", "worker-online") == (exchange, key, body["type"])


def test_what_the_broker_does_not_take_is_sent_later_in_its_order(loop: Loop) -> None:
    sender, outlet = make(loop)
    outlet.well = False
    put(sender, *range(250))
    assert not sender.tell("worker-heartbeat", {})
    sender.flush()
    put(sender, 250)

    outlet.well = True
    turn_until(loop, lambda: len(outlet.ids) == 251)

    assert [str(number) for number in range(251)] == outlet.ids
    assert 0 == sender.dropped


def test_of_too_many_the_oldest_are_dropped_counted_and_told(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sender, outlet = make(loop)
    one = len(sender.writer.started("1000", 1.0))
    monkeypatch.setattr(module, "_MOST", 100 * (one + 2))
    outlet.well = False
    put(sender, *range(1000, 3000))
    waiting = 2000 - sender.dropped

    outlet.well = True
    sender.close()

    assert waiting >= 90
    assert [str(number) for number in range(3000 - waiting, 3000)] == outlet.ids
    (record,) = caplog.records
    assert f"{sender.dropped} events about tasks" in record.message


def test_close_sends_what_can_go_and_counts_the_rest(loop: Loop) -> None:
    well, outlet = make(loop)
    put(well, "a")
    well.close()
    ill, silent = make(loop)
    silent.well = False
    put(ill, "b", "c")
    ill.close()

    assert (["a"], 0) == (outlet.ids, well.dropped)
    assert ([], 2) == (silent.ids, ill.dropped)
