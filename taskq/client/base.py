"""What the caller's half needs of the app above it, so that it need not import it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from taskq.backends.base import Backend
from taskq.client.context import Request
from taskq.errors import ConfigurationError
from taskq.settings import Settings


class Sends(Protocol):
    """What turns calls into messages; *task* is the Task, where its code is known."""

    def send(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        task: Any = None,
    ) -> Any:
        """Send a call of task *name*; its AsyncResult."""

    async def asend(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        task: Any = None,
    ) -> Any:
        """As `send`, without holding up the event loop."""

    def send_again(self, task: Any, request: Request, again: Any) -> None:
        """Send the next try of *request*, a run of *task*, that differs in what *again* says."""


class Revokes(Protocol):
    """What tells workers that a task is not to run."""

    def revoke(
        self, task_id: str, *, terminate: bool = False, signal: str | int | None = None
    ) -> object:
        """Have the task never run; with *terminate*, end it by *signal* where it does."""


class App(Protocol):
    """The one object a user makes, as its tasks and results see it."""

    @property
    def conf(self) -> Settings:
        """The settings."""

    @property
    def backend(self) -> Backend:
        """Where results are kept."""

    @property
    def sender(self) -> Sends:
        """What sends."""

    @property
    def control(self) -> Revokes:
        """What steers workers."""

    def run_in_place(
        self,
        task: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        *,
        throw: bool | None = None,
    ) -> Any:
        """Run *task* in this process as a worker would; its EagerResult."""


_default: App | None = None


def set_default_app(app: App | None) -> None:
    """Make *app* the one that shared tasks use from now on, in every thread."""
    global _default
    _default = app


def default_app(what: str) -> App:
    """The app made last in this process; ConfigurationError for *what* needs it, if none was."""
    if _default is None:
        raise ConfigurationError(
            f"{what} needs an app, and none was made in this process: "
            "import the module that makes TaskQ(...) first"
        )
    return _default
