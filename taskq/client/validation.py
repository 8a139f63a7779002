"""Checking a task's arguments and result against its annotations, for `pydantic=True`.

The worker validates; the caller only turns models into plain data, and has no need of pydantic for
it unless it made some.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic_core import ValidationError

from taskq.errors import InvalidArguments


class Validation:
    """The annotations of *function*, which runs as task *name*, ready to be applied."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        from pydantic import ConfigDict, TypeAdapter, validate_call

        @functools.wraps(function)
        def given(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return args, kwargs

        self._name = name
        self._parameters = list(inspect.signature(function).parameters)
        self._given = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(given)
        hints = get_type_hints(function, include_extras=True)
        self._result = TypeAdapter(hints["return"]) if "return" in hints else None

    def arguments(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """*args* and *kwargs* as the annotations want them; InvalidArguments naming the field."""
        try:
            return self._given(*args, **kwargs)
        except ValidationError as error:
            raise InvalidArguments(self._explain(error, "arguments")) from None

    def result(self, value: Any) -> Any:
        """*value* checked against the return annotation, as plain data that JSON can hold."""
        if self._result is None:
            return plain(value)
        try:
            return self._result.dump_python(self._result.validate_python(value), mode="json")
        except ValidationError as error:
            raise InvalidArguments(self._explain(error, "result")) from None

    def _explain(self, error: ValidationError, what: str) -> str:
        wrong = []
        for each in error.errors(include_url=False):
            first, *rest = each["loc"] or ("",)
            if what == "arguments" and isinstance(first, int) and first < len(self._parameters):
                first = self._parameters[first]
            path = ".".join(str(part) for part in (first, *rest) if part != "")
            wrong.append(f"{path}: {each['msg']}" if path else each["msg"])
        return f"the {what} of {self._name} do not fit its annotations: {'; '.join(wrong)}"


def load() -> None:
    """Import what validates, so that the processes forked from this one need not."""
    from pydantic import TypeAdapter, validate_call  # noqa: F401


def plain(value: Any) -> Any:
    """*value* with every pydantic model in it, also inside lists and mappings, as plain data."""
    # While nobody has imported it, nothing is a model.
    model = getattr(sys.modules.get("pydantic.main"), "BaseModel", ())
    return _plain(value, model)


def _plain(value: Any, model: Any) -> Any:
    if isinstance(value, model):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(each, model) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, model) for each in value]
    return value
