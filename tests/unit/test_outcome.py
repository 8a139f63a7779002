"""The table from outcome and policy to settlement."""

import pytest

from taskq.worker.outcome import Outcome, Policy, Settlement, settle

LATE, EARLY = Policy(), Policy(acks_late=False)


@pytest.mark.parametrize(
    ("outcome", "settlement"),
    [
        (Outcome.SUCCESS, Settlement.ACK),
        (Outcome.FAILURE, Settlement.DEAD_LETTER),
        (Outcome.TIMEOUT, Settlement.DEAD_LETTER),
        (Outcome.RETRY, Settlement.ACK),
        (Outcome.IGNORE, Settlement.ACK),
        (Outcome.REVOKED, Settlement.ACK),
        (Outcome.REJECT, Settlement.DEAD_LETTER),
        (Outcome.MALFORMED, Settlement.DEAD_LETTER),
        (Outcome.REJECT_REQUEUE, Settlement.REQUEUE),
        (Outcome.UNSTORED, Settlement.REQUEUE),
        (Outcome.LOST, Settlement.RUN_AGAIN),
    ],
)
def test_every_outcome_has_its_settlement(outcome: Outcome, settlement: Settlement) -> None:
    assert settlement is settle(outcome, LATE, crashes=1, max_crashes=3)


def test_a_lost_job_runs_again_until_it_has_crashed_too_often() -> None:
    verdicts = [settle(Outcome.LOST, LATE, crashes=n, max_crashes=3) for n in (1, 2, 3)]

    assert verdicts == [Settlement.RUN_AGAIN, Settlement.RUN_AGAIN, Settlement.DEAD_LETTER]


@pytest.mark.parametrize("policy", [EARLY, Policy(reject_on_worker_lost=False)])
def test_a_lost_job_that_must_not_repeat_is_dead_lettered_at_once(policy: Policy) -> None:
    assert Settlement.DEAD_LETTER is settle(Outcome.LOST, policy, crashes=1, max_crashes=3)


def test_a_task_may_go_without_dead_letters() -> None:
    policy = Policy(dead_letter=False)

    for outcome in (Outcome.FAILURE, Outcome.TIMEOUT, Outcome.REJECT):
        assert Settlement.ACK is settle(outcome, policy, crashes=0, max_crashes=3)
    assert Settlement.DEAD_LETTER is settle(Outcome.MALFORMED, policy, crashes=0, max_crashes=3)


def test_a_failure_that_must_not_be_acked_is_kept_and_a_timeout_runs_again() -> None:
    policy = Policy(acks_on_failure_or_timeout=False, dead_letter=False)

    assert Settlement.DEAD_LETTER is settle(Outcome.FAILURE, policy, crashes=0, max_crashes=3)
    assert Settlement.REQUEUE is settle(Outcome.TIMEOUT, policy, crashes=0, max_crashes=3)
