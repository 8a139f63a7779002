"""What the worker runs for the web service."""

import time

from taskq import TaskQ

app = TaskQ("web")


@app.task
def resize(picture: str, width: int) -> str:
    time.sleep(0.1)  # it would take its time
    return f"{picture} at {width} pixels"
