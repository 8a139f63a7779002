"""A page shared by a child and its parent: which job the child is at, and since when.

The child writes it before and after each call of user code; the parent reads it at any time, and
after the child's death, when no frame can tell any more.  A job that the child has begun counts as
begun until it is reported: a child that dies while it stores a result has not finished the job.

Each word of the page has one writer, and is written by one machine instruction.  What the parent
tells in `bar` reaches the child in much less than the time until the parent acts on it (`recall`).
"""

import mmap
import os
import tempfile

IDLE = 0
#: Inside the task's own function: the only state in which a soft time limit may strike.
IN_USER_CODE = 1
#: Around the function: decoding, storing, sending.
AROUND = 2

#: The words of the page.
_JOB, _STATE, _SINCE, _FINISHED, _BAR, _WARNED = range(6)


def create() -> int:
    """The descriptor of a new page, to be shared with a child; the caller closes it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("taskq-slate")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, mmap.PAGESIZE)
    return descriptor


class Slate:
    """One child's page; turns count the jobs that the child was sent, from 1."""

    def __init__(self, descriptor: int) -> None:
        #: -1 makes a page of one's own, shared with nobody.
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        self._words = memoryview(self._page).cast("Q")
        self._moments = memoryview(self._page).cast("d")

    # -- the child's -------------------------------------------------------------------------

    def write(self, job: int, state: int, since: float) -> None:
        """Note that the child is in *state* of *job* since the monotonic moment *since*."""
        # The job last: who reads a new job with an old moment would think that it runs for long.
        self._moments[_SINCE] = since
        self._words[_STATE] = state
        self._words[_JOB] = job

    def finish(self, turn: int) -> None:
        """Note that all up to *turn* are finished; those not reported yet were successes."""
        self._words[_FINISHED] = turn

    def is_warned(self, job: int) -> bool:
        """Whether the soft time limit of *job* has passed."""
        return self._words[_WARNED] == job

    @property
    def bar(self) -> int:
        """Jobs of turns before this one are not to be begun any more."""
        return self._words[_BAR]

    # -- the parent's ------------------------------------------------------------------------

    @bar.setter
    def bar(self, turn: int) -> None:
        self._words[_BAR] = turn

    def warn(self, job: int) -> None:
        """Note that the soft time limit of *job* has passed."""
        self._words[_WARNED] = job

    def read(self) -> tuple[int, int, float]:
        """Job number (0 before the first), state, and the monotonic moment it began."""
        job = self._words[_JOB]
        return job, self._words[_STATE], self._moments[_SINCE]

    @property
    def finished(self) -> int:
        """The last turn that was finished."""
        return self._words[_FINISHED]

    def close(self) -> None:
        """Unmap the page."""
        self._words.release()
        self._moments.release()
        self._page.close()
