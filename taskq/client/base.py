"""What the caller's half needs of the app above it, so that it need not import it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from taskq.backends.base import Backend
from taskq.client.context import Request
from taskq.errors import ConfigurationError
from taskq.settings import Settings


class App(Protocol):
    """The one object a user makes, as its tasks and results see it."""

    @property
    def conf(self) -> Settings:
        """The settings."""

    @property
    def backend(self) -> Backend:
        """Where results are kept."""

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        task: Any = None,
        **options: Any,
    ) -> Any:
        """Send a call of task *name*; its AsyncResult.  *task* is the task, where it is known."""

    async def asend_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        task: Any = None,
        **options: Any,
    ) -> Any:
        """As `send_task`, without holding up the event loop."""

    def send_again(self, task: Any, request: Request, again: Any) -> None:
        """Send the next try of *request*, a run of *task*, that differs in what *again* says."""

    def run_in_place(
        self,
        task: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        *,
        throw: bool | None,
    ) -> Any:
        """Run *task* in this process as a worker would; its EagerResult."""



_default: App | None = None


def set_default_app(app: App | None) -> None:
    """Make *app* the one that shared tasks use from now on, in every thread."""
    global _default
    _default = app


def default_app(what: str) -> App:
    """The app made last in this process; ConfigurationError, naming *what* needs it, if none was."""
    if _default is None:
        raise ConfigurationError(
            f"{what} needs an app, and none was made in this process: "
            "import the module that makes TaskQ(...) first"
        )
    return _default
