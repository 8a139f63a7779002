"""Where commands find the app that they are about, with everything that it imports."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

from taskq.app import TaskQ
from taskq.errors import ConfigurationError, TaskqError
from taskq.locate import find_app


@contextmanager
def app_of(name: str | None) -> Iterator[TaskQ]:
    """The app *name*, or the one that is found without a name, with all its modules imported.

    ConfigurationError if it cannot be imported, with the traceback on standard error.
    """
    try:
        app = find_app(name, os.getcwd())
        app.import_modules()
    except TaskqError:
        raise
    except Exception as error:
        click.echo(traceback.format_exc(), err=True, nl=False)
        raise ConfigurationError("the app cannot be imported; its traceback is above") from error
    with app:
        yield app
