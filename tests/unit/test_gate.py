"""What a delivery's headers allow, at a given moment."""

from taskq.wire.headers import TaskHeaders
from taskq.worker import gate
from taskq.worker.gate import Delay, Exhausted, Expired, Hold, Run, Unregistered, Verdict

NOW = 1_000_000.0


def judge(deliveries: int = 0, task: str = "add", **fields: float) -> Verdict:
    headers = TaskHeaders(task=task, id="1", **fields)  # type: ignore[arg-type]
    return gate.judge(headers, known={"add"}, deliveries=deliveries, max_deliveries=50, now=NOW)


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
