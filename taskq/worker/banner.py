"""What a worker says of itself when it starts: one screen for the person who started it."""

import sys

from taskq import __version__
from taskq.url import masked
from taskq.worker.manifest import Manifest
from taskq.worker.options import WorkerOptions

#: More task names than this are counted instead of listed.
_LISTED = 20


def show(options: WorkerOptions, manifest: Manifest, concurrency: int, broker: str) -> None:
    """Print the banner to standard error, unless the log goes to a file or is made for machines."""
    if options.logfile is None and options.log_style == "plain":
        print(text(options, manifest, concurrency, broker), file=sys.stderr, flush=True)


def text(options: WorkerOptions, manifest: Manifest, concurrency: int, broker: str) -> str:
    """The banner: broker and store with their passwords masked, queues, children, tasks."""
    tasks = sorted(manifest.policies)
    listed = tasks[:_LISTED] + ([f"... and {len(tasks) - _LISTED} more"] * (len(tasks) > _LISTED))
    rows = [
        ("broker", masked(broker)),
        ("results", masked(manifest.backend)),
        ("queues", ", ".join(queue.name for queue in manifest.queues)),
        ("children", f"{concurrency} ({options.pool})"),
        ("tasks", ("\n" + " " * 12).join(listed) or "none: nothing can run here"),
    ]
    lines = [f"taskq {__version__}  {options.name}  app {manifest.app}"]
    return "\n".join([*lines, *(f"  {label:<9} {value}" for label, value in rows), ""])
