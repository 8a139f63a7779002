"""When a failed task runs again."""

import pytest

from taskq.retry import RetryPolicy


def test_there_are_as_many_retries_as_the_limit_says():
    policy = RetryPolicy(limit=2)

    assert [policy.allows(retry) for retry in (1, 2, 3)] == [True, True, False]
    assert not RetryPolicy(limit=0).allows(1)
    assert RetryPolicy(limit=None).allows(10**9)


def test_without_backoff_every_retry_waits_the_same():
    policy = RetryPolicy(delay=7)

    assert [policy.delay_before(retry) for retry in (1, 2, 30)] == [7, 7, 7]


def test_backoff_doubles_up_to_the_longest():
    policy = RetryPolicy(backoff=1.5, longest=10, jitter=False)

    assert [policy.delay_before(retry) for retry in (1, 2, 3, 4, 5000)] == [1.5, 3, 6, 10, 10]


@pytest.mark.parametrize(("drawn", "delay"), [(0.0, 0.0), (0.5, 2.0), (1.0, 4.0)])
def test_jitter_takes_any_part_of_the_delay(drawn, delay):
    policy = RetryPolicy(backoff=1, jitter=True)

    assert policy.delay_before(3, draw=lambda: drawn) == delay
