"""How a death reads."""

import os
import signal

from taskq.worker.death import describe_death, describe_exit


def status_of(work: str) -> int:
    pid = os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", work)
    return os.waitpid(pid, 0)[1]


def test_an_exit_code_and_a_signal_are_told_by_number_and_name() -> None:
    assert "exit code 3" == describe_exit(status_of("exit 3"))
    assert "signal 9 (SIGKILL)" == describe_exit(status_of("kill -9 $$"))


def test_the_circumstances_follow_as_far_as_they_are_known() -> None:
    assert (
        "signal 9 (SIGKILL), over 1.5 times max_memory_per_child, 2.5 s into the task, "
        "peak memory 300 MiB, the kernel killed 1 for want of memory (oom_kill)"
    ) == describe_death(
        signal.SIGKILL,
        why="over 1.5 times max_memory_per_child",
        ran=2.5,
        peak=300 * 1024,
        oom_kills=1,
    )
