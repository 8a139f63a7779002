"""The page that outlives a child."""

import os
import signal

from taskq.worker import slate


def test_a_parent_reads_what_its_dead_child_was_doing() -> None:
    descriptor = slate.create()
    page = slate.Slate(descriptor)

    pid = os.fork()
    if pid == 0:
        slate.Slate(descriptor).write(7, slate.IN_USER_CODE, 12.5)
        os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(pid, 0)

    assert os.WTERMSIG(status) == signal.SIGKILL
    assert page.read() == (7, slate.IN_USER_CODE, 12.5)
    page.close()
    os.close(descriptor)


def test_a_new_page_names_no_job() -> None:
    descriptor = slate.create()
    page = slate.Slate(descriptor)

    assert page.read() == (0, slate.IDLE, 0.0)
    page.close()
    os.close(descriptor)
