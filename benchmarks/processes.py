"""A program under measurement with everything it starts: its memory, its processor time, its end.

All figures come from Linux's /proc, so that nothing runs in the measured processes.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.program import leashed

_TICKS = os.sysconf("SC_CLK_TCK")

#: How long a program may take to end after TERM, in seconds.
_PATIENCE = 20.0

MIB = 1024 * 1024


class Ended(Exception):
    """A program ended, or hung, where it should have worked on; with the end of its log."""


class Program:
    """*command*, running in *folder* with the environment *env*, and writing into *log*."""

    def __init__(
        self, command: Sequence[str], *, folder: Path, env: Mapping[str, str], log: Path
    ) -> None:
        self.command = tuple(command)
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                leashed(*command),
                cwd=folder,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def tree(self) -> list[int]:
        """The ids of the process and of all its living descendants."""
        parents = dict(_parents())
        found = [self._process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def memory(self) -> float:
        """The proportional set size of all its processes together, in MiB."""
        return sum(map(_pss, self.tree())) / MIB

    def peak(self) -> float:
        """The most that the first process alone ever had resident, in MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)
        return int(found[1]) / 1024 if found else 0.0

    def cpu(self) -> float:
        """The processor time that its living processes have used, in seconds."""
        return sum(map(_cpu, self.tree()))

    def parent_cpu(self) -> float:
        """That of the first process alone."""
        return _cpu(self._process.pid)

    def check(self) -> None:
        """Raise Ended if it is no longer there, unless it ended by itself and well."""
        if self._process.poll():
            raise Ended(f"{self} ended with {self._process.returncode}:\n{self.log()}")

    def log(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-4000:]

    def wait_for_line(self, words: str, timeout: float = 60.0) -> None:
        """Return as soon as it has printed *words*."""
        deadline = time.monotonic() + timeout
        while words not in self._log.read_text(errors="replace"):
            self.check()
            if time.monotonic() > deadline:
                raise Ended(f"{self} did not say {words!r}:\n{self.log()}")
            time.sleep(0.002)

    def stop(self) -> None:
        """End it: TERM, and SIGKILL for whatever is left after a while.  Idempotent."""
        family = self.tree()
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def __str__(self) -> str:
        return " ".join(self.command)


def _parents() -> Sequence[tuple[int, int]]:
    """Every process that there is, with its parent."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                found.append((int(entry.name), int(parent)))
    return found


def _pss(pid: int) -> int:
    with suppress(OSError):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)
        return int(found[1]) * 1024 if found else 0
    return 0


def _cpu(pid: int) -> float:
    """Processor time in seconds: exact where Linux tells, in hundredths elsewhere."""
    with suppress(OSError):
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        with suppress(OSError):
            return sum(int((each / "schedstat").read_text().split()[0]) for each in threads) / 1e9
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0
