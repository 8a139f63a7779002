"""What the arguments of commands may be: each kind reads what was sent, or says what it wants.

Senders are anybody; which command takes which arguments is the table in `commands`.
"""

import signal
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from taskq.control.base import CommandError
from taskq.control.memory import texts
from taskq.rate import parse_rate

#: As much as this of what was sent is repeated in an error.
_SHOWN = 80
#: So many children more, or less, at a time.
_MOST_CHILDREN = 1000
#: A year: what limits the time of a task, in seconds.
_LONGEST = 366 * 86_400.0
#: The longest name of a task, a queue or a task's run, in bytes.
_LONGEST_NAME = 255


class _Unfit(ValueError):
    """A value is not what it may be."""


class Kind(NamedTuple):
    """What an argument may be, in *words*; *read* makes it that, or raises ValueError."""

    words: str
    read: Callable[[Any], Any]


class Argument(NamedTuple):
    """A keyword argument of a command; one that is required has no default."""

    name: str
    kind: Kind
    default: Any = None
    required: bool = False


def read(argument: Argument, given: Mapping[str, Any]) -> Any:
    """What *given* says of *argument*; CommandError says what is wrong with it."""
    value = given.get(argument.name)
    if value is None:
        if argument.required:
            raise CommandError(f"{argument.name} is missing: it must be {argument.kind.words}")
        return argument.default
    try:
        return argument.kind.read(value)
    except ValueError as error:
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        told = str(error) or f"{argument.name} must be {argument.kind.words}, not {shown}"
        raise CommandError(told) from None


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise _Unfit
    if len(value.encode()) > _LONGEST_NAME:
        raise _Unfit
    return value


def _names(value: Any) -> tuple[str, ...]:
    several = [value] if isinstance(value, str) else value
    if not isinstance(several, list | tuple):
        raise _Unfit
    return tuple(dict.fromkeys(_name(each) for each in several))


def _ids_or_keys(value: Any) -> tuple[str, ...]:
    """As `_names`; once workers sent a mapping whose keys were the ids."""
    return _names(list(value) if isinstance(value, Mapping) else value)


def _flag(value: Any) -> bool:
    if value not in (True, False):
        raise _Unfit
    return bool(value)


def _whole(least: int, most: int) -> Kind:
    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise _Unfit
        return value

    return Kind(f"a whole number from {least} to {most:,}", read)


def _seconds(value: Any) -> float | None:
    """0 is none, as with Celery."""
    if type(value) not in (int, float) or not 0 <= value <= _LONGEST:
        raise _Unfit
    return float(value) or None


def _rate(value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise _Unfit
    parse_rate(value)
    return str(value)


def _signal(value: Any) -> int:
    if isinstance(value, str):
        name = value.upper()
        known = signal.Signals.__members__
        number = known.get(name) or known.get(f"SIG{name}")
    else:
        number = next((each for each in signal.Signals if value == each), None)
    if number is None or isinstance(value, bool):
        raise _Unfit
    return int(number)


def _stamps(value: Any) -> dict[str, tuple[str, ...]]:
    """As a mapping, or as texts `name=value`."""
    if isinstance(value, list | tuple):
        pairs = [_name(each).partition("=")[::2] for each in value]
        value = {name: [v for n, v in pairs if n == name] for name, _ in pairs}
    if not isinstance(value, Mapping) or not value:
        raise _Unfit
    found = {_name(name): _names(texts(values)) for name, values in value.items()}
    if not all(found.values()):
        raise _Unfit
    return found


NAME = Kind("a text of 1 to 255 bytes", _name)
#: Physical ones: what callers say is made that before it is sent.
QUEUE = Kind("a queue's name of 1 to 255 bytes", _name)
NAMES = Kind("a text of 1 to 255 bytes, or a list of such", _names)
IDS = Kind("a list of ids", _ids_or_keys)
FLAG = Kind("true or false", _flag)
SECONDS = Kind("a number of seconds, 0 to a year", _seconds)
RATE = Kind("a rate, as '10/s', '100/m', '5/h' or a number for each second", _rate)
SIGNAL = Kind("a signal's name or number, as 'SIGTERM'", _signal)
STAMPS = Kind("a mapping of names to values, or a list of texts 'name=value'", _stamps)
SEVERAL = _whole(1, _MOST_CHILDREN)
CHILDREN = _whole(0, _MOST_CHILDREN)
ANYTHING = Kind("anything", lambda value: value)
