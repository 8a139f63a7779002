"""The picture that events draw is the same in whatever order they come."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from taskq.events import State

Event = dict[str, Any]


def event(kind: str, at: float, clock: int = 0, **fields: Any) -> Event:
    """An event of worker w1 (of producer p, if something was sent), heard when it was told."""
    sender = "p@here" if kind == "task-sent" else "w1@here"
    return {
        "type": kind,
        "hostname": sender,
        "timestamp": at,
        "clock": clock,
        "local_received": at,
        **fields,
    }


CALL = {"name": "add", "args": "(1, 2)", "kwargs": "{}", "root_id": "a", "parent_id": None}

#: A task that is tried twice.
LIFE = [
    event("task-sent", 99.0, 1, uuid="a", **CALL, retries=0, queue="q", routing_key="q"),
    event("task-received", 1.0, 2, uuid="a", **CALL, retries=0),
    event("task-started", 1.0, 3, uuid="a"),
    event("task-retried", 2.0, 4, uuid="a", exception="KeyError(1)", traceback="first"),
    event("task-received", 3.0, 5, uuid="a", **CALL, retries=1),
    event("task-started", 3.0, 6, uuid="a"),
    event("task-succeeded", 3.0, 7, uuid="a", result="3", runtime=0.1),
    event("worker-online", 0.0, 1, freq=2.0, pid=7, sw_ident="taskq"),
    event("worker-heartbeat", 4.0, 8, freq=2.0, active=1, processed=2, loadavg=[1, 2, 3]),
    event("worker-offline", 5.0, 9, freq=2.0, active=0, processed=2),
]

subjects = st.sampled_from(
    ["sent", "received", "started", "succeeded", "failed", "retried", "revoked", "rejected", "own"]
)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Some events, each with a clock of its own, as those of one sender have."""
    return [
        event(
            f"task-{draw(subjects)}",
            draw(st.integers(0, 3)),
            clock,
            uuid=draw(st.sampled_from("ab")),
            **{name: f"{name} {clock}" for name in ("name", "args", "result", "exception")},
        )
        for clock in range(draw(st.integers(1, 12)))
    ]


def drawn(events: list[Event]) -> tuple[Any, Any]:
    state = State()
    for each in events:
        state.event(each)
    return {uuid: task.as_dict() for uuid, task in state.tasks.items()}, state.workers


@given(st.permutations(LIFE))
def test_a_life_told_in_any_order_is_the_same_life(told: list[Event]) -> None:
    tasks, workers = drawn(told)

    assert {
        "state": "SUCCESS",
        "name": "add",
        "args": "(1, 2)",
        "retries": 1,
        "queue": "q",
        "client": "p@here",
        "hostname": "w1@here",
        "sent": 99.0,
        "received": 3.0,
        "retried": 2.0,
        "result": "3",
        "runtime": 0.1,
        "exception": "KeyError(1)",
        "traceback": "first",
    }.items() <= tasks["a"].items()
    worker = workers["w1@here"]
    assert (True, 0, 2, "taskq", (1.0, 2.0, 3.0)) == (
        worker.is_offline,
        worker.active,
        worker.processed,
        worker.sw_ident,
        worker.loadavg,
    )


@given(histories(), st.randoms(use_true_random=False))
def test_any_history_told_in_any_order_gives_the_same_picture(told: list[Event], chance: Any):
    mixed = told[:]
    chance.shuffle(mixed)

    assert drawn(told)[0] == drawn(mixed)[0]


@given(histories())
def test_hearing_twice_changes_nothing(told: list[Event]) -> None:
    assert drawn(told)[0] == drawn(told + told)[0]


def test_a_worker_is_alive_until_two_heartbeats_are_missed() -> None:
    state = State()
    state.event(event("worker-heartbeat", 10.0, freq=2.0))

    assert ["w1@here"] == [worker.hostname for worker in state.alive_workers(now=13.9)]
    assert [] == state.alive_workers(now=14.0)


def test_a_worker_that_said_goodbye_is_alive_again_when_it_comes_back() -> None:
    state = State()
    state.event(event("worker-offline", 10.0, 1))
    alive = [state.workers["w1@here"].is_alive(10.0)]
    state.event(event("worker-heartbeat", 9.0, 0, freq=2.0))
    alive.append(state.workers["w1@here"].is_alive(10.0))
    state.event(event("worker-online", 11.0, 1, freq=2.0))
    alive.append(state.workers["w1@here"].is_alive(11.0))

    assert [False, False, True] == alive


def test_a_worker_that_only_spoke_of_tasks_is_not_called_alive() -> None:
    state = State()
    state.event(event("task-started", 10.0, uuid="a"))

    assert ["w1@here"] == list(state.workers)
    assert [] == state.alive_workers(now=10.0 + 1e6)


def test_of_too_many_those_are_forgotten_that_were_silent_for_longest() -> None:
    state = State(max_tasks=2, max_workers=2)
    for uuid in "abac":
        state.event(event("task-started", 1.0, uuid=uuid))
    for name in "xyxz":
        state.event(event("worker-heartbeat", 1.0) | {"hostname": name})

    assert ["a", "c"] == list(state.tasks)
    assert ["x", "z"] == list(state.workers)
    assert (3, 8) == (state.task_count, state.event_count)


def test_texts_of_any_length_are_kept_in_part() -> None:
    state = State()
    state.event(
        event("task-failed", 1.0, uuid="a", exception="x" * 10**6, traceback={"no": "text"})
    )

    task = state.tasks["a"]
    assert task.exception is not None
    assert len(task.exception) < 20_000
    assert task.traceback == "{'no': 'text'}"


def test_tasks_are_looked_at_from_several_sides() -> None:
    state = State()
    for at, (uuid, name) in enumerate({"a": "add", "b": "mul", "c": "add"}.items()):
        state.event(event("task-received", at, uuid=uuid, name=name))
    state.event(event("task-started", 9.0, uuid="a") | {"hostname": "w2@here"})

    assert ["a", "c", "b"] == [uuid for uuid, _ in state.tasks_by_time()]
    assert ["a"] == [uuid for uuid, _ in state.tasks_by_time(limit=1)]
    assert ["a", "c"] == [uuid for uuid, _ in state.tasks_by_type("add")]
    assert ["c", "b"] == [uuid for uuid, _ in state.tasks_by_worker("w1@here")]
    assert ["add", "mul"] == state.task_types()


def test_what_is_neither_of_a_worker_nor_of_a_task_is_only_counted() -> None:
    state = State()

    assert state.event(event("weather-rain", 1.0)) is None
    assert (1, {}, {}) == (state.event_count, state.workers, state.tasks)


def test_a_task_of_which_only_its_own_words_are_known_has_their_state() -> None:
    state = State()
    state.event(event("task-progress", 1.0, uuid="a"))

    assert ("PROGRESS", False) == (state.tasks["a"].state, state.tasks["a"].is_ready)
