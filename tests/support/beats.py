"""The real `taskq beat` as processes: several of one schedule, killed, frozen and cut off."""

import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.process import _WORKERS, WorkerProcess, _environment

#: A folder with schedules.
APP = Path(__file__).parent / "schedule"


class StartBeat(Protocol):
    """What the fixture `beat_process` hands out."""

    def __call__(self, *arguments: str, env: Mapping[str, str] | None = None) -> WorkerProcess:
        """Start `taskq beat *arguments*` beside the schedules, with *env* added."""


@pytest.fixture
def beat_process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartBeat]:
    """Starts beats; those still running at the end of the test are stopped, and must obey."""
    beats = request.node.stash.setdefault(_WORKERS, [])

    def start(*arguments: str, env: Mapping[str, str] | None = None) -> WorkerProcess:
        beat = WorkerProcess(
            *(sys.executable, "-m", "taskq", "beat", *arguments),
            folder=APP,
            env={**_environment(), **(env or {})},
            log=tmp_path / f"beat-{len(beats) + 1}.log",
        )
        beats.append(beat)
        return beat

    try:
        yield start
        for beat in beats:
            if beat.is_running:
                beat.send(signal.SIGCONT)
                assert beat.stop() == 0
    finally:
        for beat in beats:
            beat.end()
