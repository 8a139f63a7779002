"""A page shared by a child and its parent: which job the child is at, and since when.

The child writes it before and after each call of user code; the parent reads it at any time, and
after the child's death, when no frame can tell any more.  A job number that the child has begun
counts as begun until its DONE frame arrives: a child that dies while it stores a result has not
finished the job.
"""

import mmap
import os
import struct
import tempfile

_FORM = struct.Struct("<QBd")

IDLE = 0
#: Inside the task's own function: the only state in which a soft time limit may strike.
IN_USER_CODE = 1
#: Around the function: decoding, storing, sending.
AROUND = 2


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
    """One child's page; written by the child alone."""

    def __init__(self, descriptor: int) -> None:
        #: -1 makes a page of one's own, shared with nobody.
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)

    def write(self, job: int, state: int, since: float) -> None:
        """Note that the child is in *state* of *job* since the monotonic moment *since*."""
        _FORM.pack_into(self._page, 0, job, state, since)

    def read(self) -> tuple[int, int, float]:
        """Job number (0 before the first), state, and the monotonic moment it began."""
        job, state, since = _FORM.unpack_from(self._page, 0)
        return job, state, since

    def close(self) -> None:
        """Unmap the page."""
        self._page.close()
