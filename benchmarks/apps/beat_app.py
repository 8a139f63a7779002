"""The benchmark's schedule: many entries, and how late each of them was confirmed by the broker.

What the schedule is, the row has written beside the record (see rows/schedule.py).
"""

import atexit
import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import work

from taskq import TaskQ, hooks

_RECORD = Path(os.environ["BENCH_RECORD"])
_PLAN = json.loads(_RECORD.with_name("plan").read_text())

app = TaskQ(
    "bench-beat",
    **work.SETTINGS,
    beat_store=f"sqlite:///{_RECORD.with_name('beat.db')}",
    beat_schedule={
        f"entry {number}": {"task": "noop", "schedule": _PLAN["schedule"]}
        for number in range(_PLAN["entries"])
    },
)

_lines = _RECORD.open("a", buffering=1 << 16)
atexit.register(_lines.close)


@hooks.after_publish
def note_lateness(*, task_id: str, **_: Any) -> None:
    due = datetime.fromisoformat(task_id.partition("@")[2]).timestamp()
    _lines.write(f"{due:.6f} {time.time() - due:.6f}\n")
