"""The Python stacks of a child, which it writes while it runs on: asked for, awaited, read.

A signal has `faulthandler` write them in C, from inside the signal's handler: so a child answers
that holds the interpreter lock, too.  They go into the child's memory file, behind the page of its
slate, where the parent reads them.

They are complete when the handler has returned.  The kernel tells that: a signal is blocked in the
thread that handles it, for as long as it does (`SigBlk`, proc_pid_status(5)).  Where there is no
/proc the text has to have stayed as it is for a moment.
"""

import faulthandler
import mmap
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from taskq import clock
from taskq.loop import Loop

SIGNAL = signal.SIGUSR2
#: A child that has not answered after so many seconds does not.
PATIENCE = 2.0
#: Of what a child writes, so many bytes are read.
LONGEST = 256 * 1024

#: Seconds between two looks at what was written.
_LOOK = 0.01
#: Where the text begins in the file.
_START = mmap.PAGESIZE


def answer(descriptor: int) -> None:
    """From now on have this process write its stacks to *descriptor* when it is asked."""
    faulthandler.register(SIGNAL, file=descriptor, all_threads=True)


def ask(loop: Loop, pid: int, descriptor: int, heard: Callable[[str], None]) -> None:
    """Ask process *pid* for its stacks; *heard* is called once, with them or with what went wrong.

    It has called `answer`, with the same *descriptor*: their place in the file is one.  Nobody
    else asks meanwhile.
    """
    busy = _handling(pid)  # threads may keep the signal blocked of their own accord
    os.ftruncate(descriptor, _START)
    os.lseek(descriptor, _START, os.SEEK_SET)
    # The process may be gone before its answer is read, and the file closed by its owner.
    mine = os.dup(descriptor)
    deadline = clock.monotonic() + PATIENCE

    def look(last: int) -> None:
        size = os.fstat(mine).st_size
        complete = _START < size == last and _handling(pid) <= busy
        if not complete and clock.monotonic() < deadline:
            loop.call_later(_LOOK, partial(look, size))
            return
        text = os.pread(mine, LONGEST, _START).decode("utf-8", "replace")
        if size > _START + LONGEST:
            text += f"\n... and {size - _START - LONGEST:,} bytes more"
        os.close(mine)
        heard(text or f"no answer within {PATIENCE:g} s")

    try:
        os.kill(pid, SIGNAL)
    except ProcessLookupError:
        os.close(mine)
        heard("it has ended")
    else:
        look(0)


def _handling(pid: int) -> set[str]:
    """The threads of process *pid* that are in the handler, or keep the signal blocked."""
    return {
        status.parent.name
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        if _blocks(status)
    }


def _blocks(status: Path) -> bool:
    try:
        lines = status.read_text().splitlines()
    except OSError:  # the thread has ended
        return False
    mask = next((line.split()[1] for line in lines if line.startswith("SigBlk:")), "0")
    return bool(int(mask, 16) >> (SIGNAL - 1) & 1)
