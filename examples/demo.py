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

import click

from taskq import TaskQ

TASK = "demo.count_tokens"
QUEUE = "demo"


def source_files() -> list[str]:
    """The Python files of the standard library, without other people's packages."""
    library = Path(sysconfig.get_path("stdlib"))
    return sorted(str(file) for file in library.rglob("*.py") if "site-packages" not in file.parts)


def start_worker(environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A worker of its own process group, so that Ctrl-C is ours to pass on."""
    command = [sys.executable, "-m", "taskq", "worker", "-Q", QUEUE, "-c", "2", "-l", "warning"]
    return subprocess.Popen(
        [*command, "--logfile", str(log)],
        cwd=Path(__file__).parent / "demo",
        env=environment,
        start_new_session=True,
    )


def run(folder: Path) -> None:
    broker = os.environ.get("TASKQ_BROKER_URL", f"sqlite:///{folder}/demo.db")
    log = folder / "worker.log"
    app = TaskQ("demo-producer", broker=broker)
    files = source_files()
    click.echo(f"{len(files)} files of Python {sys.version.split()[0]}, on {app.broker.url}")
    worker = start_worker(os.environ | {"TASKQ_BROKER_URL": broker}, log)
    try:
        began = time.perf_counter()
        calls = [app.send_task(TASK, args=(path,), queue=QUEUE) for path in files]
        sent = time.perf_counter()
        counts = []
        with click.progressbar(calls, label="counting", show_pos=True) as bar:
            for call in bar:
                while True:
                    try:
                        counts.append(call.get(timeout=5))
                        break
                    except TimeoutError:
                        if worker.poll() is not None:
                            raise SystemExit(f"the worker ended:\n{log.read_text()}") from None
        done = time.perf_counter()
    finally:
        worker.terminate()
        worker.wait(30)
        app.close()
    show(counts, sent - began, done - began)


def show(counts: list[dict[str, int | str]], sending: float, total: float) -> None:
    """Totals, the largest files, and how quick it was."""
    library = sysconfig.get_path("stdlib")
    click.echo(f"\n{'tokens':>10} {'lines':>8}  largest files")
    for each in sorted(counts, key=lambda count: -int(count["tokens"]))[:8]:
        name = os.path.relpath(str(each["path"]), library)
        click.echo(f"{each['tokens']:>10,} {each['lines']:>8,}  {name}")
    tokens = sum(int(each["tokens"]) for each in counts)
    lines = sum(int(each["lines"]) for each in counts)
    click.echo(f"{tokens:>10,} {lines:>8,}  in all {len(counts)} files")
    click.echo(
        f"\nsent {len(counts) / sending:,.0f} tasks/s one by one, "
        f"done {len(counts) / total:,.0f} tasks/s with two children, in {total:.1f} s"
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="taskq-demo-") as folder:
        try:
            run(Path(folder))
        except KeyboardInterrupt:
            raise SystemExit("\nstopped; the worker has ended too") from None


if __name__ == "__main__":
    main()
