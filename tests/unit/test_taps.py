"""Which queues are taken from while there are reasons against it."""

from collections.abc import Sequence

from taskq.broker.base import Delivery, Queue
from taskq.worker.taps import Taps


class Intake:
    """An intake that knows what it consumes from."""

    def __init__(self) -> None:
        self.open: set[str] = set()

    def consume(self, queues: Sequence[Queue], window: int) -> None:
        self.open = {queue.name for queue in queues}

    def add(self, queue: Queue) -> None:
        assert queue.name not in self.open
        self.open.add(queue.name)

    def cancel(self, queue: str) -> None:
        self.open.remove(queue)

    def resize(self, window: int) -> None: ...
    def pause(self) -> None: ...
    def ack(self, delivery: Delivery, *, at_once: bool = False) -> None: ...
    def reject(self, delivery: Delivery, *, requeue: bool) -> None: ...
    def close(self, timeout: float = 5.0) -> None: ...


def taps(*paused: str) -> tuple[Taps, Intake]:
    intake = Intake()
    taps = Taps(intake, [Queue("one"), Queue("two")])
    for queue in paused:
        taps.pause(queue, True)
    taps.begin(1)
    return taps, intake


def test_what_was_paused_before_it_began_is_not_taken_from() -> None:
    made, intake = taps("one")
    before = set(intake.open)

    made.pause("one", False)

    assert {"two"} == before
    assert {"one", "two"} == intake.open


def test_it_goes_on_when_the_last_reason_is_gone() -> None:
    made, intake = taps()
    seen = []

    made.close("full")
    made.close("drain")
    made.open("full")
    seen.append(set(intake.open))
    made.open("drain")
    seen.append(set(intake.open))
    made.close("full")
    made.close("full")
    made.open("full")

    assert [set(), {"one", "two"}] == seen
    assert {"one", "two"} == intake.open


def test_a_queue_that_is_resumed_while_nothing_is_taken_waits_with_the_others() -> None:
    made, intake = taps("one")

    made.close("drain")
    made.pause("one", False)
    meanwhile = set(intake.open)
    made.open("drain")

    assert set() == meanwhile
    assert {"one", "two"} == intake.open


def test_queues_come_and_go() -> None:
    made, intake = taps("three")

    made.add(Queue("three"))
    made.add(Queue("four"))
    made.add(Queue("four"))
    made.remove("one")
    made.remove("unknown")

    assert {"two", "four"} == intake.open
    assert {"two", "three", "four"} == made.queues.keys()
