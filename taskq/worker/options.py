"""What the command line asks of a worker, as one value that also crosses to its nursery."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """None means: as the app's settings say."""

    app: str | None = None
    #: Where modules are found and relative paths start.
    folder: str = "."
    queues: tuple[str, ...] = ()
    concurrency: int | None = None
    #: At most, and at least, so many children, as there is work for them.
    autoscale: tuple[int, int] | None = None
    name: str = "taskq@%h"
    pool: Literal["prefork", "solo"] | None = None
    prefetch: int | None = None
    #: Tell monitors what becomes of tasks.
    task_events: bool = False
    max_tasks_per_child: int | None = None
    #: KiB of resident memory.
    max_memory_per_child: int | None = None
    #: Kept up to date while the worker works; see `health`.
    ready_file: str | None = None
    loglevel: str = "info"
    logfile: str | None = None
    #: Have a beat of its own.
    beat: bool = False
    log_style: Literal["plain", "json"] = "plain"
    #: Process id of the worker's parent.
    parent: int = 0

    def to_json(self) -> str:
        """The options as one line of text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "WorkerOptions":
        """The options that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        scale = fields["autoscale"]
        return replace(
            cls(**fields), queues=tuple(fields["queues"]), autoscale=scale and tuple(scale)
        )
