"""A worker made of paper, for what concerns remote control: it notes what it is told.

Its mailbox is the real one, on whatever broker, turned by the test or in a thread of its own.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from taskq.broker.base import Broker
from taskq.control.base import CommandError, Later
from taskq.control.mailbox import Mailbox
from taskq.control.memory import Remembered
from taskq.loop import Loop
from tests.support.wait import wait_until


class Ticks:
    """A logical clock."""

    def __init__(self):
        self.now = 0

    def hear(self, clock):
        self.now = max(self.now, clock)

    def tick(self):
        self.now += 1
        return self.now


class PaperWorker:
    """Knows the task `add`, runs the task `running`, and notes in *told* what it is to do."""

    def __init__(self, node="taskq@paper"):
        self.node = node
        self.clock = Ticks()
        self.remembered = Remembered()
        self.told: list[Any] = []
        #: What `apply` heard.
        self.changes: list[Any] = []
        self.dumps: list[Later] = []
        self.events = False

    def apply(self, change):
        self.changes.append(change)

    def stats(self):
        return {"total": {"add": 1}, "pid": 1}

    def active(self, safe):
        return [{"id": "running", "args": "(1,)" if safe else [1]}]

    def reserved(self, safe):
        return [{"id": "waiting", "args": "(1,)" if safe else [1]}]

    def scheduled(self, safe):
        return [{"eta": "2030-01-01", "priority": 6, "request": {"id": "later", "safe": safe}}]

    def query(self, ids):
        return {"running": ["active", {"id": "running"}]} if "running" in ids else {}

    def registered(self, attributes):
        return [f"add [{attribute}=x]" for attribute in attributes]

    def knows(self, task):
        return task == "add"

    def stamped(self, stamps):
        return ["running"] if "blue" in stamps.get("colour", ()) else []

    def conf(self, with_defaults):
        return {"timezone": "UTC"} if with_defaults else {}

    def report(self):
        return "all is well"

    def active_queues(self):
        return [{"name": "taskq"}]

    def dump(self):
        self.dumps.append(Later())
        return self.dumps[-1]

    def terminate(self, ids, signum):
        self.told.append(("terminate", tuple(ids), signum))
        return [each for each in ids if each == "running"]

    def add_consumer(self, queue, exchange, exchange_type, routing_key, options):
        self.told.append(
            ("add_consumer", queue, exchange, exchange_type, routing_key, dict(options))
        )

    def cancel_consumer(self, queue):
        if queue == "unknown":
            raise CommandError("there is no consumer of queue 'unknown'")
        self.told.append(("cancel_consumer", queue))

    def pool_grow(self, count):
        self.told.append(("pool_grow", count))

    def pool_shrink(self, count):
        self.told.append(("pool_shrink", count))

    def pool_restart(self):
        self.told.append("pool_restart")

    def autoscale(self, most, least):
        return most or 10, least or 0

    def enable_events(self):
        was, self.events = self.events, True
        return not was

    def disable_events(self):
        was, self.events = self.events, False
        return was

    def heartbeat(self):
        self.told.append("heartbeat")

    def drain(self):
        self.told.append("drain")

    def undrain(self):
        self.told.append("undrain")

    def shutdown(self):
        self.told.append("shutdown")


@contextlib.contextmanager
def listening(broker: Broker, worker: PaperWorker) -> Iterator[PaperWorker]:
    """*worker* with its mailbox open on *broker*, in a thread of its own, until the end."""
    loop = Loop()
    ready = threading.Event()
    failures: list[BaseException] = []

    def run():
        try:
            outlet = broker.outlet(loop)
            mailbox = Mailbox(loop, broker, outlet, worker)
            mailbox.start(ready.set)
            loop.start()
            mailbox.close()
            outlet.close(1.0)
        except BaseException as error:  # the test shall see it
            failures.append(error)

    thread = threading.Thread(target=run, name=worker.node)
    thread.start()
    try:
        wait_until(lambda: ready.is_set() or failures, f"the mailbox of {worker.node}")
        if not failures:
            yield worker
    finally:
        loop.add_callback(loop.stop)
        thread.join()
        loop.close()
        if failures:
            raise failures[0]
