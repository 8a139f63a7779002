"""The workers that a command asks: which, for how long, and what is said where none answers.

How requests travel is the business of `taskq.control`, how replies look that of `replies`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any

import click

from taskq.app import TaskQ
from taskq.cli.place import with_app
from taskq.control.base import CommandError, Reply

#: The exit code where a worker that was asked did not answer, as with Celery (EX_UNAVAILABLE).
NO_ANSWER = 69


class NoAnswer(click.ClickException):
    """Workers that were asked did not answer."""

    exit_code = NO_ANSWER


class Fleet:
    """The workers on the broker of *app*: those called *nodes*, or all.

    They are waited for until *timeout* seconds have passed in which none answered.
    """

    def __init__(
        self, app: TaskQ, nodes: Sequence[str], pattern: str | None, timeout: float, as_json: bool
    ) -> None:
        self.app = app
        self.nodes = nodes
        self.timeout = timeout
        self.as_json = as_json
        self._pattern = pattern

    def ask(
        self, command: str, arguments: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[str, Reply]]:
        """Nodes and their replies as they come; NoAnswer at the end where some are missing."""
        try:
            replies = self.app.control.stream(
                command,
                arguments,
                destination=self.nodes or None,
                timeout=self.timeout,
                pattern=self._pattern,
                matcher=self._pattern and "glob",
            )
        except CommandError as error:
            raise click.UsageError(str(error)) from error
        missing, answered = dict.fromkeys(self.nodes), False
        for node, reply in replies:
            answered = True
            missing.pop(node, None)
            yield node, reply
        if missing:
            raise NoAnswer(self._unknown(list(missing)))
        if not answered:
            raise NoAnswer(f"no worker answered {self._where()}; is one running? -t waits longer")

    def gather(self, command: str, nodes: Sequence[str]) -> dict[str, Reply]:
        """What those of *nodes* that answer say to *command*, which has no arguments."""
        replies = self.app.control.stream(command, destination=nodes, timeout=self.timeout)
        return dict(replies)

    def _unknown(self, missing: Sequence[str]) -> str:
        others = sorted(node for node, _ in self.app.control.stream("ping", timeout=self.timeout))
        there = f"these are there: {', '.join(others)}" if others else "nor did any other"
        return f"{', '.join(missing)} did not answer {self._where()}; {there}"

    def _where(self) -> str:
        meant = f" that is called like {self._pattern}" if self._pattern else ""
        return f"within {self.timeout:g} s on {self.app.broker.url}{meant}"


def with_fleet(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command* the options that say which workers it asks, and first of all a `Fleet`."""

    @click.option(
        "-d", "--destination", metavar="NODE,...", help="Ask these workers, with commas between."
    )
    @click.option("--pattern", metavar="GLOB", help="Ask workers with such names: 'mail*@*'.")
    @click.option(
        "-t",
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        default=1.0,
        show_default=True,
        help="Seconds to wait for one answer more.",
    )
    @click.option("--json", "as_json", is_flag=True, help="For programs: JSON, one object a line.")
    @with_app()
    @wraps(command)
    def opened(
        app: TaskQ,
        *,
        destination: str | None,
        pattern: str | None,
        timeout: float,
        as_json: bool,
        **rest: Any,
    ) -> None:
        nodes = [node for node in (destination or "").split(",") if node]
        if nodes and pattern:
            raise click.UsageError("give -d or --pattern, not both")
        command(Fleet(app, nodes, pattern, timeout, as_json), **rest)

    decorated: Callable[..., None] = opened
    return decorated


def print_json(**fields: Any) -> None:
    """One line of JSON, also of what JSON does not know."""
    click.echo(json.dumps(fields, default=str))
