"""No results at all: storing is free, and asking is a mistake that is told at once."""

from collections.abc import Callable
from typing import NoReturn

from taskq.backends.base import Backend, BackendOptions, OnReady
from taskq.errors import ConfigurationError
from taskq.wire.result import Result


class DisabledBackend(Backend):
    """The store of a project that set `result_backend` to `disabled://`."""

    def __init__(self, options: BackendOptions) -> None:
        self._options = options

    def store(self, result: Result, *, reply_to: str | None = None) -> None:
        pass

    def fetch(self, task_id: str) -> Result | None:
        self._refuse(task_id)

    def forget(self, task_id: str) -> None:
        pass

    def subscribe(
        self, task_id: str, on_ready: OnReady, *, fresh: bool = False
    ) -> Callable[[], None]:
        self._refuse(task_id)

    def close(self) -> None:
        pass

    def _refuse(self, task_id: str) -> NoReturn:
        raise ConfigurationError(
            f"the result of task {task_id} was not kept: result_backend is "
            f"{self._options.url!r}; set it to rpc://, redis://, db+postgresql:// or sqlite:///"
        )
