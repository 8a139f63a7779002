"""Carrying messages: one contract (`base`) and one file for each kind of broker."""

from collections.abc import Callable

from taskq.broker.base import Broker, BrokerOptions
from taskq.errors import ConfigurationError
from taskq.url import masked, scheme


def open_broker(options: BrokerOptions) -> Broker:
    """The broker that the first of `options.urls` names; ConfigurationError for an unknown scheme.

    The adapter's module, and with it its driver, is imported only now.
    """
    names = {scheme(url) for url in options.urls}
    if len(names) > 1 and names != {"amqp", "amqps"}:
        raise ConfigurationError(f"broker_url mixes kinds of broker: {', '.join(sorted(names))}")
    for name in names:
        if name in _ADAPTERS:
            return _ADAPTERS[name](options)
    shown = masked(options.urls[0]) if options.urls else "(none)"
    raise ConfigurationError(
        f"broker_url {shown!r} is of no known kind; use one of {', '.join(_ADAPTERS)}://"
    )


def _amqp(options: BrokerOptions) -> Broker:
    from taskq.broker.amqp import AmqpBroker

    return AmqpBroker(options)


def _sqlite(options: BrokerOptions) -> Broker:
    from taskq.broker.sqlite import SqliteBroker

    return SqliteBroker(options)


def _memory(options: BrokerOptions) -> Broker:
    from taskq.broker.memory import MemoryBroker

    return MemoryBroker(options)


_ADAPTERS: dict[str, Callable[[BrokerOptions], Broker]] = {
    "amqp": _amqp,
    "amqps": _amqp,
    "sqlite": _sqlite,
    "memory": _memory,
}
