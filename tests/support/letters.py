"""Dead letters as a worker writes them, and putting many of them where they belong."""

import time
from collections.abc import Sequence
from typing import Any

from taskq.broker import topology
from taskq.broker.base import Broker, Queue, Route
from taskq.loop import Loop
from taskq.wire import dead, task
from taskq.wire.headers import TaskHeaders
from taskq.wire.message import Message
from tests.support.wait import wait_until


def a_task(id: str, name: str = "tasks.record", args: Sequence[Any] = (1,), **more: Any) -> Message:
    """A task's message; *more* are the other fields of its headers."""
    headers = TaskHeaders(task=name, id=id, **more)
    return task.encode(headers, args, {}, priority=0, reply_to="taskq.reply.nobody")


def a_letter(
    message: Message,
    *,
    queue: str = "q1",
    reason: str = "no luck",
    exception: str = "ValueError",
    age: float = 60.0,
) -> Message:
    """*message* as a worker gives it up, *age* seconds ago."""
    headers = dead.dead_headers(
        queue=queue,
        reason=reason,
        exception_type=exception,
        exception=reason,
        traceback=f"Traceback (most recent call last):\n  ...\n{exception}: {reason}\n",
        attempts=4,
        worker="w1@host",
        died_at=time.time() - age,
    )
    return task.resend(message, headers, expiration="604800000", delivery_mode=2)


def bury(broker: Broker, letters: Sequence[Message], queue: str = "q1") -> None:
    """Put *letters* into the dead-letter queue of *queue*, in this order."""
    place = Queue(topology.dead(queue), kind="dead")
    loop = Loop()
    outlet = broker.outlet(loop)
    answers: list[object] = []
    for letter in letters:
        outlet.publish(letter, Route("", place.name, (place,)), answers.append, timeout=60)
    wait_until(lambda: loop.turn(0.05) or len(answers) == len(letters), "the confirms", timeout=60)
    outlet.close()
    loop.close()
    assert not any(answers)
