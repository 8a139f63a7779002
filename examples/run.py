"""python examples/run.py NAME: starts the workers of one example, runs its call.py, stops them.

Without a name it lists the examples.  They run on one file in a temporary folder, or on RabbitMQ
if TASKQ_BROKER_URL says so; what is written here once is what two shells would do by hand.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

EXAMPLES = Path(__file__).parent

#: Example -> its workers, each a folder with a tasks.py and what follows `taskq worker`.
WORKERS = {
    "quickstart": [("quickstart", "-c 2")],
    "by_name": [("quickstart", "-c 2")],
    "plain_pika": [("quickstart", "-c 2")],
    "two_queues": [("two_queues", "-n fast -Q fast -c 2"), ("two_queues", "-n slow -Q slow -c 1")],
    "web": [("web", "-c 2")],
    "retry": [("retry", "-c 2")],
}


@contextmanager
def worker(
    folder: str, arguments: str, broker: str, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A `taskq worker` in examples/*folder*, logging to *log*, until the end of the block.

    It leads a session of its own, so that Ctrl-C is ours to pass on; and Ctrl-C waits while it is
    started or stopped, so that none is forgotten.
    """
    process = None
    try:
        with undisturbed(), log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "taskq", "worker", *arguments.split()],
                cwd=EXAMPLES / folder,
                env=os.environ | {"TASKQ_BROKER_URL": broker},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        yield process
    finally:
        with undisturbed():
            if process is not None:
                end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Let it finish what it runs, but not for long."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.terminate()  # the second signal stops at once
        process.wait(10)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C waits for the end of the block."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def run(name: str) -> int:
    with tempfile.TemporaryDirectory(prefix="taskq-example-") as folder, ExitStack() as workers:
        broker = os.environ.get("TASKQ_BROKER_URL", f"sqlite:///{folder}/taskq.db")
        log = Path(folder, "worker.log")
        for home, arguments in WORKERS[name]:
            workers.enter_context(worker(home, arguments, broker, log))
        caller = subprocess.run(
            [sys.executable, "call.py"],
            cwd=EXAMPLES / name,
            env=os.environ | {"TASKQ_BROKER_URL": broker},
            check=False,
        )
        if caller.returncode != 0:
            print(f"\nThe workers' log:\n{log.read_text()}", file=sys.stderr)
        return caller.returncode


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in WORKERS:
        sys.exit(run(sys.argv[1]))
    sys.exit("\n".join([f"{__doc__}", *WORKERS]))
