"""What a shell completes after `taskq`, and `taskq completion`, which teaches the shell to ask."""

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout

import click
from click.shell_completion import CompletionItem, get_completion_class

from taskq import log
from taskq.app import TaskQ
from taskq.cli.place import app_of

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what teaches SHELL to complete commands, tasks and queues.

    As in: eval "$(taskq completion bash)"
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, "taskq", "_TASKQ_COMPLETE").source())


def task_names(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The tasks of the app that begin with *incomplete*."""
    return _names(ctx, lambda app: app.registry, incomplete)


def queue_names(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The queues of the app that begin with *incomplete*."""
    return _names(ctx, _queues, incomplete)


def _queues(app: TaskQ) -> set[str]:
    """Those of its settings, and of its tasks."""
    own = (task.call_options.get("queue") for task in app.registry.values())
    return {*app.router.queues, *filter(None, own)}


def _names(
    ctx: click.Context, names: Callable[[TaskQ], Iterable[str]], incomplete: str
) -> list[CompletionItem]:
    """None where the app cannot be found: nobody who presses a key wants to read why."""
    log.configure("critical")
    silence = io.StringIO()
    try:
        with (
            redirect_stdout(silence),
            redirect_stderr(silence),
            app_of(ctx.params.get("app"), ctx.params.get("broker")) as app,
        ):
            found = sorted(names(app))
    except (Exception, SystemExit):
        return []
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]
