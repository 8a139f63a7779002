"""What a setting's value may be: its annotation, read for pydantic's engine, which checks values.

Only the engine, `pydantic_core`: pydantic itself and a model of all settings would take half of a
program's start.  A kind is made ready when its first value is checked.  Which settings there are,
and what is said of a wrong value, is the business of `settings`.
"""

import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic_core import PydanticKnownError, SchemaValidator, ValidationError

from taskq import url

#: How the engine wants a kind to be told.
_Schema = dict[str, Any]


class Limits:
    """Of a number or a text, in pydantic's words: `gt`, `ge`, `le`, `min_length`."""

    def __init__(self, **limits: int) -> None:
        self._limits = limits

    def around(self, schema: _Schema) -> _Schema:
        """The kind *schema* within these limits."""
        return schema | self._limits


class Before:
    """A function that makes of a value what the kind is asked about."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def around(self, schema: _Schema) -> _Schema:
        """The kind *schema*, asked after the function."""
        return _calling("function-before", self._function, schema)


class After:
    """A function of a value that fits its kind: it returns what is kept, ValueError if nothing."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def around(self, schema: _Schema) -> _Schema:
        """The kind *schema*, asked before the function."""
        return _calling("function-after", self._function, schema)


class WrongValue(ValueError):
    """A value is not of its kind; the text says which part of it, and why."""


def checked(name: str, kind: Any, value: Any) -> Any:
    """*value*, which is called *name*, as the annotation *kind* wants it; else WrongValue."""
    try:
        return _validator(kind).validate_python(value)
    except ValidationError as error:
        raise WrongValue(_explain(name, error)) from None


@cache
def _validator(kind: Any) -> SchemaValidator:
    schema: Any = _schema(kind)
    return SchemaValidator(schema)


def _schema(kind: Any) -> _Schema:
    """As pydantic would tell it, for the annotations that settings have."""
    inner = get_args(kind)
    match get_origin(kind):
        case origin if origin is Annotated:
            schema = _schema(inner[0])
            for each in kind.__metadata__:
                schema = each.around(schema)
            return schema
        case origin if origin is Literal:
            return {"type": "literal", "expected": list(inner)}
        case origin if origin in (Union, types.UnionType):
            choices = [_schema(each) for each in inner if each is not types.NoneType]
            one = choices[0] if len(choices) == 1 else {"type": "union", "choices": choices}
            return {"type": "nullable", "schema": one} if types.NoneType in inner else one
        case origin if origin is tuple:
            items = [_schema(inner[0])]
            return {"type": "tuple", "items_schema": items, "variadic_item_index": 0}
        case origin if origin is dict:
            keys, values = map(_schema, inner)
            return {"type": "dict", "keys_schema": keys, "values_schema": values}
    if hasattr(kind, "_fields"):
        return _record(kind)
    return {"type": "any" if kind is Any else kind.__name__}


def _record(kind: Any) -> _Schema:
    """A NamedTuple whose fields all have defaults; given as one, or as a mapping."""

    def fields(value: Any) -> Any:
        if isinstance(value, kind):
            return value._asdict()
        if isinstance(value, Mapping):
            return value
        raise PydanticKnownError("model_type", {"class_name": kind.__name__})

    schemas = {
        name: {"type": "typed-dict-field", "required": False, "schema": _schema(each)}
        for name, each in kind.__annotations__.items()
    }
    mapping = {"type": "typed-dict", "fields": schemas, "extra_behavior": "forbid"}
    made = _calling("function-after", lambda found: kind(**found), mapping)
    return _calling("function-before", fields, made)


def _calling(when: str, function: Callable[[Any], Any], schema: _Schema) -> _Schema:
    return {"type": when, "function": {"type": "no-info", "function": function}, "schema": schema}


def _explain(name: str, error: ValidationError) -> str:
    lines = []
    for each in error.errors(include_url=False):
        path = ".".join(str(part) for part in (name, *each["loc"]))
        given = url.masked(repr(each["input"])[:200])
        lines.append(f"{path} = {given}: {each['msg']}")
    return "; ".join(lines)
