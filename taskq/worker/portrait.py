"""What operators are shown of a worker: tasks, queues, broker, as Celery's tools expect them.

Celery's monitors fail where a key is missing, so there are more here than mean anything.  What is
true at the moment is asked of the worker's parts by `desk`.
"""

import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from taskq import __version__
from taskq.broker.base import BrokerOptions, Queue
from taskq.errors import TaskqError
from taskq.url import masked, scheme
from taskq.wire.task import open_body
from taskq.worker.ledger import Job
from taskq.worker.manifest import Manifest
from taskq.worker.plain import plain

#: Bodies above this size (bytes) are not opened to be shown: the text in the headers has to do.
_SMALL = 4096

#: Ports where the URL names none.
_PORTS = {"amqp": 5672, "amqps": 5671}


def request(
    job: Job, node: str, *, safe: bool, started: float | None = None, pid: int | None = None
) -> dict[str, Any]:
    """*job* at *node*; child *pid* has begun it at *started*, seconds since the epoch.

    Arguments are shown as values, as far as that is cheap, or as text if *safe*.
    """
    args, kwargs = _texts(job) if safe else _values(job)
    delivery = job.delivery
    return {
        "id": job.id,
        "name": job.name,
        "type": job.name,
        "args": args,
        "kwargs": kwargs,
        "hostname": node,
        "time_start": started,
        "acknowledged": job.settled,
        "delivery_info": {
            "exchange": delivery.exchange,
            "routing_key": delivery.routing_key,
            "priority": delivery.message.labels.priority or 0,
            "redelivered": delivery.redelivered,
        },
        "worker_pid": pid,
    }


def scheduled(job: Job, node: str, until: float, *, safe: bool) -> dict[str, Any]:
    """*job*, which waits at *node* until that moment, seconds since the epoch."""
    return {
        "eta": datetime.fromtimestamp(until, UTC).isoformat(),
        "priority": 6,
        "request": request(job, node, safe=safe),
    }


def _texts(job: Job) -> tuple[str, str]:
    return (job.headers.argsrepr, job.headers.kwargsrepr) if job.headers is not None else ("", "")


def _values(job: Job) -> tuple[Any, Any]:
    message = job.delivery.message
    if len(message.body) <= _SMALL:
        try:
            body = open_body(message, ("json", "msgpack"), _SMALL)
        except TaskqError:
            pass  # the child that runs it will say what is wrong
        else:
            return plain(body.args), plain(body.kwargs)
    return _texts(job)


def queue(found: Queue, *, paused: bool) -> dict[str, Any]:
    """A queue that is taken from; *paused* by an operator, or not."""
    exchange = {
        "name": found.exchange,
        "type": found.exchange_type,
        "arguments": None,
        "durable": True,
        "passive": False,
        "auto_delete": False,
        "delivery_mode": 2,
        "no_declare": False,
    }
    return {
        "name": found.name,
        "exchange": exchange,
        "routing_key": found.routing_key or found.name,
        "queue_arguments": plain(found.arguments) or None,
        "binding_arguments": None,
        "consumer_arguments": None,
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": False,
        "alias": None,
        "bindings": [],
        "no_declare": None,
        "expires": None,
        "message_ttl": None,
        "max_length": None,
        "max_length_bytes": None,
        "max_priority": found.max_priority,
        "paused": paused,
    }


def broker(options: BrokerOptions) -> dict[str, Any]:
    """The broker that *options* name, without its password."""
    url, *others = options.urls
    kind = scheme(url)
    parts = urlsplit(url)
    is_amqp = kind in _PORTS
    return {
        "hostname": parts.hostname or "localhost",
        "userid": unquote(parts.username or "guest") if is_amqp else None,
        "virtual_host": unquote(parts.path[1:]) or "/",
        "port": parts.port or _PORTS.get(kind),
        "insist": False,
        "ssl": kind == "amqps" or bool(options.ssl),
        "transport": kind,
        "connect_timeout": options.connect_timeout,
        "transport_options": {},
        "login_method": "PLAIN" if is_amqp else None,
        "uri_prefix": None,
        "heartbeat": options.heartbeat,
        "failover_strategy": "round-robin",
        "alternates": [masked(other) for other in others],
        "credential_provider": None,
    }


def usage() -> dict[str, float]:
    """What the parent process has taken of the machine; see getrusage(2)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    names = [name for name in dir(used) if name.startswith("ru_")]
    return {name.removeprefix("ru_"): getattr(used, name) for name in names}


def tasks(manifest: Manifest, rates: Mapping[str, str], attributes: Sequence[str]) -> list[str]:
    """The names of all tasks, each with what it has of *attributes*; *rates* hold now."""
    lines = []
    for name in sorted(manifest.policies):
        known = {**manifest.chosen.get(name, {}), "rate_limit": rates.get(name)}
        shown = [f"{each}={known[each]}" for each in attributes if known.get(each) is not None]
        lines.append(f"{name} [{' '.join(shown)}]" if shown else name)
    return lines


def report(node: str, manifest: Manifest, broker_url: str) -> str:
    """Versions and what was set, for somebody who is to help."""
    versions = [
        f"taskq:{__version__}",
        f"python:{platform.python_version()}",
        f"{platform.system()}:{platform.release()}",
        f"machine:{platform.machine()}",
    ]
    rows = [
        f"software -> {' '.join(versions)}",
        f"executable -> {sys.executable}",
        f"node -> {node}",
        f"app -> {manifest.app} in {manifest.where}",
        f"broker -> {broker_url}",
        f"results -> {masked(manifest.backend)}",
        f"tasks -> {len(manifest.policies)}",
    ]
    changed = [f"{name}: {manifest.conf[name]!r}" for name in sorted(manifest.changed)]
    return "\n".join([*rows, "", *changed])
