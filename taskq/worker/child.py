"""What a forked child does, from fork to exit: take jobs, run them, say how they ended.

A child holds no connection to the broker, and runs one job at a time.  The same code serves as the
clerk, who runs no task but stores the outcomes that the parent decided.
"""

import os
import random
import signal
import socket
import sys
from typing import TYPE_CHECKING

from taskq import clock, hooks, log
from taskq.worker import clerk, frames, stacks
from taskq.worker.executor import Executor, Terminated, Told
from taskq.worker.frames import ChildLine
from taskq.worker.options import WorkerOptions
from taskq.worker.outcome import Outcome
from taskq.worker.relay import Relay
from taskq.worker.slate import AROUND, Slate

if TYPE_CHECKING:
    from taskq.app import TaskQ

#: Linux kills the process with the highest score when memory runs out: a child, not the parent.
_OOM_SCORE = "500"


def main(app: "TaskQ", sock: socket.socket, slate: int, options: WorkerOptions) -> int:
    """Serve the parent at the other end of *sock* until it says stop; returns the exit code."""
    _settle_in()
    line = ChildLine(sock)
    relay = Relay(line)
    app.use_outlet(relay)
    page = Slate(slate)
    executor = Executor(app, relay, page, node=options.name)
    stacks.answer(slate)
    hooks.worker_process_init.send()
    signal.signal(signal.SIGUSR1, lambda _number, _frame: executor.warn())
    line.send([frames.READY, os.getpid()])
    turn = 0

    def say(endings: list[Told]) -> None:
        for told in endings:
            if told.outcome is Outcome.SUCCESS:
                line.done(told.job, told.runtime, told.shown)
            else:
                line.send([frames.ENDED, *told])
        if not executor.owes:
            page.finish(turn)

    for frame in line.frames():
        if frame[0] == frames.RUN:
            turn += 1
            # First begun, then looked whether it may be: the parent does it the other way round.
            page.write(frame[1], AROUND, clock.monotonic())
            if turn < page.bar:
                line.send([frames.BACK, turn])
            else:
                say(executor.run(frame, more=line.has_more))
        elif frame[0] == frames.EVENTS:
            executor.shows = frame[1]
        elif frame[0] == frames.STORE:
            line.send([frames.STORED, frame[1], clerk.store(app, relay, frame)])
        if executor.owes and not line.has_more:
            say(executor.settle())
    say(executor.settle())
    sys.stdout.flush()
    sys.stderr.flush()
    return 0


def _settle_in() -> None:
    # The terminal's Ctrl-C is for the parent, which lets running tasks finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminate)
    # Children of one nursery would otherwise draw the same numbers.
    random.seed()
    log.reopen()
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write(_OOM_SCORE)
    except OSError:
        pass  # not Linux, or not allowed: the kernel chooses as it likes


def _terminate(_number: int, _frame: object) -> None:
    # At the next bytecode: `finally` blocks of the task run, for as long as kill_wait lets them.
    raise Terminated(128 + signal.SIGTERM)
