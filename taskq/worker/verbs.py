"""What the worker's decisions can have done: the verbs, without anybody who does them.

`hands` carries them out; the dispatcher and its rooms ask for them.
"""

from typing import Protocol

from taskq.broker.base import Delivery
from taskq.worker.ledger import Job


class Hands(Protocol):
    """What the dispatcher can have done; each call returns at once."""

    # -- children ------------------------------------------------------------------------------

    def run(self, child: int, job: Job) -> None:
        """Send *job* to *child*."""

    def answer(self, child: int, ticket: int, refusal: str | None) -> None:
        """Tell *child* that its messages are confirmed, or why not."""

    def look(self) -> None:
        """Look in a moment at what children have begun and finished; see `recall`."""

    def recall(self, child: int) -> None:
        """Take back what *child* has not begun; `take_back` or `came_back` follows."""

    def terminate(self, child: int, job: Job, signum: int) -> bool:
        """End *job*, if that is what *child* has begun, by signal *signum*; whether it is."""

    def retire(self, child: int) -> None:
        """Let *child* go: its hands are empty, and it gets nothing more."""

    def found_done(self, child: int, job: Job) -> None:
        """Know that *job* succeeded, as its child's slate shows before the child says so."""

    # -- deliveries ----------------------------------------------------------------------------

    def ack(self, delivery: Delivery, *, at_once: bool = False) -> None:
        """Ack it; *at_once* if its task must not run twice."""

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        """Give it back to its queue, or leave it to the broker's own dead-lettering."""

    def resize(self, window: int) -> None:
        """Hold at most *window* deliveries of each queue from now on."""

    def take_more(self, more: bool) -> None:
        """Consume from the queues, or stop it for now; what is on its way may still arrive."""

    def pause(self, queue: str, paused: bool) -> None:
        """Stop consuming from *queue* for now, or go on; what is on its way may still arrive."""

    # -- copies of messages --------------------------------------------------------------------

    def dead_letter(self, job: Job) -> None:
        """Publish a copy with the job's reason to its dead-letter queue; then say `copied`."""

    def run_again(self, job: Job) -> None:
        """Publish a copy with the job's crashes to its queue; then say `copied`."""

    def delay(self, job: Job, until: float) -> None:
        """Publish a copy that is due at *until*; then say `copied`."""

    def put_back(self, job: Job) -> None:
        """Publish a copy to the end of its queue; then say `copied`."""

    def claim(self, job: Job) -> None:
        """Publish a copy of its message that comes back to this worker; say if it is refused."""

    # -- the rest ------------------------------------------------------------------------------

    def store(self, job: Job, state: str, exception: str, text: str) -> None:
        """Store how *job* ended as an exception of that class name; then say `stored`."""

    def ended(self, job: Job) -> None:
        """Know that *job* ended, for its `reason`, and no child will say so."""

    def wake(self, at: float) -> None:
        """Call `tick` at the moment *at*, seconds since the epoch."""
