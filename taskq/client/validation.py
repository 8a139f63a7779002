"""Checking a task's arguments and result against its annotations, for `pydantic=True`.

The worker validates; the caller only turns models into plain data.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, validate_call

from taskq.errors import InvalidArguments


class Validation:
    """The annotations of *function*, which runs as task *name*, ready to be applied."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
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


def plain(value: Any) -> Any:
    """*value* with every pydantic model in it, also inside lists and mappings, as plain data."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value
