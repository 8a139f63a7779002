"""Where commands find the app or the broker that they are about, with the options that say it."""

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import click

from taskq import log
from taskq.app import TaskQ
from taskq.errors import ConfigurationError, TaskqError
from taskq.locate import find_app


@contextmanager
def app_of(name: str | None, broker: str | None = None, *, modules: bool = True) -> Iterator[TaskQ]:
    """The app *name*, or the one that is found without a name, or one of no tasks at *broker*.

    With *modules*, all that it names are imported, too.  ConfigurationError if something cannot be
    imported, with the traceback on standard error.
    """
    if name and broker:
        raise click.UsageError("give -A or --broker, not both: --broker needs no app")
    try:
        app = TaskQ(broker=broker) if broker else find_app(name, os.getcwd())
        if modules:
            app.import_modules()
    except TaskqError:
        raise
    except Exception as error:
        click.echo(traceback.format_exc(), err=True, nl=False)
        raise ConfigurationError("the app cannot be imported; its traceback is above") from error
    with app:
        yield app


def with_app(*, modules: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command -A and --broker, and as its first argument the app that they mean.

    Only errors are logged.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option("-A", "--app", help="The app: package.module or package.module:attribute.")
        @click.option("-b", "--broker", metavar="URL", help="Look there; needs no app.")
        @wraps(command)
        def opened(*, app: str | None, broker: str | None, **rest: Any) -> None:
            log.configure("error")
            with app_of(app, broker, modules=modules) as found:
                command(found, **rest)

        decorated: Callable[..., None] = opened
        return decorated

    return decorate
