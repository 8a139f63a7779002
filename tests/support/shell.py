"""Somebody at a shell who calls `taskq`, with a terminal or without."""

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.process import APP, REPOSITORY
from tests.support.program import leashed

#: Seconds that a command may take.
BOUND = 60


class Shell:
    """Calls `taskq` in *folder*, where the environment names the broker at *url*."""

    def __init__(self, url: str, folder: Path = APP, **variables: str) -> None:
        ours = {key: value for key, value in os.environ.items() if not key.startswith("TASKQ_")}
        ours.pop("NO_COLOR", None)
        self.env = ours | {"PYTHONPATH": str(REPOSITORY), "TASKQ_BROKER_URL": url} | variables
        self._folder = folder

    def start(self, *words: str, **options: Any) -> "subprocess.Popen[str]":
        """`taskq *words*` as it begins, ended with the test."""
        return subprocess.Popen(
            leashed(sys.executable, "-m", "taskq", *words),
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            | {"cwd": self._folder, "env": self.env, "text": True}
            | options,
        )

    def run(self, *words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """What `taskq *words*` printed; it must end with *code*."""
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=BOUND)
        finally:
            process.kill()
        assert process.returncode == code, f"{words}: {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(words, code, out, err)

    def told(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        """What `taskq *words* --json` printed."""
        printed = self.run(*words, "--json", code=code).stdout
        return [json.loads(line) for line in printed.splitlines()]


class Screen:
    """A terminal of *columns* by *lines* on which `taskq *words*` runs."""

    def __init__(self, shell: Shell, *words: str, columns: int = 80, lines: int = 24) -> None:
        size = {"COLUMNS": str(columns), "LINES": str(lines), "TERM": "xterm"}
        self._ours, theirs = pty.openpty()
        try:
            self.process = shell.start(
                *words, stdout=theirs, stderr=theirs, env=shell.env | size, process_group=0
            )
        finally:
            os.close(theirs)
        self._shown = b""

    def read_until(self, text: str) -> str:
        """All that was shown when *text* was, or the program has ended."""
        with suppress(OSError):  # Linux's way to say that the other side is closed
            while text.encode() not in self._shown and (chunk := os.read(self._ours, 4096)):
                self._shown += chunk
        return self._shown.decode()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Wait for the end; the exit code, and all that was shown."""
        with suppress(OSError):
            while chunk := os.read(self._ours, 4096):
                self._shown += chunk
        code = self.process.wait(BOUND)
        os.close(self._ours)
        return code, self._shown.decode()
