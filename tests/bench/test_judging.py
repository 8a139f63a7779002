"""What benchmarks make of their figures: drains, idle children, medians, rules."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.figures import Kept, Measured
from benchmarks.rows.fairness import Run, longest_idle
from benchmarks.table import Row, Rule, Side, medians_of, times, times_best
from benchmarks.watch import Look, drain_time


def test_a_drain_counts_from_the_first_ack_to_the_last():
    counts = [9, 9, 9, 5, 1, 0, 0]

    assert drain_time([Look(at, count) for at, count in enumerate(counts)]) == 3


def test_a_queue_that_was_empty_for_a_moment_was_not_drained():
    counts = [2, 1, 0, 20, 4, 0]

    assert drain_time([Look(at, count) for at, count in enumerate(counts)]) == 5


def test_a_child_without_work_is_idle_as_long_as_a_task_waits():
    busy = [Run("a", 0, 5), Run("a", 5, 6)]
    idle = [Run("b", 0, 1), Run("b", 1.5, 2)]

    assert longest_idle([*busy, *idle], sent=0, children=2) == 3  # b could have run the one at 5


def test_a_child_that_has_no_work_because_there_is_none_is_not_idle():
    runs = [Run("a", 0, 5), Run("b", 0.25, 1)]

    assert longest_idle(runs, sent=0, children=2) == 0.25


def test_nobody_is_idle_before_all_tasks_are_sent():
    runs = [Run("a", 1, 5), Run("b", 4, 5)]

    assert longest_idle(runs, sent=3, children=2) == 1


def test_a_child_that_never_ran_anything_was_idle_until_the_last_began():
    runs = [Run("a", 0, 1), Run("a", 1, 2)]

    assert longest_idle(runs, sent=0, children=2) == 1


def test_a_rule_is_judged_by_medians_and_only_if_all_sides_were_measured():
    medians = {"taskq": medians_of([{"rate": 30.0}, {"rate": 90.0}, {"rate": 60.0}])}
    rule = Rule("times celery", times("rate", "celery"), 15)

    assert rule.judge(medians) is None

    verdict = rule.judge(medians | {"celery": {"rate": 5.0}})
    assert verdict is not None
    assert (verdict.value, verdict.met) == (12, False)


def test_the_best_peer_is_the_best_of_all_of_them():
    ratio = times_best("rate", ["slow", "fast"])

    assert ratio({"taskq": {"rate": 8}, "slow": {"rate": 1}, "fast": {"rate": 4}}) == 2
    with pytest.raises(KeyError):
        ratio({"taskq": {"rate": 8}, "slow": {"rate": 1}})


@pytest.mark.parametrize(("value", "met"), [(0.4, True), (0.41, False), (0, True)])
def test_a_rule_of_at_most_is_met_up_to_its_bound(value: float, met: bool):
    verdict = Rule("of it", lambda _: value, 0.4, at_most=True).judge({})

    assert verdict is not None
    assert verdict.met is met


def test_figures_of_another_scale_are_kept_apart(tmp_path: Path):
    row = Row("1", "a", "b", [Side("taskq", lambda _: {})], [])
    file = tmp_path / "figures.json"
    Kept(file, 1.0).put(row, "taskq", Measured(datetime.now(UTC), [{"rate": 1.0}]))

    assert Kept(file, 1.0).medians(row) == {"taskq": {"rate": 1.0}}
    assert Kept(file, 0.1).medians(row) == {}
