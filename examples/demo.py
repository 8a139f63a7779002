"""`make demo`: count the tokens of Python's standard library, one task for each file.

This program knows the task only by its name; a worker with two children, started in the folder
beside it, has the code.  Everything runs on one file in a temporary folder, or on RabbitMQ if
TASKQ_BROKER_URL says so.  Ctrl-C at any time leaves nothing running.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from run import worker

from taskq import TaskQ, TimeoutError

TASK = "demo.count_tokens"
QUEUE = "demo"


def source_files() -> list[str]:
    """The Python files of the standard library, without other people's packages."""
    library = Path(sysconfig.get_path("stdlib"))
    return sorted(str(file) for file in library.rglob("*.py") if "site-packages" not in file.parts)


def count(app: TaskQ, files: list[str], counting: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """Send one task for each of *files* and follow them, while the worker *counting* runs."""
    began = time.perf_counter()
    calls = [app.send_task(TASK, args=(path,), queue=QUEUE) for path in files]
    print(f"sent {len(calls)} tasks, {len(calls) / (time.perf_counter() - began):,.0f} a second")
    counts = []
    with click.progressbar(calls, label="counting", show_pos=True) as bar:
        for call in bar:
            while True:
                try:
                    counts.append(call.get(timeout=1))
                    break
                except TimeoutError:
                    if counting.poll() is not None:
                        raise
    seconds = time.perf_counter() - began
    print(f"done {len(calls) / seconds:,.0f} a second with two children, {seconds:.1f} s in all\n")
    return counts


def show(counts: list[dict[str, Any]]) -> None:
    """The slowest files, and the totals."""
    library = sysconfig.get_path("stdlib")
    print(f"{'seconds':>10} {'tokens':>12} {'lines':>10}  slowest files")
    for each in sorted(counts, key=lambda each: -each["seconds"])[:10]:
        row(each, os.path.relpath(each["path"], library))
    total = {key: sum(each[key] for each in counts) for key in ("seconds", "tokens", "lines")}
    row(total, f"in all {len(counts)} files")


def row(count: dict[str, Any], name: str) -> None:
    print(f"{count['seconds']:>10.3f} {count['tokens']:>12,} {count['lines']:>10,}  {name}")


def run(folder: Path, files: list[str]) -> None:
    broker = os.environ.get("TASKQ_BROKER_URL", f"sqlite:///{folder}/demo.db")
    log = folder / "worker.log"
    with (
        TaskQ("demo-producer", broker=broker) as app,
        worker("demo", f"-Q {QUEUE} -c 2 -l warning", broker, log) as counting,
    ):
        print(f"{len(files)} files of Python {sys.version.split()[0]}, on {app.broker.url}")
        try:
            show(count(app, files, counting))
        except Exception:
            print(f"\nThe worker's log:\n{log.read_text()}", file=sys.stderr)
            raise


@click.command()
@click.option("--files", type=click.IntRange(1), help="Count no more files than this.")
def main(files: int | None) -> None:
    """Count the tokens of Python's standard library, one task for each file."""
    with tempfile.TemporaryDirectory(prefix="taskq-demo-") as folder:
        try:
            run(Path(folder), source_files()[:files])
        except KeyboardInterrupt:
            print("\nstopped, and the worker with it")
            sys.exit(130)


if __name__ == "__main__":
    main()
