"""Quick tasks and slow tasks, kept apart by the queues they go to."""

import time
from typing import Any

from taskq import TaskQ

app = TaskQ("two-queues", task_default_queue="fast", task_routes={"tasks.report": "slow"})


@app.task(bind=True)
def thumbnail(self: Any, picture: str) -> str:
    return f"{picture} by {self.request.hostname}"


@app.task(bind=True)
def report(self: Any, month: str) -> str:
    time.sleep(0.5)
    return f"{month} by {self.request.hostname}"
