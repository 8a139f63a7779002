"""The dispatcher under chosen and under random histories."""

import itertools
import os
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskq.broker.base import Delivery
from taskq.control.memory import (
    Change,
    LimitRate,
    LimitTime,
    Pause,
    Remembered,
    Resume,
    Revoke,
)
from taskq.wire.headers import TaskHeaders
from taskq.wire.message import Message, Properties
from taskq.wire.task import encode
from taskq.worker.dispatcher import Dispatcher
from taskq.worker.ledger import Doom, Job, Phase
from taskq.worker.outcome import Outcome, Policy
from taskq.worker.roster import DEPTH
from taskq.worker.window import Window

POLICIES = {
    "late": Policy(),
    "early": Policy(acks_late=False),
    "once": Policy(reject_on_worker_lost=False),
}


TOO_LONG = Doom(Outcome.TIMEOUT, "TimeLimitExceeded: 5 s", "TimeLimitExceeded")


class RecordingHands:
    """Hands that note what was asked of them."""

    def __init__(self) -> None:
        self.running: dict[int, list[Job]] = {}
        self.settled: Counter[int] = Counter()
        self.acked: list[int] = []
        self.requeued: list[int] = []
        self.discarded: list[int] = []
        self.copies: list[tuple[str, Job]] = []
        self.stores: list[tuple[Job, str, str]] = []
        self.answers: list[tuple[int, int, str | None]] = []
        self.ends: list[Job] = []
        self.retired: list[int] = []
        self.claims: list[Job] = []
        self.wakes: list[float] = []
        self.taking: list[bool] = []
        self.windows: list[int] = []
        self.looks = 0
        self.paused: dict[str, bool] = {}
        self.recalled: list[int] = []
        self.terminated: list[tuple[int, Job, int]] = []

    def run(self, child: int, job: Job) -> None:
        self.running.setdefault(child, []).append(job)

    def ack(self, delivery: Delivery, *, at_once: bool = False) -> None:
        self.settled[delivery.tag] += 1
        self.acked.append(delivery.tag)

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        self.settled[delivery.tag] += 1
        (self.requeued if requeue else self.discarded).append(delivery.tag)

    def dead_letter(self, job: Job) -> None:
        self.copies.append(("dead", job))

    def run_again(self, job: Job) -> None:
        self.copies.append(("again", job))

    def delay(self, job: Job, until: float) -> None:
        self.copies.append(("delay", job))

    def store(self, job: Job, state: str, exception: str, text: str) -> None:
        self.stores.append((job, state, exception))

    def ended(self, job: Job) -> None:
        self.ends.append(job)

    def found_done(self, child: int, job: Job) -> None:
        self.ends.append(job)

    def retire(self, child: int) -> None:
        self.retired.append(child)

    def answer(self, child: int, ticket: int, refusal: str | None) -> None:
        self.answers.append((child, ticket, refusal))

    def take_more(self, more: bool) -> None:
        self.taking.append(more)

    def resize(self, window: int) -> None:
        self.windows.append(window)

    def look(self) -> None:
        self.looks += 1

    def recall(self, child: int) -> None:
        self.recalled.append(child)

    def terminate(self, child: int, job: Job, signum: int) -> bool:
        """As if the child had begun the first of the jobs in its hands."""
        self.terminated.append((child, job, signum))
        return job.turn == min(each.turn for each in self.running[child] if each.child == child)

    def pause(self, queue: str, paused: bool) -> None:
        self.paused[queue] = paused

    def put_back(self, job: Job) -> None:
        self.copies.append(("back", job))

    def claim(self, job: Job) -> None:
        self.claims.append(job)

    def wake(self, at: float) -> None:
        self.wakes.append(at)


_tags = itertools.count(1)


def delivery(name: str = "late", **fields: object) -> Delivery:
    tag = next(_tags)
    headers = TaskHeaders(task=name, id=f"id-{tag}", **fields)  # type: ignore[arg-type]
    return Delivery(tag, None, "q", encode(headers, (), {}))


def make(children: int = 1) -> tuple[Dispatcher, RecordingHands]:
    hands = RecordingHands()
    dispatcher = Dispatcher(hands, POLICIES)
    for number in range(1, children + 1):
        dispatcher.child_started(number)
        dispatcher.child_ready(number)
    return dispatcher, hands


def test_a_late_acked_delivery_is_acked_when_its_job_is_done_and_not_before() -> None:
    dispatcher, hands = make()
    one = delivery()

    job = dispatcher.receive(one, 0.0)
    acked_while_running = list(hands.acked)
    dispatcher.done(1, job.number, Outcome.SUCCESS, 0.1)

    assert acked_while_running == []
    assert [one.tag] == hands.acked
    assert dispatcher.idle


def weigh(size: int) -> Delivery:
    """A delivery whose body has *size* bytes."""
    made = delivery()
    made.message.body = b"x" * size
    return made


def test_no_more_is_taken_above_the_limit_of_bytes_until_half_of_them_is_gone() -> None:
    hands = RecordingHands()
    dispatcher = Dispatcher(hands, POLICIES, max_held=100)
    dispatcher.child_started(1)
    dispatcher.child_ready(1)

    jobs = [dispatcher.receive(weigh(40), 0.0) for _ in range(2)]
    below = list(hands.taking)
    jobs += [dispatcher.receive(weigh(40), 0.0) for _ in range(2)]  # the last was on its way
    history = []
    for job in jobs:
        dispatcher.done(1, job.number, Outcome.SUCCESS, 0.1)
        history.append((dispatcher.ledger.size, list(hands.taking)))

    assert below == []
    assert history == [(120, [False]), (80, [False]), (40, [False, True]), (0, [False, True])]


def test_a_lost_connection_leaves_room_for_more() -> None:
    hands = RecordingHands()
    dispatcher = Dispatcher(hands, POLICIES, max_held=100)

    dispatcher.receive(weigh(101), 0.0)
    dispatcher.lose_deliveries()

    assert hands.taking == [False, True]
    assert dispatcher.ledger.size == 0


def test_a_worker_that_stops_takes_no_more_when_it_has_room_again() -> None:
    hands = RecordingHands()
    dispatcher = Dispatcher(hands, POLICIES, max_held=100)

    dispatcher.receive(weigh(101), 0.0)
    dispatcher.stop()
    dispatcher.lose_deliveries()

    assert hands.taking == [False]


def test_an_early_acked_delivery_is_acked_when_a_child_takes_it() -> None:
    dispatcher, hands = make()
    first, second = delivery("early"), delivery("early")

    dispatcher.receive(first, 0.0)
    dispatcher.receive(second, 0.0)

    assert [first.tag] == hands.acked


def test_the_ack_waits_for_every_message_that_the_job_sent() -> None:
    dispatcher, hands = make()
    job = dispatcher.receive(delivery(), 0.0)
    dispatcher.clearing.publishing(job.number)
    dispatcher.clearing.publishing(job.number)

    dispatcher.done(1, job.number, Outcome.SUCCESS, 0.1)
    dispatcher.clearing.published(job.number, None)
    acked_too_early = list(hands.acked)
    dispatcher.clearing.published(job.number, None)

    assert acked_too_early == []
    assert len(hands.acked) == 1


def test_a_child_that_asks_hears_of_a_refusal_once_all_is_confirmed() -> None:
    dispatcher, hands = make()
    job = dispatcher.receive(delivery(), 0.0)
    dispatcher.clearing.publishing(job.number)
    dispatcher.clearing.publishing(job.number)
    dispatcher.clearing.asked(1, job.number, 9)

    dispatcher.clearing.published(job.number, "no such queue")
    dispatcher.clearing.published(job.number, None)

    assert hands.answers == [(1, 9, "no such queue")]
    dispatcher.done(1, job.number, Outcome.FAILURE, 0.1)
    dispatcher.clearing.copied(job.number, None, refused=False)
    assert len(hands.acked) == 1


def test_a_result_message_that_is_refused_gives_the_delivery_back() -> None:
    dispatcher, hands = make()
    job = dispatcher.receive(delivery(), 0.0)
    dispatcher.clearing.publishing(job.number)
    dispatcher.done(1, job.number, Outcome.SUCCESS, 0.1)

    dispatcher.clearing.published(job.number, "timed out")

    assert len(hands.requeued) == 1
    assert hands.acked == []


def test_a_job_that_killed_its_child_runs_again_as_a_counted_copy() -> None:
    dispatcher, hands = make()
    job = dispatcher.receive(delivery(), 0.0)

    dispatcher.child_died(1, job.number, "signal 9 (SIGKILL)")
    acked_before_the_copy = list(hands.acked)
    dispatcher.clearing.copied(job.number, None, refused=False)

    assert [("again", job)] == hands.copies
    assert job.crashes == 1
    assert acked_before_the_copy == []
    assert len(hands.acked) == 1


def test_a_job_whose_result_was_being_stored_is_innocent_of_a_death_in_another() -> None:
    steered = Steered()
    first, second, third = steered.short(3)

    crashed = steered.dispatcher.child_died(1, second.number, "signal 9 (SIGKILL)", inside=True)

    assert [second] == crashed
    assert [0, 1, 0] == [job.crashes for job in (first, second, third)]
    assert [first, third] == steered.dispatcher.waiting


def test_a_child_that_dies_while_it_stores_results_counts_for_all_of_them() -> None:
    steered = Steered()
    first, second, third = steered.short(3)

    crashed = steered.dispatcher.child_died(1, second.number, "signal 9 (SIGKILL)")

    assert [first, second] == crashed
    assert [third] == steered.dispatcher.waiting


def test_a_third_crash_is_stored_as_lost_and_dead_lettered() -> None:
    dispatcher, hands = make()
    job = dispatcher.receive(delivery(crashes=2), 0.0)

    dispatcher.child_died(1, job.number, "signal 11 (SIGSEGV)")
    copies_before_the_result = list(hands.copies)
    dispatcher.clearing.stored(job.number)
    dispatcher.clearing.copied(job.number, None, refused=False)

    assert [(job, "FAILURE", "WorkerLostError")] == hands.stores
    assert copies_before_the_result == []
    assert [("dead", job)] == hands.copies
    assert len(hands.acked) == 1


def test_jobs_behind_the_one_that_killed_the_child_are_innocent() -> None:
    dispatcher, hands = make()
    warm = dispatcher.receive(delivery(), 0.0)
    dispatcher.done(1, warm.number, Outcome.SUCCESS, 0.0001)
    killer, behind = dispatcher.receive(delivery(), 0.0), dispatcher.receive(delivery(), 0.0)
    dispatcher.child_started(2)

    dispatcher.child_died(1, killer.number, "signal 9 (SIGKILL)")
    dispatcher.child_ready(2)

    assert behind.crashes == 0
    assert [behind] == hands.running[2]


def test_a_short_job_does_not_wait_behind_one_of_unknown_length() -> None:
    dispatcher, hands = make(2)
    for job in (dispatcher.receive(delivery("once"), 0.0), dispatcher.receive(delivery(), 0.0)):
        assert job.child is not None
        dispatcher.done(
            job.child, job.number, Outcome.SUCCESS, 0.00001 if job.name == "late" else 5
        )
    hands.running.clear()

    dispatcher.receive(delivery("once"), 0.0)
    for _ in range(DEPTH + 2):
        dispatcher.receive(delivery("late"), 0.0)

    sizes = sorted(len(jobs) for jobs in hands.running.values())
    assert sizes == [1, DEPTH]


def short_ones(count: int, children: int = 1) -> tuple[Dispatcher, RecordingHands, list[Job]]:
    """Children with *count* jobs that are known to be short."""
    dispatcher, hands = make(children)
    warm = dispatcher.receive(delivery(), 0.0)
    dispatcher.succeeded(1, [warm.number, 0.0001])
    hands.running.clear()
    hands.acked.clear()
    return dispatcher, hands, [dispatcher.receive(delivery(), 0.0) for _ in range(count)]


def test_jobs_behind_one_that_takes_long_are_taken_back_and_run_elsewhere() -> None:
    dispatcher, hands, (long, *behind) = short_ones(4)

    dispatcher.take_back(1, long.number, dispatcher.turns(1) + 1, 0.02)
    dispatcher.child_started(2)
    dispatcher.child_ready(2)

    assert [long, *behind] == hands.running[1]
    assert behind == [*hands.running[2], *dispatcher.waiting]
    assert [long] == dispatcher.in_hands(1)


def test_nothing_is_put_behind_a_job_that_was_found_to_take_long() -> None:
    dispatcher, _, (long, *_) = short_ones(2)

    dispatcher.take_back(1, long.number, dispatcher.turns(1) + 1, 0.02)
    dispatcher.receive(delivery(), 0.0)

    assert [long] == dispatcher.in_hands(1)


def test_a_job_that_was_begun_before_the_bar_came_through_stays() -> None:
    dispatcher, _, (first, second, third) = short_ones(3)
    bar = dispatcher.turns(1) + 1

    dispatcher.succeeded(1, [first.number, 0.0001])
    dispatcher.take_back(1, second.number, bar, 0.02)

    assert [second] == dispatcher.in_hands(1)
    assert [third] == dispatcher.waiting


def test_a_job_that_comes_back_by_itself_is_taken_back_once() -> None:
    dispatcher, _, (first, second) = short_ones(2)

    dispatcher.take_back(1, first.number, 4, 0.02)
    dispatcher.came_back(1, second.turn)
    dispatcher.came_back(1, second.turn)

    assert [second] == dispatcher.waiting


def test_what_the_slate_says_is_finished_is_acked_once() -> None:
    dispatcher, hands, (first, second, third) = short_ones(3)

    dispatcher.finished(1, second.turn)
    dispatcher.succeeded(1, [first.number, 0.0001, second.number, 0.0001, third.number, 0.0001])

    assert [job.delivery.tag for job in (first, second, third)] == hands.acked
    assert dispatcher.idle


def test_what_waits_while_all_children_are_busy_for_long_is_left_to_others() -> None:
    hands = RecordingHands()
    dispatcher = Dispatcher(hands, POLICIES, window=Window(1))
    dispatcher.child_started(1)
    dispatcher.child_ready(1)
    for _ in range(8):
        job = dispatcher.receive(delivery(), 0.0)
        dispatcher.succeeded(1, [job.number, 0.0001])
    jobs = [dispatcher.receive(delivery("once"), 0.0) for _ in range(3)]
    returned_often = dispatcher.receive(delivery(), 0.0)
    returned_often.delivery.count = 10

    dispatcher.give_back(0.01)
    too_early = list(hands.requeued)
    dispatcher.give_back(0.1)
    on_its_way = dispatcher.receive(delivery(), 0.1)
    dispatcher.give_back(0.2)

    assert [] == too_early
    assert [job.delivery.tag for job in (*jobs[1:], on_its_way)] == hands.requeued
    assert [returned_often] == dispatcher.waiting
    assert [128, 1] == hands.windows


def test_a_worker_whose_window_was_chosen_gives_nothing_back() -> None:
    hands = RecordingHands()
    dispatcher = Dispatcher(hands, POLICIES, window=Window(1, fixed=8))

    for _ in range(8):
        dispatcher.receive(delivery(), 0.0)
    dispatcher.give_back(10.0)

    assert [] == hands.requeued
    assert 8 == len(dispatcher.waiting)


def test_lost_deliveries_that_wait_are_forgotten_and_running_ones_are_not_settled() -> None:
    dispatcher, hands = make()
    running, waiting = dispatcher.receive(delivery(), 0.0), dispatcher.receive(delivery(), 0.0)

    dispatcher.lose_deliveries()
    dispatcher.done(1, running.number, Outcome.SUCCESS, 0.1)

    assert Counter() == hands.settled
    assert dispatcher.ledger.get(waiting.number) is None
    assert len(dispatcher.ledger) == 0


def test_headers_that_are_no_tasks_go_to_the_dead_letters_before_anything_runs() -> None:
    dispatcher, hands = make()
    foreign = Delivery(1, None, "q", Message.of(Properties(headers={"x": 1}), b"{}"))

    job = dispatcher.receive(foreign, 0.0)
    dispatcher.clearing.copied(job.number, None, refused=False)

    assert hands.running == {}
    assert [("dead", job)] == hands.copies
    assert hands.acked == [1]


def test_a_dead_letter_that_has_no_room_for_its_reason_is_left_to_the_broker() -> None:
    dispatcher, hands = make()
    foreign = Delivery(1, None, "q", Message.of(Properties(headers={"x": 1}), b"{}"))
    job = dispatcher.receive(foreign, 0.0)

    dispatcher.clearing.copied(job.number, "headers take 70000 bytes", refused=True)

    assert hands.discarded == [1]
    assert hands.acked == []


def test_a_stopped_worker_hands_out_nothing() -> None:
    dispatcher, hands = make()
    first = dispatcher.receive(delivery(), 0.0)
    dispatcher.receive(delivery(), 0.0)

    dispatcher.stop()
    dispatcher.done(1, first.number, Outcome.SUCCESS, 0.1)

    assert [first] == hands.running[1]
    assert dispatcher.idle


def test_at_the_end_what_was_acked_early_goes_back_or_is_dead_lettered_and_nothing_else() -> None:
    dispatcher, hands = make(children=2)
    late, early = (dispatcher.receive(delivery(name), 0.0) for name in ("late", "early"))
    dispatcher.child_died(2, 0, "killed before it began anything")
    dispatcher.stop()
    dispatcher.child_started(3)
    waiting = [early]
    settled = list(hands.acked)

    dispatcher.abandon("ended when its worker was stopped")
    dispatcher.clearing.copied(early.number, None, refused=False)

    assert late.phase is Phase.SENT
    assert waiting == [job for what, job in hands.copies if what == "back"]
    assert settled == hands.acked == [early.delivery.tag]
    assert early not in list(dispatcher.ledger)


def test_a_job_acked_early_that_is_killed_with_its_worker_leaves_a_dead_letter() -> None:
    dispatcher, hands = make()
    job = dispatcher.receive(delivery("early"), 0.0)
    dispatcher.stop()

    dispatcher.abandon("ended when its worker was stopped")

    assert [("dead", job)] == hands.copies
    assert job.reason == "WorkerLost: ended when its worker was stopped"


def test_a_job_whose_child_was_ended_for_it_is_timed_out_and_not_crashed() -> None:
    dispatcher, hands = make()
    job = dispatcher.receive(delivery(), 0.0)

    dispatcher.doom(job.number, TOO_LONG)
    crashed = dispatcher.child_died(1, job.number, "signal 15 (SIGTERM)")
    dispatcher.clearing.stored(job.number)
    dispatcher.clearing.copied(job.number, None, refused=False)

    assert [] == crashed
    assert 0 == job.crashes
    assert [(job, "FAILURE", "TimeLimitExceeded")] == hands.stores
    assert [("dead", job)] == hands.copies
    assert 1 == len(hands.acked)


def test_a_delivery_that_is_held_for_long_is_replaced_before_it_is_acked() -> None:
    dispatcher, hands = make()
    first, fresh = delivery(), delivery()
    job = dispatcher.receive(first, 100.0)

    dispatcher.renew(99.0)
    too_early = list(hands.claims)
    dispatcher.renew(100.0)
    dispatcher.renew(100.0)
    acked_before_the_copy = list(hands.acked)
    adopted = dispatcher.renewal.adopt(job.number, fresh, 150.0)
    dispatcher.done(1, job.number, Outcome.SUCCESS, 50.0)

    assert [] == too_early
    assert [job] == hands.claims
    assert [] == acked_before_the_copy
    assert adopted
    assert [first.tag, fresh.tag] == hands.acked


def test_what_waits_for_a_child_for_too_long_goes_to_the_end_of_its_queue() -> None:
    dispatcher, hands = make()
    dispatcher.receive(delivery(), 100.0)
    waiting = dispatcher.receive(delivery(), 100.0)

    dispatcher.renew(100.0)
    dispatcher.clearing.copied(waiting.number, None, refused=False)

    assert [("back", waiting)] == hands.copies
    assert [waiting.delivery.tag] == hands.acked
    assert [] == dispatcher.waiting


def test_a_job_that_ends_while_it_is_claimed_waits_for_the_claim() -> None:
    dispatcher, hands = make()
    first, fresh = delivery(), delivery()
    job = dispatcher.receive(first, 100.0)

    dispatcher.renew(100.0)
    dispatcher.done(1, job.number, Outcome.SUCCESS, 50.0)
    acked_in_between = list(hands.acked)
    dispatcher.renewal.adopt(job.number, fresh, 150.0)

    assert [] == acked_in_between
    assert [first.tag, fresh.tag] == hands.acked


def test_a_job_that_ended_while_it_was_claimed_is_forgotten_at_a_cut() -> None:
    dispatcher, hands = make()
    job = dispatcher.receive(delivery(), 100.0)
    dispatcher.renew(100.0)
    dispatcher.done(1, job.number, Outcome.SUCCESS, 50.0)

    dispatcher.lose_deliveries()

    assert Counter() == hands.settled
    assert 0 == len(dispatcher.ledger)


def test_after_a_cut_a_running_job_takes_its_message_up_again() -> None:
    dispatcher, hands = make()
    job = dispatcher.receive(delivery(), 100.0)
    again = delivery()

    dispatcher.lose_deliveries()
    assert dispatcher.renewal.adopt(job.number, again, 150.0)
    dispatcher.done(1, job.number, Outcome.SUCCESS, 50.0)

    assert [again.tag] == hands.acked
    assert not dispatcher.renewal.adopt(job.number, delivery(), 200.0)


def test_a_child_that_has_had_its_share_retires_with_empty_hands() -> None:
    hands = RecordingHands()
    dispatcher = Dispatcher(hands, POLICIES, max_tasks_per_child=2)
    dispatcher.child_started(1)
    dispatcher.child_ready(1)
    jobs = [dispatcher.receive(delivery(), 0.0) for _ in range(3)]

    dispatcher.done(1, jobs[0].number, Outcome.SUCCESS, 0.0001)
    retired_early = list(hands.retired)
    dispatcher.done(1, jobs[1].number, Outcome.SUCCESS, 0.0001)

    assert jobs[:2] == hands.running[1]
    assert [] == retired_early
    assert [1] == hands.retired


# -- what operators decide ---------------------------------------------------------------------


class Steered:
    """A dispatcher with children, and what its operators decided."""

    def __init__(self, children: int = 1) -> None:
        self.hands = RecordingHands()
        self.remembered = Remembered()
        self.dispatcher = Dispatcher(self.hands, POLICIES, remembered=self.remembered)
        for number in range(1, children + 1):
            self.dispatcher.child_started(number)
            self.dispatcher.child_ready(number)

    def decide(self, change: Change) -> None:
        self.remembered.take(change, 0.0)
        self.dispatcher.apply(change)

    def short(self, count: int) -> list[Job]:
        """Jobs that are known to be short, all in the hands of child 1."""
        warm = self.dispatcher.receive(delivery(), 0.0)
        self.dispatcher.succeeded(1, [warm.number, 0.0001])
        self.hands.acked.clear()
        return [self.dispatcher.receive(delivery(), 0.0) for _ in range(count)]


def test_a_revoked_task_ends_as_revoked_and_never_runs() -> None:
    steered = Steered()
    one = delivery()

    steered.decide(Revoke((f"id-{one.tag}",)))
    job = steered.dispatcher.receive(one, 0.0)
    steered.dispatcher.clearing.stored(job.number)

    assert {} == steered.hands.running
    assert [(job, "REVOKED", "TaskRevokedError")] == steered.hands.stores
    assert "revoked" == job.reason
    assert [job] == steered.hands.ends
    assert [one.tag] == steered.hands.acked
    assert 0 == len(steered.dispatcher.ledger)


def test_a_task_that_waits_ends_at_once_when_it_is_revoked() -> None:
    steered = Steered()
    running, waits, stays = (steered.dispatcher.receive(delivery(), 0.0) for _ in range(3))
    held = steered.dispatcher.receive(delivery(eta=0.05), 0.0)

    steered.decide(Revoke((running.id, waits.id, held.id)))

    assert [waits, held] == [job for job, *_ in steered.hands.stores]
    assert [stays] == steered.dispatcher.waiting
    assert [] == steered.dispatcher.held
    assert [running] == steered.dispatcher.active


def test_a_revoked_task_that_lies_behind_another_is_recalled_and_ends() -> None:
    steered = Steered()
    first, second, third = steered.short(3)

    steered.decide(Revoke((second.id,)))
    recalled = list(steered.hands.recalled)
    steered.dispatcher.take_back(1, first.number, steered.dispatcher.turns(1) + 1, 0.02)

    assert [1] == recalled
    assert [second] == [job for job, *_ in steered.hands.stores]
    assert [third] == steered.dispatcher.waiting


def test_a_revoked_task_whose_child_dies_before_it_begins_does_not_run_elsewhere() -> None:
    steered = Steered(2)
    job = steered.dispatcher.receive(delivery(), 0.0)

    steered.decide(Revoke((job.id,)))
    steered.dispatcher.child_died(1, 0, "signal 9 (SIGKILL)")

    assert [job] == [job for job, *_ in steered.hands.stores]
    assert 2 not in steered.hands.running


def test_a_task_acked_early_that_is_revoked_before_it_begins_leaves_nothing_behind() -> None:
    steered = Steered()
    job = steered.dispatcher.receive(delivery("early"), 0.0)
    steered.dispatcher.child_died(1, 0, "signal 9 (SIGKILL)")

    steered.decide(Revoke((job.id,)))
    steered.dispatcher.clearing.stored(job.number)

    assert [job.delivery.tag] == steered.hands.acked
    assert 0 == len(steered.dispatcher.ledger)


def test_a_terminated_task_ends_as_revoked_and_those_behind_it_run_elsewhere() -> None:
    steered = Steered()
    first, second = steered.short(2)
    steered.hands.running.clear()
    steered.hands.running[1] = [first, second]

    done = steered.dispatcher.terminate(first.number, 15)
    crashed = steered.dispatcher.child_died(1, first.number, "signal 15 (SIGTERM)")
    steered.dispatcher.clearing.stored(first.number)

    assert done
    assert [(1, first, 15)] == steered.hands.terminated
    assert [] == crashed
    assert [(first, "REVOKED", "TaskRevokedError")] == steered.hands.stores
    assert ("terminated", 0) == (first.reason, first.crashes)
    assert first.doom is not None
    assert 15 == first.doom.signum
    assert [first.delivery.tag] == steered.hands.acked
    assert [] == steered.hands.copies
    assert [second] == steered.dispatcher.waiting


def test_a_task_that_no_child_has_begun_cannot_be_terminated() -> None:
    steered = Steered()
    _, behind = steered.short(2)
    waiting = steered.dispatcher.receive(delivery("once"), 0.0)

    assert not steered.dispatcher.terminate(behind.number, 15)
    assert not steered.dispatcher.terminate(waiting.number, 15)
    assert not steered.dispatcher.terminate(9999, 15)
    assert behind.doom is None


def test_a_task_that_was_begun_behind_a_terminated_one_is_no_crash() -> None:
    """The signal was for the one before, which ended by itself at that moment."""
    steered = Steered()
    first, second = steered.short(2)

    steered.dispatcher.terminate(first.number, 15)
    steered.dispatcher.succeeded(1, [first.number, 0.0001])
    crashed = steered.dispatcher.child_died(1, second.number, "signal 15 (SIGTERM)")

    assert [] == crashed
    assert [("again", second)] == steered.hands.copies
    assert 0 == second.crashes


def test_what_waits_of_a_paused_queue_is_given_back_and_no_more_is_taken() -> None:
    steered = Steered()
    running, waiting = (steered.dispatcher.receive(delivery(), 0.0) for _ in range(2))
    held = steered.dispatcher.receive(delivery(eta=0.05), 0.0)
    other = delivery()
    other.queue = "other"
    stays = steered.dispatcher.receive(other, 0.0)

    steered.decide(Pause("q"))
    late = steered.dispatcher.receive(delivery(), 0.0)
    for job in (waiting, held, late):
        steered.dispatcher.clearing.copied(job.number, None, refused=False)

    assert {"q": True} == steered.hands.paused
    assert [("back", waiting), ("back", held), ("back", late)] == steered.hands.copies
    assert [job.delivery.tag for job in (waiting, held, late)] == steered.hands.acked
    assert [stays] == steered.dispatcher.waiting
    assert [running] == steered.dispatcher.active
    steered.decide(Resume("q"))
    assert {"q": False} == steered.hands.paused


def test_a_task_over_its_rate_goes_back_and_others_of_its_queue_run_on() -> None:
    steered = Steered(3)
    steered.decide(LimitRate("late", "1/h"))

    first, second = (steered.dispatcher.receive(delivery(), 0.0) for _ in range(2))
    other = steered.dispatcher.receive(delivery("once"), 0.0)

    assert [first, other] == [job for jobs in steered.hands.running.values() for job in jobs]
    assert [("delay", second)] == steered.hands.copies


def test_new_time_limits_hold_for_what_waits_and_not_for_what_runs() -> None:
    steered = Steered()
    running, waiting = (steered.dispatcher.receive(delivery(), 0.0) for _ in range(2))

    steered.decide(LimitTime("late", 5.0, None))

    assert (None, None) == (running.limits.hard, running.limits.soft)
    assert (5.0, None) == (waiting.limits.hard, waiting.limits.soft)


class RandomHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order, a delivery is settled at most once and none is stuck."""

    def __init__(self) -> None:
        super().__init__()
        self.hands = RecordingHands()
        self.remembered = Remembered()
        self.dispatcher = Dispatcher(
            self.hands, POLICIES, window=Window(2), remembered=self.remembered
        )
        self.numbers = itertools.count(1)
        self.alive: dict[int, bool] = {}
        self.now = 1000.0
        self.delivered: dict[int, Delivery] = {}
        self.lost: set[int] = set()
        self.unconfirmed: list[int] = []

    def held(self, child: int) -> list[Job]:
        return self.dispatcher.in_hands(child)

    @rule()
    def start_child(self) -> None:
        if len(self.alive) < 4:
            number = next(self.numbers)
            self.alive[number] = False
            self.dispatcher.child_started(number)

    @precondition(lambda self: False in self.alive.values())
    @rule()
    def child_becomes_ready(self) -> None:
        child = next(number for number, ready in self.alive.items() if not ready)
        self.alive[child] = True
        self.dispatcher.child_ready(child)

    @rule(
        name=st.sampled_from(["late", "early", "once", "unknown"]),
        crashes=st.integers(0, 2),
        wait=st.sampled_from([None, None, None, 0.05, 30.0]),
        expired=st.booleans(),
    )
    def deliver(self, name: str, crashes: int, wait: float | None, expired: bool) -> None:
        one = delivery(
            name,
            crashes=crashes,
            eta=None if wait is None else self.now + wait,
            expires=self.now - 1 if expired and wait is None else None,
        )
        self.delivered[one.tag] = one
        self.dispatcher.receive(one, self.now)

    def decide(self, change: Change) -> None:
        self.remembered.take(change, self.now)
        self.dispatcher.apply(change)

    @precondition(lambda self: len(self.dispatcher.ledger) > 0)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(list(self.dispatcher.ledger)))
        self.decide(Revoke((job.id,)))

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.decide(Pause("q") if paused else Resume("q"))

    @rule(name=st.sampled_from(["late", "early"]), rate=st.sampled_from(["", "5/h", "100/s"]))
    def limit_rate(self, name: str, rate: str) -> None:
        self.decide(LimitRate(name, rate))

    @rule(hard=st.sampled_from([None, 5.0]), soft=st.sampled_from([None, 5.0]))
    def limit_time(self, hard: float | None, soft: float | None) -> None:
        self.decide(LimitTime("late", hard, soft))

    @precondition(lambda self: self.dispatcher.active)
    @rule(data=st.data(), dies=st.booleans())
    def terminate(self, data: st.DataObject, dies: bool) -> None:
        job = data.draw(st.sampled_from(self.dispatcher.active))
        child = job.child
        assert child is not None
        crashes = {each.number: each.crashes for each in self.dispatcher.ledger}
        if self.dispatcher.terminate(job.number, 15) and dies:
            del self.alive[child]
            assert [] == self.dispatcher.child_died(child, job.number, "signal 15")
            for each in self.dispatcher.ledger:
                assert each.crashes == crashes[each.number]

    @precondition(lambda self: self.hands.recalled)
    @rule()
    def recall(self) -> None:
        child = self.hands.recalled.pop(0)
        if child in self.alive and self.held(child):
            begun = self.held(child)[0].number
            self.dispatcher.take_back(child, begun, self.dispatcher.turns(child) + 1, 0.02)

    @precondition(lambda self: any(self.held(child) for child in self.alive))
    @rule(data=st.data(), outcome=st.sampled_from([o for o in Outcome if o is not Outcome.LOST]))
    def finish(self, data: st.DataObject, outcome: Outcome) -> None:
        child = data.draw(st.sampled_from([c for c in self.alive if self.held(c)]))
        job = self.held(child)[0]
        self.dispatcher.done(child, job.number, outcome, data.draw(st.sampled_from([0.0001, 2.0])))

    @precondition(lambda self: any(self.held(child) for child in self.alive))
    @rule(data=st.data(), told=st.booleans(), count=st.integers(1, 3))
    def succeed(self, data: st.DataObject, told: bool, count: int) -> None:
        child = data.draw(st.sampled_from([c for c in self.alive if self.held(c)]))
        jobs = self.held(child)[:count]
        if not told:
            self.dispatcher.finished(child, jobs[-1].turn)
        self.dispatcher.succeeded(child, [x for job in jobs for x in (job.number, 0.0001)])

    @precondition(lambda self: any(len(self.held(child)) > 1 for child in self.alive))
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        child = data.draw(st.sampled_from([c for c in self.alive if len(self.held(c)) > 1]))
        first, second = self.held(child)[:2]
        before = self.dispatcher.turns(child) + 1
        self.dispatcher.take_back(child, first.number, before, 0.02)
        self.dispatcher.came_back(child, second.turn)

    @rule()
    def give_back(self) -> None:
        self.dispatcher.give_back(self.now)

    @precondition(lambda self: any(self.held(child) for child in self.alive))
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        child = data.draw(st.sampled_from([c for c in self.alive if self.held(c)]))
        job = self.held(child)[0]
        assert self.dispatcher.clearing.publishing(job.number)
        self.unconfirmed.append(job.number)

    @precondition(lambda self: self.unconfirmed)
    @rule(refusal=st.sampled_from([None, None, "refused"]))
    def confirm(self, refusal: str | None) -> None:
        self.dispatcher.clearing.published(self.unconfirmed.pop(0), refusal)

    @precondition(lambda self: self.hands.stores)
    @rule()
    def store(self) -> None:
        self.dispatcher.clearing.stored(self.hands.stores.pop(0)[0].number)

    @precondition(lambda self: self.hands.copies)
    @rule(error=st.sampled_from([None, None, "refused", "unconfirmed"]))
    def copy(self, error: str | None) -> None:
        job = self.hands.copies.pop(0)[1]
        self.dispatcher.clearing.copied(job.number, error, refused=error == "refused")

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), inside=st.booleans())
    def kill_child(self, data: st.DataObject, inside: bool) -> None:
        child = data.draw(st.sampled_from(sorted(self.alive)))
        begun = data.draw(st.sampled_from([0, *(job.number for job in self.held(child))]))
        del self.alive[child]
        self.dispatcher.child_died(child, begun, "signal 9", inside=inside)

    @rule()
    def lose_connection(self) -> None:
        self.lost |= {tag for tag in self.delivered if not self.hands.settled[tag]}
        self.dispatcher.lose_deliveries()

    @rule(age=st.sampled_from([0.0, 100.0]))
    def renew(self, age: float) -> None:
        self.dispatcher.renew(self.now - age)

    @precondition(lambda self: self.hands.claims)
    @rule(refused=st.booleans())
    def claim(self, refused: bool) -> None:
        job = self.hands.claims.pop(0)
        if refused:
            self.dispatcher.renewal.refused(job.number)
        else:
            copy = delivery(job.name)
            if self.dispatcher.renewal.adopt(job.number, copy, self.now):
                self.delivered[copy.tag] = copy

    @rule(seconds=st.sampled_from([0.01, 0.1, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.dispatcher.tick(self.now)

    @invariant()
    def nothing_is_settled_twice(self) -> None:
        assert all(count == 1 for count in self.hands.settled.values())

    @invariant()
    def nothing_that_was_lost_is_settled(self) -> None:
        assert not self.lost & set(self.hands.settled)

    @invariant()
    def no_child_holds_more_than_the_depth(self) -> None:
        assert all(len(self.held(child)) <= DEPTH for child in self.alive)

    @invariant()
    def nothing_waits_that_may_not_run(self) -> None:
        held = [job for _, job in self.dispatcher.held]
        for job in (*self.dispatcher.waiting, *held):
            assert not self.remembered.is_revoked(job.id)
            assert "q" not in self.remembered.paused

    @invariant()
    def no_work_waits_while_a_child_is_idle(self) -> None:
        idle = [c for c, ready in self.alive.items() if ready and not self.held(c)]
        due = self.dispatcher.waiting
        assert not (idle and due)

    def teardown(self) -> None:
        """Let everything end well: then every delivery is settled once, or was lost."""
        self.start_child()
        for child, ready in self.alive.items():
            if not ready:
                self.dispatcher.child_ready(child)
        self.now += 1000
        for _ in range(10_000):
            self.dispatcher.tick(self.now)
            if self.unconfirmed:
                self.dispatcher.clearing.published(self.unconfirmed.pop(0), None)
            elif self.hands.stores:
                self.store()
            elif self.hands.claims:
                self.claim(refused=False)
            elif self.hands.copies:
                self.copy(error=None)
            elif busy := [c for c in self.alive if self.held(c)]:
                job = self.held(busy[0])[0]
                self.dispatcher.done(busy[0], job.number, Outcome.SUCCESS, 0.1)
            else:
                break
        assert len(self.dispatcher.ledger) == 0
        settled_or_lost = set(self.hands.settled) | self.lost
        assert set(self.delivered) == settled_or_lost


TestRandomHistory = RandomHistory.TestCase
TestRandomHistory.settings = settings(
    max_examples=150 * int(os.environ.get("TASKQ_TEST_SCALE", "1")) ** 2,
    stateful_step_count=40,
    deadline=None,
)
