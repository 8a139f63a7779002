"""A setting that can be set does something: somebody outside the settings' own room reads it."""

import ast
from collections.abc import Iterator
from dataclasses import fields
from typing import Literal, get_args, get_origin

from taskq.settings import DEFAULTS, Settings
from taskq.worker.manifest import WORKER_SETTINGS
from tests.house.source import assert_none, modules

#: What holds settings where they are read: an app's, a worker's in the manifest, an adapter's.
_APPS, _WORKERS, _ADAPTERS = {"conf", "_conf"}, {"settings"}, {"options", "_options"}

#: Other values than the default, where that is no number.
_OTHER = {
    "broker_url": "amqp://there",
    "broker_use_ssl": True,
    "result_backend": "disabled://",
    "result_serializer": "msgpack",
    "result_accept_content": ("json",),
    "result_backend_transport_options": {"global_keyprefix": "x"},
}


def test_every_setting_is_read_by_somebody():
    idle = [
        name
        for name in DEFAULTS
        if not _has_one_value(Settings.__annotations__[name])
        if not _is_read(name, _APPS)
        if not (name in WORKER_SETTINGS and _is_read(name, _WORKERS))
        if not any(_is_read(option, _ADAPTERS) for option in _passed_on(name))
    ]

    assert_none(idle)


def test_every_setting_that_the_parent_is_told_is_read_by_it():
    assert_none(name for name in WORKER_SETTINGS if not _is_read(name, _WORKERS))


def test_the_rule_can_be_broken():
    tree = ast.parse(
        "conf.a\nself._app.conf.b\nsettings['c']\nmanifest.settings['d']\n_setting('e')\n"
        "conf.f = 1\nother.g\nself._options.h"
    )

    found = set(_reads(tree))

    assert found == {
        *(("conf", "a"), ("conf", "b"), ("settings", "c"), ("settings", "d"), ("conf", "e")),
        *(("other", "g"), ("_options", "h")),
    } | {("_app", "conf"), ("self", "_app"), ("manifest", "settings"), ("self", "_options")}


def _has_one_value(annotation):
    """Whether a setting is there only because Celery has it, and taskq always does what it says."""
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def _is_read(name, holders):
    return any((holder, name) in _everything_read() for holder in holders)


def _everything_read():
    if not _cache:
        for module in modules().values():
            if module.name != "settings":
                _cache.update(_reads(module.tree))
    return _cache


_cache: set[tuple[str, str]] = set()


def _reads(tree) -> Iterator[tuple[str, str]]:
    """Who is asked for what: `x.holder.name`, `holder["name"]`, and tasks' `_setting("name")`."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=holder, attr=name, ctx=ast.Load()):
                yield _last_word(holder), name
            case ast.Subscript(value=holder, slice=ast.Constant(value=str(name)), ctx=ast.Load()):
                yield _last_word(holder), name
            case ast.Call(func=ast.Name(id="_setting"), args=[ast.Constant(value=str(name))]):
                yield "conf", name


def _last_word(node):
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _passed_on(name):
    """The options for brokers and stores that are others when the setting *name* is another."""
    base = {"broker_url": "amqp://here"}
    default = DEFAULTS[name]
    before = _options(Settings(**base))
    other = _OTHER[name] if name in _OTHER else (default or 0) + 1
    after = _options(Settings(**base | {name: other}))
    return [option for kind, option in before if before[kind, option] != after[kind, option]]


def _options(settings):
    return _fields(settings.broker_options()) | _fields(settings.backend_options())


def _fields(options):
    """The fields of *options*; as both kinds have some names in common, of each kind by itself."""
    return {(type(options), field.name): getattr(options, field.name) for field in fields(options)}
