"""A producer that keeps sending whatever happens, and writes down what became of each call.

`steady.py BROKER QUEUE COUNT THREADS PAUSE SECONDS OUTCOMES`: THREADS threads together make COUNT
calls of a task that takes SECONDS, each with PAUSE seconds after each call; every call adds a line
to the file OUTCOMES: the id, and `confirmed`, `refused` or `unknown`.
"""

import os
import sys
import threading
import time
from itertools import count

from taskq import TaskQ
from taskq.client.sender import new_id
from taskq.errors import PublishRefused, PublishUnconfirmed


def main(
    broker: str, queue: str, end: int, threads: int, pause: float, seconds: float, outcomes: str
) -> None:
    file = os.open(outcomes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    app = TaskQ("steady", broker=broker)
    numbers = count()

    def send() -> None:
        while next(numbers) < end:
            task_id, outcome = new_id(), "confirmed"
            try:
                app.send_task(
                    "tasks.work", args=(seconds,), queue=queue, task_id=task_id, ignore_result=True
                )
            except PublishRefused:
                outcome = "refused"
            except PublishUnconfirmed:
                outcome = "unknown"
            os.write(file, f"{task_id} {outcome}\n".encode())
            time.sleep(pause)

    senders = [threading.Thread(target=send) for _ in range(threads)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    app.close()


if __name__ == "__main__":
    broker, queue, end, threads, pause, seconds, outcomes = sys.argv[1:]
    main(broker, queue, int(end), int(threads), float(pause), float(seconds), outcomes)
