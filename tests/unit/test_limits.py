"""When a running job has had its time."""

from taskq.worker.limits import Kill, Limits, Wait, Warn, judge
from taskq.worker.slate import AROUND, IN_USER_CODE

BOTH = Limits(hard=10.0, soft=4.0)


def test_a_job_within_its_limits_is_looked_at_again_when_the_first_is_due() -> None:
    assert Wait(3.0) == judge(BOTH, IN_USER_CODE, 1.0, warned=False)


def test_the_soft_limit_warns_once() -> None:
    assert Warn() == judge(BOTH, IN_USER_CODE, 4.0, warned=False)
    assert Wait(5.0) == judge(BOTH, IN_USER_CODE, 5.0, warned=True)


def test_the_soft_limit_cannot_strike_outside_the_task() -> None:
    assert Wait(5.0) == judge(BOTH, AROUND, 5.0, warned=False)


def test_the_hard_limit_ends_the_child_wherever_it_is() -> None:
    assert Kill() == judge(BOTH, AROUND, 10.0, warned=False)
    assert Kill() == judge(Limits(hard=1.0), IN_USER_CODE, 1.5, warned=False)


def test_without_a_limit_left_nobody_looks() -> None:
    assert judge(Limits(soft=1.0), IN_USER_CODE, 2.0, warned=True) is None


def test_a_message_has_its_own_limits_before_those_of_its_task() -> None:
    assert Limits(5.0, 1.0) == Limits(hard=5.0).over(Limits(hard=9.0, soft=1.0))
