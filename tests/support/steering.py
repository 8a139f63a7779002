"""A real worker with somebody at its wheel: the process, and `app.control` for it alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from taskq import TaskQ
from tests.support.process import APP, StartWorker, WorkerProcess
from tests.support.site import Site

#: As long as anything may take on a slow machine; whoever answers is waited for no longer.
PATIENCE = 30.0


@dataclass
class Steered:
    """The worker *node*, and a producer's app on its broker."""

    process: WorkerProcess
    app: TaskQ
    node: str

    def tell(self, command: str, **arguments: Any) -> Any:
        """Its reply to *command*."""
        replies = self.app.control.broadcast(
            command, arguments, [self.node], reply=True, timeout=PATIENCE
        )
        assert [{self.node}] == [reply.keys() for reply in replies]
        return replies[0][self.node]

    def send(self, task: str, *args: Any, **options: Any) -> Any:
        """Send the task of that name to its queue."""
        return self.app.send_task(task, args=args, queue="q1", **options)


class Steer(Protocol):
    """What the fixture `steer` hands out."""

    def __call__(
        self, *arguments: str, folder: Path = APP, env: Mapping[str, str] | None = None
    ) -> Steered:
        """Start `taskq worker *arguments*` on queue q1 and wait until it is ready."""


@pytest.fixture
def steer(site: Site, worker_process: StartWorker) -> Steer:
    """Starts workers that are steered."""
    app = site.app()

    def start(*arguments: str, folder: Path = APP, env: Mapping[str, str] | None = None) -> Steered:
        own = ("-Q", "q1", "-n", "steered@here")
        process = worker_process(folder, *own, *arguments, env={**site.env, **(env or {})})
        process.wait_for("worker-ready")
        return Steered(process, app, "steered@here")

    return start
