"""The whole of beat through an hour that takes seconds: its clock is moved on while it sleeps."""

import selectors
import signal
from collections import Counter
from itertools import takewhile
from typing import Any

import pytest

from taskq import TaskQ, clock
from taskq.beat import beat as process
from taskq.beat.beat import Beat
from taskq.loop import Loop
from tests.support.site import Site

#: 2024-05-05 12:00 UTC.
NOON = 1_714_910_400.0
END = NOON + 3599.5


class Hurry:
    """A loop's selector for which time passes only while there is nothing to do."""

    passed = 0.0

    def __init__(self, inner: selectors.BaseSelector) -> None:
        self._inner = inner
        self.busy: Any = lambda: False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def select(self, timeout: float | None) -> Any:
        if self.busy():
            return self._inner.select(10)
        found = self._inner.select(0)
        if not found and timeout:
            self.passed += timeout
        return found


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Any:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    hurries: list[Hurry] = []

    def new_loop(self: Loop) -> None:
        original(self)
        self._selector = Hurry(self._selector)  # type: ignore[assignment]
        hurries.append(self._selector)  # type: ignore[arg-type]

    original = Loop.__init__
    monkeypatch.setattr(Loop, "__init__", new_loop)
    monkeypatch.setattr(clock, "wall", lambda: NOON + sum(each.passed for each in hurries))
    monkeypatch.setattr(clock, "monotonic", lambda: 1000 + sum(each.passed for each in hurries))
    # Fewer looks, for an hour has many seconds.
    monkeypatch.setattr(process, "_LOOK", 60.0)
    monkeypatch.setattr(process, "_LONGEST_PAUSE", 10.0)
    yield hurries
    for number, handler in before.items():
        signal.signal(number, handler)


def entries() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number in range(6):
        found[f"seconds {number}"] = 7.5 + number
        found[f"minutes {number}"] = {"crontab": f"*/{number + 1} * * * *"}
        found[f"once {number}"] = {"clocked": f"2024-05-05T12:{number}9:07Z"}
        found[f"relative {number}"] = {"every": 60 * (number + 1), "relative": True}
    return {
        name: {"task": "a.b", "schedule": schedule, "jitter": 3 * (number % 2)}
        for number, (name, schedule) in enumerate(found.items())
    }


def test_an_hour_of_schedule_sends_each_due_time_once(hurry: list[Hurry], tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/taskq.db"
    app = TaskQ("hour", broker=url, beat_lease=80, beat_schedule=entries())
    expected = Counter(
        occurrence.id
        for entry in app.schedule_entries().values()
        for occurrence in takewhile(lambda each: each.at <= END, entry.upcoming(NOON))
    )

    beat = Beat(app)
    (loop,) = hurry
    asides = [beat._aside]
    loop.busy = lambda: any(each._waiting for each in asides) or _lease_is_busy(beat)
    beat._loop.call_later(END - NOON, beat.stop)
    beat.run()
    loop.busy = lambda: False

    site = Site(url)
    sent = Counter(
        str(message.headers["id"]) for message in site.take("default", site.count("default"))
    )
    assert sum(expected.values()) > 2500
    assert expected == sent


def _lease_is_busy(beat: Beat) -> bool:
    aside = getattr(beat._lease, "_aside", None)
    return aside is not None and bool(aside._waiting)
