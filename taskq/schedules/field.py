"""One field of a crontab: from what people write to the numbers that they mean."""

import re
from collections.abc import Iterable
from typing import NamedTuple

#: What a field may be given as.
Cronspec = int | str | Iterable[int]

_PART = re.compile(r"(?:(?P<all>\*)|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>[0-9]+))?")


class Field(NamedTuple):
    """A field by its name, its lowest and highest number, and the words for the numbers."""

    name: str
    lowest: int
    highest: int
    words: tuple[str, ...] = ()

    def read(self, given: Cronspec | None) -> tuple[str, tuple[int, ...]]:
        """*given* as text, and its numbers in order; None is `*`.

        ValueError or TypeError for what is no such field; it names the field and the mistake.
        """
        if given is None:
            given = "*"
        if isinstance(given, int):
            given = (given,)
        if isinstance(given, str):
            numbers = {number for part in given.split(",") for number in self._part(part, given)}
            return "".join(given.split()), tuple(sorted(numbers))
        numbers = self._numbers(given)
        if len(numbers) == self.highest - self.lowest + 1:
            return "*", tuple(sorted(numbers))
        return ",".join(map(str, sorted(numbers))), tuple(sorted(numbers))

    def _numbers(self, given: Iterable[int]) -> set[int]:
        try:
            numbers = set(given)
        except TypeError:
            raise TypeError(
                f"{self.name}={given!r}: give a number, text or numbers in a list"
            ) from None
        if not numbers:
            raise ValueError(f"{self.name} is empty: leave it out to have each {self._one}")
        for number in numbers:
            if not isinstance(number, int):
                raise TypeError(f"{self.name} lists {number!r}, which is no whole number")
            self._within(number, given)
        return numbers

    def _part(self, part: str, given: str) -> list[int]:
        """The numbers of one *part*, of which commas are between."""
        found = _PART.fullmatch(part.strip())
        if found is None:
            raise self._error(given, f"{part!r} is not understood")
        low, high, step = found["low"], found["high"], found["step"]
        if low is None:
            numbers = list(range(self.lowest, self.highest + 1))
        elif high is None:
            numbers = [self._number(low, given)]
        else:
            numbers = self._range(self._number(low, given), self._number(high, given))
        if step is None:
            return numbers
        if low is not None and high is None:
            raise self._error(given, f"a step needs a range: {low}-{self.highest}/{step}")
        if int(step) == 0:
            raise self._error(given, "a step is 1 or more")
        return numbers[:: int(step)]

    def _range(self, low: int, high: int) -> list[int]:
        """From *low* to *high*, past the highest and on from the lowest if *high* is before it."""
        if low <= high:
            return list(range(low, high + 1))
        return [*range(low, self.highest + 1), *range(self.lowest, high + 1)]

    def _number(self, text: str, given: str) -> int:
        if text.isdecimal():
            return self._within(int(text), given)
        for number, word in enumerate(self.words, self.lowest):
            if len(text) >= 3 and word.startswith(text.lower()):
                return number
        raise self._error(given, f"{text!r} is not understood")

    def _within(self, number: int, given: object) -> int:
        if not self.lowest <= number <= self.highest:
            sunday = "; Sunday is 0" if self.name == "day_of_week" and number == 7 else ""
            raise self._error(
                given, f"{number} is not from {self.lowest} to {self.highest}{sunday}"
            )
        return number

    def _error(self, given: object, problem: str) -> ValueError:
        return ValueError(f"{self.name}={given!r}: {problem}")

    @property
    def _one(self) -> str:
        return self.name.partition("_")[0]


MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
DAY_OF_WEEK = Field(
    "day_of_week",
    0,
    6,
    ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"),
)
DAY_OF_MONTH = Field("day_of_month", 1, 31)
MONTH_OF_YEAR = Field(
    "month_of_year",
    1,
    12,
    (
        *("january", "february", "march", "april", "may", "june", "july", "august"),
        *("september", "october", "november", "december"),
    ),
)
