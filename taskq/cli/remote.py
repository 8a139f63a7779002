"""The words of `taskq inspect` and `taskq control`, one for each command that workers obey.

Which there are is said by the table of `taskq.control.commands`; how their arguments are written
on a command line, here.
"""

import sys
from typing import Any, Literal

import click

from taskq.cli.completion import queue_names, task_names
from taskq.cli.fleet import Fleet, NoAnswer, print_json, with_fleet
from taskq.cli.replies import error_in, lines_of
from taskq.cli.text import clean, room, styled
from taskq.control.base import Reply
from taskq.control.commands import COMMANDS, Command

#: An argument of a command -> the same on the command line.
_PARAMETERS: dict[str, click.Parameter] = {
    "task_id": click.Argument(["task_id"], metavar="ID...", nargs=-1, required=True),
    "ids": click.Argument(["ids"], metavar="ID...", nargs=-1, required=True),
    "headers": click.Argument(["headers"], metavar="NAME=VALUE...", nargs=-1, required=True),
    "task_name": click.Argument(["task_name"], metavar="TASK", shell_complete=task_names),
    "queue": click.Argument(["queue"], shell_complete=queue_names),
    "rate_limit": click.Argument(["rate_limit"], metavar="RATE"),
    "taskinfoitems": click.Argument(["taskinfoitems"], metavar="[ATTRIBUTE]...", nargs=-1),
    "n": click.Argument(["n"], type=int, default=1),
    "max": click.Argument(["max"], type=int, required=False),
    "min": click.Argument(["min"], type=int, required=False),
    "hard": click.Option(["--hard"], type=float, help="Seconds until a run is killed; 0: none."),
    "soft": click.Option(["--soft"], type=float, help="Seconds until a run is warned; 0: none."),
    "exchange": click.Option(["--exchange"], help="Else that of the queue's name."),
    "exchange_type": click.Option(["--exchange-type"], help="direct, topic, fanout, ..."),
    "routing_key": click.Option(["--routing-key"], help="Else the queue's name."),
    "safe": click.Option(["--safe"], is_flag=True, help="Arguments as text only."),
    "with_defaults": click.Option(["--with-defaults"], is_flag=True, help="Those not set, too."),
    "terminate": click.Option(["--terminate"], is_flag=True, help="End them where they run."),
    "signal": click.Option(
        ["--signal"], default="SIGTERM", show_default=True, help="What ends those that run."
    ),
}

#: Workers obey these without a word, as Celery's do, so that they are asked before who is there.
_SILENT = ("shutdown",)

_INDENT = "    "


class Words(click.Group):
    """A group whose commands have - or _ in their names, as one likes; alone it lists them."""

    def __init__(self, kind: Literal["inspect", "control"], summary: str) -> None:
        words = [_word(each) for each in COMMANDS if each.kind == kind and not each.hidden]
        super().__init__(kind, words, help=summary, callback=_alone, invoke_without_command=True)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return super().get_command(ctx, name.replace("-", "_"))


@click.pass_context
def _alone(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _word(command: Command) -> click.Command:
    """The word on the command line for *command*."""

    def run(fleet: Fleet, **given: Any) -> None:
        arguments = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in given.items()
            if value is not None and value is not False and value != ()
        }
        if command.name in _SILENT:
            _tell(fleet, command)
        else:
            _ask(fleet, command, arguments)

    summary = f"{command.summary[0].upper()}{command.summary[1:]}."
    return click.command(
        command.name,
        help=summary,
        short_help=summary,
        params=[_PARAMETERS[argument.name] for argument in command.arguments],
    )(with_fleet(run))


def _ask(fleet: Fleet, command: Command, arguments: dict[str, Any]) -> None:
    failed = False
    try:
        for node, reply in fleet.ask(command.name, arguments):
            failed = failed or error_in(reply) is not None
            _show(fleet, command, node, reply)
    except NoAnswer as error:
        if command.change is None or fleet.nodes:
            raise
        click.echo(f"{error.message}\nWorkers that start from now on obey.", err=True)
    sys.exit(failed)


def _tell(fleet: Fleet, command: Command) -> None:
    nodes = [node for node, _ in fleet.ask("ping")]
    fleet.app.control.broadcast(command.name, destination=nodes)
    for node in nodes:
        _show(fleet, command, node, {"ok": "told"})


def _show(fleet: Fleet, command: Command, node: str, reply: Reply) -> None:
    if fleet.as_json:
        print_json(node=node, reply=reply)
        return
    name, wrong = styled(clean(node), bold=True), error_in(reply)
    if wrong is not None:
        click.echo(f"{name}: {styled(wrong, fg='red')}")
        return
    first, *rest = lines_of(command.name, reply, room() - len(_INDENT))
    if not rest:
        click.echo(f"{name}: {first}")
        return
    click.echo(name)
    for line in (first, *rest):
        click.echo(f"{_INDENT}{line}".rstrip())
