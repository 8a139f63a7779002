"""When a failed task runs again."""

import math

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


# -- after which exceptions ------------------------------------------------------------------------


def test_without_a_word_about_exceptions_nothing_is_tried_again():
    assert RetryPolicy().delay_after(OSError(), 1) is None


def test_the_exceptions_that_are_named_are_tried_again_but_for_those_left_alone():
    policy = RetryPolicy(
        delay=7, autoretry_for=(OSError, KeyError), dont_autoretry_for=(FileNotFoundError,)
    )

    assert [policy.delay_after(error, 1) for error in (ConnectionError(), KeyError())] == [7, 7]
    assert [policy.delay_after(error, 1) for error in (FileNotFoundError(), ValueError())] == [
        None,
        None,
    ]
    assert policy.delay_after(OSError(), 3) == 7
    assert policy.delay_after(OSError(), 4) is None


def test_a_function_says_how_long_to_wait_or_that_there_is_no_retry():
    asked = []

    def patience(error, attempt):
        asked.append((repr(error), attempt))
        return None if isinstance(error, KeyError) else 2.5 * attempt

    policy = RetryPolicy(limit=None, backoff=100, retry_when=patience)

    assert policy.delay_after(OSError(1), 1) == 2.5
    assert policy.delay_after(OSError(2), 200) == 500
    assert policy.delay_after(KeyError(), 1) is None
    assert asked == [("OSError(1)", 1), ("OSError(2)", 200), ("KeyError()", 1)]


def test_the_function_is_asked_within_the_limit_and_about_what_is_named():
    policy = RetryPolicy(
        limit=2, autoretry_for=(OSError,), dont_autoretry_for=(TimeoutError,), retry_when=_at_once
    )
    anything = RetryPolicy(limit=2, retry_when=_at_once)

    assert [policy.delay_after(OSError(), attempt) for attempt in (1, 2, 3)] == [0, 0, None]
    assert [policy.delay_after(error, 1) for error in (TimeoutError(), ValueError())] == [None] * 2
    assert anything.delay_after(ValueError(), 1) == 0
    assert anything.delay_after(SystemExit(), 1) is None


def _at_once(_error, _attempt):
    return 0


@pytest.mark.parametrize("nonsense", ["soon", True, False, -1, math.nan, math.inf, [5]])
def test_an_answer_that_is_no_delay_is_an_error_that_shows_it(nonsense):
    policy = RetryPolicy(retry_when=lambda _error, _attempt: nonsense)

    with pytest.raises(TypeError, match=r"retry_when said .* of OSError.*: .*seconds") as told:
        policy.delay_after(OSError("gone"), 1)

    assert repr(nonsense) in str(told.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"retry_when": 5},
        {"autoretry_for": OSError},
        {"autoretry_for": ("OSError",)},
        {"autoretry_for": [OSError, None]},
        {"dont_autoretry_for": (OSError(),)},
    ],
)
def test_what_is_no_policy_is_refused_when_it_is_made(wrong):
    (option,) = wrong

    with pytest.raises(TypeError, match=f"^{option} is "):
        RetryPolicy(**wrong)


def test_a_list_of_exceptions_will_do():
    assert RetryPolicy(delay=1, autoretry_for=[OSError]).delay_after(ConnectionError(), 1) == 1
