"""How a process died, in words: for the log, and as evidence in a dead letter."""

import os
import signal
from pathlib import Path


def describe_exit(status: int) -> str:
    """The wait *status* of a process in words: `exit code 3`, `signal 9 (SIGKILL)`."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"signal {number} ({signal.Signals(number).name})"
        except ValueError:
            return f"signal {number}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"


def describe_death(
    status: int, *, why: str = "", ran: float | None = None, peak: int = 0, oom_kills: int = 0
) -> str:
    """A child's wait *status* and the circumstances, as far as they are known.

    *why* it was killed, if it was the worker; *ran* for how many seconds its task; *peak* KiB of
    resident memory; *oom_kills* of the kernel in its control group meanwhile.
    """
    parts = [describe_exit(status)]
    if why:
        parts.append(why)
    if ran is not None:
        parts.append(f"{ran:.1f} s into the task")
    if peak:
        parts.append(f"peak memory {peak / 1024:.0f} MiB")
    if oom_kills:
        parts.append(f"the kernel killed {oom_kills} for want of memory (oom_kill)")
    return ", ".join(parts)


class OomKills:
    """How many processes of this control group the kernel killed for want of memory.

    From `memory.events` of cgroup v2 (https://docs.kernel.org/admin-guide/cgroup-v2.html); always 0
    where there is none.
    """

    def __init__(self) -> None:
        self._file = _memory_events()
        self._last = self._read()

    def since_last(self) -> int:
        """How many there were since the last call, or since the beginning."""
        last, self._last = self._last, self._read()
        return self._last - last

    def _read(self) -> int:
        try:
            events = dict(line.split() for line in self._file.read_text().splitlines())
            return int(events.get("oom_kill", 0))
        except (OSError, ValueError):
            return 0


def _memory_events() -> Path:
    root = Path("/sys/fs/cgroup")
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return root / line[3:].lstrip("/") / "memory.events"
    except OSError:
        pass
    return root / "memory.events"
