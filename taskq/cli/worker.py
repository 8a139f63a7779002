"""`taskq worker`: options in, exit code out; the work itself is `taskq.worker`'s."""

import os
import sys
from typing import Any, Literal

import click

from taskq import log
from taskq.worker.options import WorkerOptions
from taskq.worker.supervisor import Supervisor

_LEVELS = ("debug", "info", "warning", "error", "critical")


class Bounds(click.ParamType[tuple[int, int]]):
    """`10,2`: at most and at least so many; `10` alone means at least one."""

    name = "max,min"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        most, _, least = str(value).partition(",")
        try:
            bounds = int(most), max(1, int(least or 1))  # Celery's users may say 0
        except ValueError:
            self.fail(f"{value!r} is not two numbers with a comma between, as 10,2", param, ctx)
        if bounds[0] < bounds[1]:
            self.fail(f"{value!r}: the most comes first, as in 10,2", param, ctx)
        return bounds


@click.command()
@click.option("-A", "--app", help="The app: package.module or package.module:attribute.")
@click.option(
    "-Q",
    "--queues",
    default="",
    help="Queues to consume from, with commas between.",
)
@click.option("-c", "--concurrency", type=click.IntRange(1), help="How many children run tasks.")
@click.option("--autoscale", type=Bounds(), help="At most, and at least, so many children.")
@click.option("-n", "--name", default="taskq@%h", show_default=True, help="The worker's name.")
@click.option("-l", "--loglevel", type=click.Choice(_LEVELS, case_sensitive=False), default="info")
@click.option("--logfile", type=click.Path(dir_okay=False), help="Log there, not to the terminal.")
@click.option("--log-style", type=click.Choice(["plain", "json"]), default="plain")
@click.option("--pool", type=click.Choice(["prefork", "solo"]), help="Else as worker_pool says.")
@click.option("--prefetch", type=click.IntRange(1, 65535), help="Messages held of each queue.")
@click.option("-E", "--task-events", is_flag=True, help="Tell monitors what becomes of tasks.")
@click.option("--max-tasks-per-child", type=click.IntRange(1))
@click.option("--max-memory-per-child", type=click.IntRange(1), help="KiB of resident memory.")
@click.option("-B", "--beat", is_flag=True, help="Send what is due, too: start taskq beat.")
@click.option(
    "--ready-file", type=click.Path(dir_okay=False), help="There while the worker is well."
)
def worker(
    app: str | None,
    queues: str,
    concurrency: int | None,
    autoscale: tuple[int, int] | None,
    name: str,
    loglevel: str,
    logfile: str | None,
    log_style: Literal["plain", "json"],
    pool: Literal["prefork", "solo"] | None,
    prefetch: int | None,
    task_events: bool,
    max_tasks_per_child: int | None,
    max_memory_per_child: int | None,
    beat: bool,
    ready_file: str | None,
) -> None:
    """Run tasks until TERM or INT; a second signal stops at once."""
    options = WorkerOptions(
        app=app,
        folder=os.getcwd(),
        queues=tuple(part for part in queues.split(",") if part),
        concurrency=concurrency,
        autoscale=autoscale,
        name=name,
        pool=pool,
        prefetch=prefetch,
        task_events=task_events,
        max_tasks_per_child=max_tasks_per_child,
        max_memory_per_child=max_memory_per_child,
        beat=beat,
        ready_file=ready_file and os.path.abspath(ready_file),
        loglevel=loglevel,
        logfile=logfile and os.path.abspath(logfile),
        log_style=log_style,
    )
    log.configure(options.loglevel, options.logfile, options.log_style)
    sys.exit(Supervisor(options).run())
