"""Keeping long tasks: deliveries that would outlast the broker's patience are taken over in time.

RabbitMQ closes the channel of a consumer that leaves a delivery unacknowledged for longer than its
`consumer_timeout` (30 minutes, unless set), and gives everything on it to others: a task of an hour
would run twice, at least (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout).  So at
half of that time the worker publishes a copy of the message to a *claim queue* that it alone
consumes, waits for the confirm, receives the copy, and only then acknowledges the original: the job
goes on, held by a fresh delivery.  The same again, as often as needed.

When the worker dies the copy falls back into the claim queue, and from there, after a few seconds
(`topology`), into the work queue that it came from.  A worker that was only cut off is quicker:
it finds its claims, and the jobs that still run take them up again.

This file names claims; when to make one is the dispatcher's business, what it means for a job that
of `renewal`.
"""

import secrets

from taskq.broker import topology
from taskq.broker.base import Delivery, Queue, Route
from taskq.worker.ledger import Job

#: `<worker's token>:<job number>`
HEADER = "taskq-claim"


class Claims:
    """The claims of one worker process, told from those of all others by a random token."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(8)
        #: Claim queue -> the work queue that its messages are of.
        self._queues: dict[str, str] = {}

    @property
    def any(self) -> bool:
        """Whether a claim was ever made."""
        return bool(self._queues)

    def name(self, job: Job) -> str:
        """The value of the header that marks a copy as the claim of *job*."""
        return f"{self._token}:{job.number}"

    def queue(self, work_queue: str) -> tuple[Queue, bool]:
        """The claim queue for *work_queue*, and whether it is asked for the first time."""
        name = f"taskq.claim.{self._token}.{work_queue}"
        is_new = name not in self._queues
        self._queues[name] = work_queue
        return Queue(name, kind="claim", arguments=topology.claim_arguments(work_queue)), is_new

    def route(self, work_queue: str) -> Route:
        """Where the copy of a message of *work_queue* goes."""
        queue, _ = self.queue(work_queue)
        return Route("", queue.name, (queue,))

    def recognise(self, delivery: Delivery) -> int | None:
        """The number of the job that *delivery* is a claim of; None if it is none of this worker's.

        A delivery from a claim queue is told apart from here on by its work queue's name only.
        """
        delivery.queue = self._queues.get(delivery.queue, delivery.queue)
        if HEADER.encode() not in delivery.message.raw:
            return None
        token, _, number = str(delivery.message.headers.get(HEADER)).partition(":")
        return int(number) if token == self._token and number.isdigit() else None
