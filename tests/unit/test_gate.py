"""What a delivery's headers, and what operators decided, allow at a given moment."""

import pytest

from taskq.broker.base import Delivery
from taskq.control.memory import (
    Change,
    LimitRate,
    LimitTime,
    Pause,
    Remembered,
    Resume,
    Revoke,
    RevokeStamped,
)
from taskq.wire.headers import TaskHeaders
from taskq.wire.message import Message, Properties
from taskq.wire.task import encode
from taskq.worker.gate import (
    LONGEST_HOLD,
    Delay,
    Exhausted,
    Expired,
    Gate,
    Hold,
    Paused,
    Revoked,
    Run,
    Unregistered,
    Verdict,
)
from taskq.worker.outcome import Policy

NOW = 1_000_000.0
POLICIES = {"add": Policy(), "slow": Policy(rate_limit="10/s", time_limit=5, soft_time_limit=4)}


def judge(
    gate: Gate | None = None,
    deliveries: int = 0,
    task: str = "add",
    message: Message | None = None,
    now: float = NOW,
    **fields: float,
) -> Verdict:
    gate = gate or Gate(POLICIES, Remembered(), max_deliveries=50)
    headers = TaskHeaders(task=task, id="1", **fields)  # type: ignore[arg-type]
    message = message or encode(headers, (), {})
    return gate.judge(headers, Delivery(1, None, "q", message, count=deliveries), now)


def remembering(*changes: Change) -> Gate:
    remembered = Remembered()
    gate = Gate(POLICIES, remembered, max_deliveries=50)
    for change in changes:
        remembered.take(change, NOW)
        gate.refresh()
    return gate


def test_an_ordinary_task_runs() -> None:
    assert Run() == judge()


def test_a_task_whose_time_has_come_runs() -> None:
    assert Run() == judge(eta=NOW)


def test_a_task_that_is_hardly_early_is_held() -> None:
    assert Hold(NOW + 0.05) == judge(eta=NOW + 0.05)


def test_a_task_that_is_early_goes_back_to_the_broker() -> None:
    assert Delay(NOW + 5) == judge(eta=NOW + 5)


def test_an_expired_task_never_runs_even_if_it_is_not_due_yet() -> None:
    assert Expired() == judge(expires=NOW, eta=NOW + 5)


def test_an_unknown_task_never_runs() -> None:
    assert Unregistered() == judge(task="sub")


def test_a_message_that_was_delivered_too_often_never_runs() -> None:
    assert Exhausted() == judge(deliveries=50)
    assert Run() == judge(deliveries=49)


def test_a_revoked_task_never_runs_whatever_else_is_wrong_with_it() -> None:
    gate = remembering(Revoke(("1", "2")))

    assert Revoked() == judge(gate)
    assert Revoked() == judge(gate, deliveries=50, eta=NOW + 5)
    assert Revoked() == judge(gate, task="sub")


@pytest.mark.parametrize("stamps", [{"customer": "7"}, {"customer": ["6", "7"]}, {"customer": 7}])
def test_a_task_with_a_revoked_stamp_never_runs(stamps: dict[str, object]) -> None:
    gate = remembering(RevokeStamped({"customer": ("7",)}))
    stamped = {"task": "add", "id": "1", "stamps": stamps, "stamped_headers": list(stamps)}
    made = Message.of(Properties(headers=stamped), b"[]")

    assert Revoked() == judge(gate, message=made)
    assert Run() == judge(gate)


def test_a_paused_queue_gives_nothing_until_it_is_resumed() -> None:
    assert Paused() == judge(remembering(Pause("q")))
    assert Run() == judge(remembering(Pause("another")))
    assert Run() == judge(remembering(Pause("q"), Resume("q")))


def test_a_task_over_its_rate_is_held_for_a_moment_or_goes_back() -> None:
    gate = remembering()

    assert Run() == judge(gate, task="slow")
    assert Hold(NOW + 0.1) == judge(gate, task="slow", now=NOW + 0.1 - LONGEST_HOLD)
    assert isinstance(judge(gate, task="slow", now=NOW + 0.1), Delay)
    assert Run() == judge(gate)


def test_a_task_that_is_early_gets_its_token_for_its_time() -> None:
    gate = remembering()

    assert Hold(NOW + 0.05) == judge(gate, task="slow", eta=NOW + 0.05)
    assert isinstance(judge(gate, task="slow", now=NOW), Delay)
    assert Run() == judge(gate, task="slow", now=NOW + 0.15)


def test_an_operator_sets_and_lifts_a_rate() -> None:
    limited = remembering(LimitRate("add", "5/h"))
    lifted = remembering(LimitRate("slow", "0"))

    assert [Run(), True] == [judge(limited), isinstance(judge(limited), Delay)]
    assert [Run(), Run()] == [judge(lifted, task="slow"), judge(lifted, task="slow")]


def test_another_change_gives_no_token() -> None:
    gate = remembering(LimitRate("add", "5/h"))

    judge(gate)
    gate.refresh()

    assert isinstance(judge(gate), Delay)


def test_rates_may_be_disabled() -> None:
    gate = Gate(POLICIES, Remembered(), max_deliveries=50, limit_rates=False)

    assert [Run(), Run()] == [judge(gate, task="slow"), judge(gate, task="slow")]


def test_an_operators_time_limits_stand_in_place_of_the_tasks_own() -> None:
    gate = remembering(LimitTime("slow", 9.0, None), LimitTime("unknown", 1.0, 1.0))

    assert (9.0, None) == (gate.policies["slow"].time_limit, gate.policies["slow"].soft_time_limit)
    gate.learn({"slow": Policy(time_limit=1)})
    assert 9.0 == gate.policies["slow"].time_limit
