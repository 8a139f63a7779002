"""What workers and tasks come to, told to monitors as it happens, in Celery's words.

`sender` tells, `receiver` hears, `state` draws the whole picture from what was heard; how events
look on the wire is `wire.event`'s business, who sends which is the worker's and the producer's.
"""

from taskq.events.receiver import Receiver
from taskq.events.state import State, Task, Worker

__all__ = ["Receiver", "State", "Task", "Worker"]
