"""Rows of the table, as values: who is measured in a row, and what the figures must show."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.contenders import Contender, Setup
from benchmarks.lab import Lab

#: What one run of one side found, by name: "tasks/s", "p50 ms".
Figures = Mapping[str, float]

#: The medians of all sides that were measured, by the side's name.
Medians = Mapping[str, Figures]


@dataclass(frozen=True)
class Side:
    """One of those that are measured in turn.

    *contender* and *setup* are for the report; the bare clients, which show the limit, have none.
    """

    name: str
    run: Callable[[Lab], Figures]
    contender: Contender | None = None
    setup: Setup | None = None

    @property
    def peer(self) -> bool:
        """Whether it needs the peers to be installed."""
        return self.contender is not None and self.contender.peer


@dataclass(frozen=True)
class Rule:
    """What a row promises: *value* of the medians is at least, or at most, *bound*.

    *words* say what the value is: "times celery".  *value* raises KeyError for what was not
    measured.
    """

    words: str
    value: Callable[[Medians], float]
    bound: float
    at_most: bool = False

    def judge(self, medians: Medians) -> "Verdict | None":
        """Whether it holds; None if a side that it speaks of was not measured."""
        try:
            value = self.value(medians)
        except (KeyError, ValueError):
            return None
        return Verdict(self, value)

    @property
    def asked(self) -> str:
        """The bound in writing."""
        return f"{'≤' if self.at_most else '≥'} {shown(self.bound)}"


@dataclass(frozen=True)
class Verdict:
    """A rule, and the value that was found."""

    rule: Rule
    value: float

    @property
    def met(self) -> bool:
        """Whether the rule holds."""
        return self.margin >= 1

    @property
    def margin(self) -> float:
        """How many times better than asked it is."""
        bound, value = self.rule.bound, self.value
        better, worse = (bound, value) if self.rule.at_most else (value, bound)
        return better / worse if worse else float("inf")


@dataclass(frozen=True)
class Row:
    """One line of the table: *sides* that run in turn, and the *rules* for their medians.

    *name* is what it is chosen by, *title* a few words for it; *notes* are what a reader must know
    to believe it.
    """

    name: str
    title: str
    workload: str
    sides: Sequence[Side]
    rules: Sequence[Rule]
    notes: str = ""


def medians_of(runs: Sequence[Figures]) -> Figures:
    """The middle value of each figure."""
    return {name: statistics.median([run[name] for run in runs]) for name in runs[0]}


def times(figure: str, than: str, side: str = "taskq") -> Callable[[Medians], float]:
    """How many times the *figure* of *side* is that of the side *than*."""
    return lambda medians: medians[side][figure] / medians[than][figure]


def times_best(figure: str, than: Sequence[str]) -> Callable[[Medians], float]:
    """How many times taskq's *figure* is that of the best side of *than* that was measured.

    All of them have to be there: a best of some would flatter.
    """
    return lambda medians: medians["taskq"][figure] / max(medians[each][figure] for each in than)


def own(figure: str, to: str | None = None) -> Callable[[Medians], float]:
    """taskq's *figure*, or how many times it is taskq's figure *to*."""
    return lambda medians: medians["taskq"][figure] / (medians["taskq"][to] if to else 1)


def shown(value: float) -> str:
    """*value* with three digits that count, or as a whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
