"""Keeping results: one contract (`base`) and one file for each kind of store."""

from collections.abc import Callable
from typing import cast

from taskq.backends.base import Backend, BackendOptions
from taskq.broker.base import Broker, Outlet
from taskq.errors import ConfigurationError
from taskq.url import masked, scheme


def open_backend(
    options: BackendOptions, *, broker: Broker, outlet: Callable[[], Outlet]
) -> Backend:
    """The store that `options.url` names; ConfigurationError for an unknown scheme.

    *broker* and *outlet* are for rpc, which keeps results in messages.  Unknown schemes are looked
    up among the entry points `taskq.backends`: a callable taking BackendOptions.  Modules, and with
    them drivers, are imported only now.
    """
    name = scheme(options.url)
    if name == "rpc":
        from taskq.backends.rpc import RpcBackend

        return RpcBackend(options, broker=broker, outlet=outlet)
    kind = "db" if name.startswith("db+") else name
    if kind in _ADAPTERS:
        return _ADAPTERS[kind](options)
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    for entry in entry_points(group="taskq.backends", name=kind):
        return cast(Backend, entry.load()(options))
    raise ConfigurationError(
        f"result_backend {masked(options.url)!r} is of no known kind; "
        f"use one of rpc, {', '.join(_ADAPTERS)}, or install a package that provides it"
    )


def _redis(options: BackendOptions) -> Backend:
    from taskq.backends.redis import RedisBackend

    return RedisBackend(options)


def _sql(options: BackendOptions) -> Backend:
    from taskq.backends.sql import SqlBackend

    return SqlBackend(options)


def _sqlite(options: BackendOptions) -> Backend:
    from taskq.backends.sqlite import SqliteBackend

    return SqliteBackend(options)


def _memory(options: BackendOptions) -> Backend:
    from taskq.backends.memory import MemoryBackend

    return MemoryBackend(options)


def _disabled(options: BackendOptions) -> Backend:
    from taskq.backends.disabled import DisabledBackend

    return DisabledBackend(options)


_ADAPTERS: dict[str, Callable[[BackendOptions], Backend]] = {
    "redis": _redis,
    "rediss": _redis,
    "db": _sql,
    "sqlite": _sqlite,
    "memory": _memory,
    "disabled": _disabled,
}
