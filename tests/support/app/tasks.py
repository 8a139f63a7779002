"""The tasks that tests run in a worker: each does what its arguments say.

The folder stands alone: a worker that starts in it needs nothing else of the tests.
"""

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

from taskq import Reject, SoftTimeLimitExceeded, TaskQ

app = TaskQ("tests")


def note(task_id: str, remark: object) -> None:
    """Write one line into the ledger of the test, where it gave one.

    One `write` to a file opened with O_APPEND: lines of many processes do not mix, and what was
    written stays when the writer is killed.
    """
    if path := os.environ.get("TASKQ_TEST_LEDGER"):
        ledger = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(ledger, f"{task_id} {remark}\n".encode())
        finally:
            os.close(ledger)


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def fail(text: str) -> None:
    raise ValueError(text)


@app.task(bind=True)
def record(self: Any, n: int) -> int:
    """Stands in the ledger once for each time that it ran."""
    note(self.request.id, n)
    return n


@app.task
def mark(name: str) -> None:
    """Stands in the ledger under the name that it was given."""
    note(name, "ran")


@app.task(bind=True)
def work(self: Any, seconds: float) -> None:
    """Stands in the ledger once for each time that it came to its end."""
    time.sleep(seconds)
    note(self.request.id, "done")


@app.task(bind=True, max_retries=None, default_retry_delay=0)
def act(self: Any, word: str, argument: Any = None) -> Any:
    """Does *word*; stands in the ledger from its start, whatever becomes of it."""
    note(self.request.id, word)
    match word:
        case "ok":
            return argument
        case "fail":
            raise RuntimeError(argument)
        case "retry":  # as many times as argument says
            if self.request.retries < argument:
                raise self.retry()
            return self.request.retries
        case "sleep":
            time.sleep(argument)
        case "hold":  # until the file named by argument exists
            while not Path(argument).exists():
                time.sleep(0.01)
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "big":  # a result of as many characters as argument says
            return "x" * argument
        case "reject":
            raise Reject(argument, requeue=False)
        case "unencodable":
            return object()
        case _:
            raise ValueError(f"act() knows no word {word!r}")
    return None


@app.task
def spread(count: int, queue: str) -> list[str]:
    """Sends *count* tasks to *queue*; their ids."""
    return [record.apply_async((n,), queue=queue).id for n in range(count)]


@app.task
def withdraw(task_id: str) -> None:
    """Revokes a task."""
    app.AsyncResult(task_id).revoke()


@app.task
def stray() -> None:
    """Sends a message where no queue is."""
    record.apply_async((1,), exchange="amq.direct", routing_key="nowhere")


@app.task(bind=True)
def report(self: Any, gate: str) -> str:
    """Says how far it is, until the file *gate* exists."""
    self.update_state(state="PROGRESS", meta={"done": 1, "of": 2})
    while not Path(gate).exists():
        time.sleep(0.01)
    return "ready"


@app.task(bind=True, soft_time_limit=0.3, time_limit=30)
def tidy(self: Any) -> str:
    """Sleeps until its soft limit, and ends well."""
    note(self.request.id, "tidy")
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "tidied up"
    return "never warned"


@app.task(bind=True, time_limit=0.3)
def deaf(self: Any, hold_lock: bool = False) -> None:
    """Outlasts its hard limit: in Python, or in C code that never lets the interpreter go."""
    note(self.request.id, "deaf")
    if hold_lock:
        ctypes.PyDLL(None).sleep(600)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


@app.task(bind=True)
def orphan(self: Any) -> int:
    """Starts a process whose own parent ends at once; its id, once it is nobody's child."""
    note(self.request.id, "orphan")
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        left = os.fork()
        if left:
            os.write(writing, str(left).encode())
        os._exit(0)
    os.waitpid(parent, 0)
    return int(os.read(reading, 20))


@app.task(bind=True)
def swell(self: Any, mebibytes: int) -> None:
    """Takes memory and sleeps on it."""
    note(self.request.id, "swell")
    hoard = bytearray(mebibytes * 1024 * 1024)
    hoard[::4096] = b"x" * len(hoard[::4096])
    time.sleep(600)
