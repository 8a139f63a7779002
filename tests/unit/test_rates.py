"""How often a task may begin, and how messages that must wait come and go meanwhile."""

import heapq
import random
from collections import Counter

import pytest

from taskq.worker.gate import LONGEST_HOLD
from taskq.worker.rates import LONGEST, Bucket


def test_one_token_is_kept_however_long_nobody_comes() -> None:
    bucket = Bucket(10)

    taken = [bucket.take(now, now) for now in (100.0, 100.05, 100.1, 200.0, 200.05)]

    assert [100.0, None, 100.1, 200.0, None] == taken


def test_a_token_may_be_taken_ahead_as_far_as_one_would_wait_for_it() -> None:
    bucket = Bucket(10)

    assert 100.0 == bucket.take(100.0, 100.25)
    assert [100.1, 100.2, None] == [pytest.approx(bucket.take(100.0, 100.25)) for _ in range(3)]


def test_a_clock_that_is_put_back_stops_nothing() -> None:
    bucket = Bucket(10)
    bucket.take(10_000.0, 10_000.0)
    bucket.come_back(10_000.0)

    back = bucket.come_back(100.0)

    assert 100.0 == bucket.take(100.0, 100.25)
    assert back <= 100.0 + LONGEST


def test_messages_come_back_one_after_the_other_and_not_too_late() -> None:
    bucket = Bucket(10)
    bucket.take(100.0, 100.0)

    first = [bucket.come_back(100.0) for _ in range(4)]
    many = [bucket.come_back(100.0) for _ in range(100_000)]

    assert [100.1, 100.1 + 0.1 / 3, 100.1 + 0.2 / 3, 100.2] == pytest.approx(first)
    assert max(many) <= 100.0 + LONGEST
    assert len(set(many)) > LONGEST * 10  # not all at once either


def test_where_tokens_are_rare_somebody_looks_in_now_and_then() -> None:
    bucket = Bucket(1 / 3600)
    bucket.take(100.0, 100.0)

    assert [115.0, 130.0] == [bucket.come_back(100.0) for _ in range(2)]


class Fleet:
    """Workers that share a queue and a ladder of delays, as a broker would have them."""

    def __init__(self, rate: float, messages: int, workers: int) -> None:
        self.chance = random.Random(1)
        self.rate = rate
        self.buckets = [Bucket(rate) for _ in range(workers)]
        #: When they come to a worker, at first as fast as it takes them.
        self.queue = [(number / 4000, number) for number in range(messages)]
        self.begun: list[float] = []
        self.journeys: Counter[int] = Counter()

    def run(self, until: float) -> None:
        while self.queue and self.queue[0][0] < until:
            now, number = heapq.heappop(self.queue)
            bucket = self.chance.choice(self.buckets)
            token = bucket.take(now, now + LONGEST_HOLD)
            if token is not None:
                self.begun.append(token)
                continue
            self.journeys[number] += 1
            delay = (bucket.come_back(now) - now) // LONGEST_HOLD * LONGEST_HOLD
            late = self.chance.random() * 0.01
            heapq.heappush(self.queue, (now + delay + late, number))

    def pace(self, since: float, until: float) -> float:
        """How many began each second, as a part of what one worker's limit allows."""
        return sum(since <= at < until for at in self.begun) / (until - since) / self.rate


@pytest.mark.parametrize("rate", [0.5, 1, 10, 100, 1000])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_each_worker_of_a_fleet_reaches_its_rate_and_few_journeys_are_in_vain(
    rate: float, workers: int
) -> None:
    seconds = 100 / rate
    fleet = Fleet(rate, int(200 * workers), workers)

    fleet.run(seconds)

    assert 0.85 * workers <= fleet.pace(0, seconds) <= 1.02 * workers
    # One for each at first, and then three for each token.
    assert fleet.journeys.total() <= 200 * workers + 3.3 * len(fleet.begun)


def test_a_flood_moves_each_message_seldom() -> None:
    fleet = Fleet(10, 100_000, 1)

    fleet.run(2 * LONGEST)

    assert fleet.pace(0, 2 * LONGEST) == pytest.approx(1, abs=0.02)
    assert fleet.journeys.total() <= 4 * 100_000


def test_a_worker_that_joins_finds_messages_and_one_that_leaves_strands_none() -> None:
    fleet = Fleet(10, 20_000, 1)

    fleet.run(60)
    fleet.buckets.append(Bucket(10))
    fleet.run(160)
    del fleet.buckets[0]
    fleet.run(260)

    assert fleet.pace(0, 60) == pytest.approx(1, abs=0.05)
    assert fleet.pace(60, 160) > 1.8
    assert fleet.pace(160, 260) == pytest.approx(1, abs=0.1)
