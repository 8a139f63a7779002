"""A schedule that is due often, for tests of beat; its tasks are never run."""

from taskq import TaskQ

app = TaskQ(
    "ticks",
    beat_schedule={
        f"tick {number}": {"task": "ticks.tick", "schedule": 0.5, "args": [number]}
        for number in range(4)
    },
)


@app.task
def tick(number: int) -> int:
    return number
