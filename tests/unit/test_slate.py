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


def test_a_child_is_warned_of_one_job_and_no_other() -> None:
    page = slate.Slate(-1)

    page.warn(7)

    assert page.is_warned(7)
    assert not page.is_warned(8)
    page.close()
