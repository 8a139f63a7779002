"""What becomes of a message after its job: one table from outcome and policy to settlement.

Pure.  The dispatcher asks, the supervisor's hands do; `docs/guarantees.md` prints the table.
"""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a job ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    RETRY = "retry"
    IGNORE = "ignore"
    REJECT = "reject"
    REJECT_REQUEUE = "reject-requeue"
    REVOKED = "revoked"
    #: The message is no task that can run: undecodable, unregistered, unsupported.
    MALFORMED = "malformed"
    #: The process that ran it died.
    LOST = "lost"
    #: Its hard time limit passed, and its process was ended.
    TIMEOUT = "timeout"
    #: The result could not be stored within result_store_retry.
    UNSTORED = "unstored"


class Settlement(StrEnum):
    """What the broker is told."""

    ACK = "ack"
    REQUEUE = "requeue"
    #: A copy with the reason goes to the dead-letter queue, then the original is acked.
    DEAD_LETTER = "dead-letter"
    #: A copy with one more crash counted goes back to the queue, then the original is acked.
    RUN_AGAIN = "run-again"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a task's author chose about acknowledgements."""

    acks_late: bool = True
    #: Whether a failed, or timed out, task counts as dealt with.
    acks_on_failure_or_timeout: bool = True
    reject_on_worker_lost: bool = True
    #: Keep what failed for good in the dead-letter queue.
    dead_letter: bool = True
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool = False
    store_errors_even_if_ignored: bool = False
    #: How often it may begin in one worker, as `rate.parse_rate` reads it; None: any time.
    rate_limit: str | None = None


def settle(outcome: Outcome, policy: Policy, *, crashes: int, max_crashes: int) -> Settlement:
    """The settlement of a late-acked delivery whose job ended in *outcome*.

    *crashes* counts this one if *outcome* is LOST.  With early acks (`acks_late` off) the message
    is settled already, and only DEAD_LETTER still means something: a copy is kept.
    """
    given_up = Settlement.DEAD_LETTER if policy.dead_letter else Settlement.ACK
    match outcome:
        case Outcome.SUCCESS | Outcome.RETRY | Outcome.IGNORE | Outcome.REVOKED:
            return Settlement.ACK
        case Outcome.REJECT:
            return given_up
        case Outcome.FAILURE:
            return given_up if policy.acks_on_failure_or_timeout else Settlement.DEAD_LETTER
        case Outcome.TIMEOUT:
            return given_up if policy.acks_on_failure_or_timeout else Settlement.REQUEUE
        case Outcome.MALFORMED:
            return Settlement.DEAD_LETTER
        case Outcome.REJECT_REQUEUE | Outcome.UNSTORED:
            return Settlement.REQUEUE
        case Outcome.LOST:
            again = policy.acks_late and policy.reject_on_worker_lost and crashes < max_crashes
            return Settlement.RUN_AGAIN if again else given_up
