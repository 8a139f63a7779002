"""What the nursery tells the parent about the app, which the parent never imports.

Plain data, so that it crosses a socket; made from an app by the side that imported it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from taskq.broker.base import BrokerOptions, Queue
from taskq.worker.outcome import Policy


@dataclass(frozen=True, slots=True)
class Manifest:
    """An app as its worker's parent needs to know it; *settings* are those of WORKER_SETTINGS."""

    app: str
    where: str
    broker: BrokerOptions
    #: Those that the worker takes from at first, and all that the app's settings list.
    queues: tuple[Queue, ...]
    known_queues: tuple[Queue, ...]
    policies: Mapping[str, Policy]
    settings: Mapping[str, Any]
    backend: str
    #: What the author of each task chose, by name of the option.
    chosen: Mapping[str, Mapping[str, Any]]
    #: All settings, for people: see `plain.disclosed`.
    conf: Mapping[str, Any]
    #: Those of them that somebody has set to something else than the default.
    changed: Sequence[str]

    def pack(self) -> dict[str, Any]:
        """The manifest as plain data."""
        return asdict(self)

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> "Manifest":
        """The manifest that `pack` made plain."""
        fields = dict(packed)
        fields["broker"] = BrokerOptions(
            **(packed["broker"] | {"urls": tuple(packed["broker"]["urls"])})
        )
        for name in ("queues", "known_queues"):
            fields[name] = tuple(Queue(**queue) for queue in packed[name])
        fields["policies"] = {name: Policy(**each) for name, each in packed["policies"].items()}
        return cls(**fields)


#: The settings that the parent acts on.
WORKER_SETTINGS: Sequence[str] = (
    "worker_pool",
    "worker_concurrency",
    "worker_prefetch_multiplier",
    "worker_max_held_bytes",
    "worker_max_tasks_per_child",
    "worker_max_memory_per_child",
    "worker_child_start_timeout",
    "worker_disable_rate_limits",
    "worker_enable_remote_control",
    "worker_send_task_events",
    "worker_heartbeat",
    "worker_shutdown_timeout",
    "worker_soft_shutdown_timeout",
    "broker_consumer_timeout",
    "max_crashes",
    "max_deliveries",
    "dead_letter_ttl",
    "kill_wait",
)
