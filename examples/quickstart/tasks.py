"""What the worker runs."""

from taskq import TaskQ

app = TaskQ("quickstart")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def divide(x: float, y: float) -> float:
    return x / y
