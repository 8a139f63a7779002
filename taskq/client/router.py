"""Where a task's message goes: settings, routes and a call's options to a `Route`.  Pure.

Names in settings and calls are logical; *physical* turns them into the broker's names in one place.
"""

import fnmatch
import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from taskq.broker.base import Queue, Route
from taskq.client.options import Options
from taskq.errors import ConfigurationError
from taskq.settings import closest

#: What a router says of a task: a queue's name, options, or None for "ask the next one".
Said = str | Mapping[str, Any] | None
#: Called as (name, args, kwargs, options, task=task).
Router = Callable[..., Said]

#: Spellings of a queue's fields that Celery's settings have.
_ALIASES = {"type": "exchange_type", "binding_key": "routing_key", "queue_arguments": "arguments"}
_QUEUE_FIELDS = frozenset({"exchange", "exchange_type", "routing_key", "arguments", "max_priority"})
_EXCHANGE_TYPES = ("direct", "topic", "fanout", "headers")


class RouterTable:
    """The queues and routes of one app's settings, read once."""

    def __init__(
        self,
        *,
        queues: Iterable[str | Mapping[str, Any]] | Mapping[str, Mapping[str, Any] | None] | None,
        routes: object,
        default: str,
        create_missing: bool = True,
        max_priority: int | None = None,
        physical: Callable[[str], str] = str,
    ) -> None:
        self.default = default
        self._create_missing = create_missing
        self._max_priority = max_priority
        self._physical = physical
        self.queues: dict[str, Queue] = {}
        for name, fields in _named((default,) if queues is None else queues):
            self.queues[name] = self._queue(name, fields or {})
        self._made: dict[str, Queue] = {}
        self._direct: dict[str, Route] = {}
        self._routers = tuple(_routers(routes))
        #: Whether nothing but a task's name decides what `said` says.
        self.is_by_name = all(isinstance(router, _ByName) for router in self._routers)

    # -- queues ------------------------------------------------------------------------------

    def queue(self, name: str) -> Queue:
        """The queue of this logical *name*, made if it may be.

        ConfigurationError for one that task_queues does not list while
        task_create_missing_queues is off.
        """
        found = self.queues.get(name) or self._made.get(name)
        if found is not None:
            return found
        if not self._create_missing:
            raise ConfigurationError(
                f"queue {name!r} is not in task_queues ({', '.join(sorted(self.queues))}); "
                "add it there, or turn task_create_missing_queues on"
            )
        self._made[name] = self._queue(name, {})
        return self._made[name]

    def worker_queues(self, names: Sequence[str] = ()) -> list[Queue]:
        """The queues that a worker told to take from *names* (none: from all) consumes."""
        return [self.queue(name) for name in dict.fromkeys(names)] or list(self.queues.values())

    def _queue(self, name: str, given: Mapping[str, Any]) -> Queue:
        fields: dict[str, Any] = {_ALIASES.get(key, key): value for key, value in given.items()}
        for field in fields.keys() - _QUEUE_FIELDS:
            near = closest(field, _QUEUE_FIELDS | _ALIASES.keys())
            meant = f"; did you mean {near!r}?" if near else ""
            raise ConfigurationError(f"task_queues: queue {name!r} has no field {field!r}{meant}")
        exchange = fields.get("exchange") or ""
        kind = fields.get("exchange_type") or "direct"
        if kind not in _EXCHANGE_TYPES or not isinstance(exchange, str):
            raise ConfigurationError(
                f"task_queues: queue {name!r} has exchange {exchange!r} of type {kind!r}; "
                f"an exchange is a name, its type one of {', '.join(_EXCHANGE_TYPES)}"
            )
        if not exchange and kind != "direct":
            raise ConfigurationError(f"task_queues: queue {name!r} has a type, but no exchange")
        key = fields.get("routing_key")
        own_key = "" if kind in ("fanout", "headers") else name
        return Queue(
            name=self._physical(name),
            exchange=exchange,
            exchange_type=kind,
            routing_key="" if not exchange else own_key if key is None else str(key),
            arguments=dict(fields.get("arguments") or {}),
            max_priority=fields.get("max_priority") or self._max_priority,
        )

    # -- routes ------------------------------------------------------------------------------

    def said(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        task: object = None,
    ) -> Mapping[str, Any]:
        """What task_routes has for this call, as options: the first router that answers wins."""
        for router in self._routers:
            said = router(name, args, kwargs, options, task=task)
            if said is not None:
                return {"queue": said} if isinstance(said, str) else said
        return {}

    def resolve(self, options: Options) -> Route:
        """The place that the merged *options* of a call name.

        An *exchange* wins over a *queue*.  A queue bound to a direct exchange, or to none, is
        reached by its name on the default exchange, so that nothing else gets the message.  A
        *routing_key* alone names a queue, as it does on AMQP's default exchange.
        """
        if options.exchange:
            return self._to_exchange(options.exchange, options)
        queue = self.queue(options.queue or self._keyed(options.routing_key) or self.default)
        if not queue.exchange or queue.exchange_type == "direct":
            route = self._direct.get(queue.name)
            if route is None:
                route = self._direct[queue.name] = Route("", queue.name, (queue,))
            return route
        key = queue.routing_key if options.routing_key is None else options.routing_key
        return Route(queue.exchange, key, (queue,))

    def _to_exchange(self, exchange: str, options: Options) -> Route:
        bound = tuple(each for each in self.queues.values() if each.exchange == exchange)
        if options.queue:
            named = self.queue(options.queue)
            bound = (*bound, named) if named not in bound else bound
            if options.routing_key is None:
                return Route(exchange, named.routing_key or named.name, bound)
        return Route(exchange, options.routing_key or "", bound)

    def _keyed(self, key: str | None) -> str | None:
        """The queue that a bare *key* names; none if the default queue's exchange reads it."""
        return key if key and self.queue(self.default).exchange_type == "direct" else None


def _named(
    queues: Iterable[str | Mapping[str, Any]] | Mapping[str, Mapping[str, Any] | None],
) -> Iterable[tuple[str, Mapping[str, Any] | None]]:
    if isinstance(queues, Mapping):
        yield from queues.items()
        return
    for item in queues:
        if isinstance(item, str):
            yield item, None
        elif isinstance(item.get("name"), str):
            yield item["name"], {key: value for key, value in item.items() if key != "name"}
        else:
            raise ConfigurationError(f"task_queues: {dict(item)!r} has no name")


def _routers(routes: object) -> Iterable[Router]:
    if routes is None:
        return
    if isinstance(routes, str):
        yield from _routers(_load(routes))
    elif isinstance(routes, Mapping):
        yield _ByName(tuple(routes.items()))
    elif callable(routes):
        yield routes
    elif isinstance(routes, Sequence):
        if all(isinstance(each, tuple) and len(each) == 2 for each in routes):
            yield _ByName(tuple(routes))
            return
        for each in routes:
            yield from _routers(each)
    else:
        raise ConfigurationError(
            f"task_routes: {routes!r} is no mapping, function, 'module.function' or list of them"
        )


class _ByName:
    """A router that looks a task's name up: exactly first, then by pattern in order."""

    def __init__(self, items: Sequence[tuple[str | re.Pattern[str], Said]]) -> None:
        self._exact: dict[str, Said] = {}
        self._patterns: list[tuple[re.Pattern[str], Said]] = []
        for key, said in items:
            if said is not None and not isinstance(said, str | Mapping):
                raise ConfigurationError(
                    f"task_routes: {key!r} leads to {said!r}; give a queue's name or a mapping"
                )
            if isinstance(key, re.Pattern):
                self._patterns.append((key, said))
            elif any(mark in key for mark in "*?["):
                self._patterns.append((re.compile(fnmatch.translate(key)), said))
            else:
                self._exact[key] = said
        self._look_up = lru_cache(maxsize=1024)(self._find)

    def __call__(self, name: str, *_: object, **__: object) -> Said:
        return self._look_up(name)

    def _find(self, name: str) -> Said:
        if name in self._exact:
            return self._exact[name]
        return next((said for pattern, said in self._patterns if pattern.match(name)), None)


def _load(path: str) -> object:
    module, _, attribute = path.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"task_routes: {path!r} cannot be imported: {error}") from error
