"""What README shows of `taskq top`, taken from a small fleet that runs.

`python -m tests.docs.capture` writes it anew; `tests/docs/test_capture.py` holds README against it.
"""

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from taskq import TaskQ
from taskq.errors import TaskqError
from tests.docs.pages import README
from tests.support.process import REPOSITORY, WorkerProcess
from tests.support.rabbit import Rabbit, RabbitNode

#: The app of the fleet: its tasks take a while, and one of them does not always succeed.
SHOP = """
import time
from taskq import TaskQ

app = TaskQ("shop", task_queues=["mail", "pictures"])

@app.task(queue="pictures")
def thumbnail(number):
    time.sleep(0.02 + number % 7 / 100)

@app.task(queue="mail")
def send_mail(number):
    time.sleep(0.01)
    if number % 40 == 39:
        raise ConnectionError("the other side hung up")
"""
WORKERS = (("mail@shop", "mail", "1"), ("pictures@shop", "pictures", "2"))

#: The address that people know.
SHOWN_URL = "amqp://guest:***@localhost//"

_BLOCK = re.compile(r"(?<=^```text\n)taskq top .*?(?=^```$)", re.MULTILINE | re.DOTALL)

#: Starts `taskq worker` with these arguments in a folder, and returns when it is ready.
StartWorker = Callable[..., WorkerProcess]


def take(url: str, folder: Path, start: StartWorker) -> str:
    """What `taskq top` prints about the fleet on the broker *url*."""
    (folder / "shop.py").write_text(SHOP)
    for node, queue, children in WORKERS:
        arguments = ("-A", "shop", "-Q", queue, "-c", children, "-n", node, "-E")
        worker = start(folder, *arguments, env={"TASKQ_BROKER_URL": url})
        worker.wait_for("worker-ready", timeout=60)
    over = threading.Event()
    customers = threading.Thread(target=_order, args=[url, over])
    customers.start()
    try:
        done = subprocess.run(
            (sys.executable, "-m", "taskq", "top", "-A", "shop", "-i", "5"),
            cwd=folder,
            env=_environment(url) | {"COLUMNS": "100", "LINES": "24"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    finally:
        over.set()
        customers.join()
    assert done.returncode == 0, done.stdout + done.stderr
    printed = re.sub(r"amqp://\S+", SHOWN_URL, done.stdout, count=1)
    return "".join(f"{line.rstrip()}\n" for line in printed.splitlines())


def shown() -> str:
    """What README shows."""
    found = _BLOCK.search(README.read_text())
    assert found, "README shows no taskq top"
    return found[0]


def form(text: str) -> list[object]:
    """What stays the same each time: the words of the first line, headings, names, columns."""
    head, *tables = [part.splitlines() for part in text.split("\n\n")]
    formed: list[object] = [re.sub(r"[\d.,]+", "N", head[0])]
    for table in tables:
        headings = [heading.strip() for heading in re.split(r"  +", table[0])]
        cells = [line.split() for line in table[1:]]
        assert all(len(line) == len(headings) for line in cells), "\n".join(table)
        named = sorted(line[0] for line in cells) if headings[0] != "ID" else len(cells)
        formed.append((headings, named))
    return formed


def _order(url: str, over: threading.Event) -> None:
    with TaskQ("customers", broker=url, task_ignore_result=True) as app:
        number = 0
        while not over.wait(0.03):
            with suppress(TaskqError):
                app.send_task("shop.send_mail", args=(number,), queue="mail")
                app.send_task("shop.thumbnail", args=(number,), queue="pictures")
            number += 1


def _environment(url: str) -> dict[str, str]:
    ours = {key: value for key, value in os.environ.items() if not key.startswith("TASKQ_")}
    return ours | {"PYTHONPATH": str(REPOSITORY), "TASKQ_BROKER_URL": url}


def _main() -> None:
    node, workers = RabbitNode(), list[WorkerProcess]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def start(place: Path, *arguments: str, env: dict[str, str]) -> WorkerProcess:
            command = (sys.executable, "-m", "taskq", "worker", *arguments)
            worker = WorkerProcess(
                *command,
                folder=place,
                env=_environment(env["TASKQ_BROKER_URL"]),
                log=folder / f"worker-{len(workers)}.log",
            )
            workers.append(worker)
            return worker

        try:
            node.start()
            text = take(Rabbit(node).url, folder, start)
        finally:
            for worker in workers:
                worker.end()
            node.close()
    README.write_text(_BLOCK.sub(lambda _: text, README.read_text()))


if __name__ == "__main__":
    _main()
