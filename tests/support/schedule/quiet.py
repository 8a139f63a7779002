"""An app whose own schedule is in its environment, for tests that change it while beat runs."""

import json
import os
from typing import Any

from taskq import TaskQ

app = TaskQ("quiet", beat_schedule=json.loads(os.environ.get("TEST_SCHEDULE", "{}")))


@app.task(queue="work")
def work(*args: Any, **kwargs: Any) -> None:
    """Does nothing, if anybody runs it."""


@app.task(queue="work")
def fail(words: str) -> None:
    raise ValueError(words)
