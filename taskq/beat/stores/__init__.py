"""Keeping what people change about a schedule: one file for each kind of store."""

from collections.abc import Callable

from taskq.app import TaskQ
from taskq.beat.base import Store, StoreOptions
from taskq.broker.topology import physical
from taskq.errors import ConfigurationError
from taskq.project import project_root
from taskq.url import masked, scheme

#: Under the project's root, where the broker is not embedded.
_FILE = "sqlite:///.taskq/taskq.db"


def store_of(app: TaskQ) -> Store:
    """The store of *app*'s schedule: that of `beat_store`, else the embedded broker's file."""
    broker = app.conf.broker_options().urls[0]
    return open_store(
        StoreOptions(
            url=app.conf.beat_store or (broker if scheme(broker) == "sqlite" else _FILE),
            schedule=schedule_name(app),
            timeout=app.conf.result_backend_timeout,
            root=project_root(),
        )
    )


def schedule_name(app: TaskQ) -> str:
    """What tells the schedule of *app* from those of others in the same store or broker."""
    return physical(app.main, app.conf.queue_prefix)


def open_store(options: StoreOptions) -> Store:
    """The store that `options.url` names; ConfigurationError for an unknown scheme.

    The module, and with it its driver, is imported only now.
    """
    name = scheme(options.url)
    kind = "db" if name.startswith("db+") else name
    if kind in _ADAPTERS:
        return _ADAPTERS[kind](options)
    raise ConfigurationError(
        f"beat_store {masked(options.url)!r} is of no known kind; "
        "use one of sqlite:///, db+postgresql:// (or another database), redis://, rediss://"
    )


def _sqlite(options: StoreOptions) -> Store:
    from taskq.beat.stores.sqlite import SqliteStore

    return SqliteStore(options)


def _sql(options: StoreOptions) -> Store:
    from taskq.beat.stores.sql import SqlStore

    return SqlStore(options)


def _redis(options: StoreOptions) -> Store:
    from taskq.beat.stores.redis import RedisStore

    return RedisStore(options)


_ADAPTERS: dict[str, Callable[[StoreOptions], Store]] = {
    "sqlite": _sqlite,
    "db": _sql,
    "redis": _redis,
    "rediss": _redis,
}
