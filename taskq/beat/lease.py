"""Who leads: of all beats of a schedule one sends, and another goes on when it is gone.

::

                    granted(epoch, note)                      release(note)
    waiting ───────────────────────────────▶ leading ──────────────────────────▶ over
       ▲                                     │  │  ▲
       │        lost: the other side says    │  └──┘ renew(note), each second or sooner
       └──── so, or is silent for too long ──┘

The *note* is how far the schedule was sent (see `progress`), and what the last leader leaves to the
next, who begins there: what was sent and not confirmed is sent again under the same ids.

Two places keep leases.

- RabbitMQ: `broker.amqp_lease`.  Its own channel is the fence: a leader that was frozen or cut off
  finds it closed before another leads.
- A store (`StoreLease`): a mark with an epoch and a pulse.  Clocks of several hosts never meet: the
  leader counts half the lease from when it asked to renew, by its own clock, and then stops; who
  waits takes over when by its own clock the pulse has not changed for as long.  A message that is
  on its way at that moment is no harm, for the next leader sends the same id.
"""

from collections.abc import Callable

from taskq import clock
from taskq.beat.aside import Aside
from taskq.beat.base import RELEASED, Mark, Store
from taskq.broker.base import Broker, Done, Lease, Route, Token
from taskq.errors import PublishRefused, TaskqError
from taskq.loop import Loop, Timer
from taskq.wire.message import Message

#: Of the lease's length: how long a leader may be silent, and how often who waits has a look.
_SILENCE, _LOOKS = 1 / 2, 8

#: How long (seconds) a leader that stops waits until the store has its last note.
_FAREWELL = 2.0


def open_lease(
    loop: Loop,
    broker: Broker,
    open_store: Callable[[], Store],
    *,
    name: str,
    length: float,
    by_store: bool,
    granted: Callable[[Token], None],
    lost: Callable[[str], None],
) -> Lease:
    """Ask for the lease *name*, of *length* seconds: the broker, if it keeps any, or the store.

    A store is opened for it alone, so that it waits for nothing else that is asked of one.
    """
    if not by_store:
        found = broker.lease(loop, name, length, granted=granted, lost=lost)
        if found is not None:
            return found
    return StoreLease(loop, broker, open_store(), length, granted, lost)


class StoreLease:
    """The lease that a store's mark is; what is due goes out through an outlet of the broker."""

    def __init__(
        self,
        loop: Loop,
        broker: Broker,
        store: Store,
        length: float,
        granted: Callable[[Token], None],
        lost: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._store = store
        self._aside = Aside(loop)
        self._granted = granted
        self._lost = lost
        self._outlet = broker.outlet(loop)
        self._silence = length * _SILENCE
        self._pause = length / _LOOKS
        #: What stood there at the last look, and since when (monotonic).
        self._seen: Mark | None = None
        self._since = -float("inf")
        #: Our own, while we lead.
        self._mark: Mark | None = None
        self._deadline = 0.0
        self._renewing = False
        self._timer: Timer | None = None
        self._over = False
        self._look()

    def publish(self, message: Message, route: Route, done: Done) -> None:
        left = self._deadline - clock.monotonic()
        if self._mark is None or left <= 0:
            done(PublishRefused("this beat does not lead"))
        else:
            self._outlet.publish(message, route, done, timeout=left)

    def renew(self, note: str) -> None:
        if self._mark is None or self._renewing:
            return
        asked, mark = clock.monotonic(), Mark(self._mark.epoch, self._mark.pulse + 1, note)
        self._renewing = True
        self._aside.do(
            lambda: self._store.keep(mark),
            lambda kept: self._renewed(kept, mark, asked),
            self._not_renewed,
        )

    def release(self, note: str, timeout: float = 5.0) -> None:
        if self._over:
            return
        self._over = True
        self._cancel_timer()
        mark, self._mark = self._mark, None
        self._outlet.close(timeout)
        if mark is not None:
            last = Mark(mark.epoch, RELEASED, note)
            self._aside.do(lambda: self._store.keep(last))
        self._aside.finish(_FAREWELL)
        self._store.close()

    # -- waiting -----------------------------------------------------------------------------

    def _look(self) -> None:
        self._timer = None
        self._aside.do(self._store.mark, self._looked, lambda _: self._look_again())

    def _look_again(self) -> None:
        if not self._over:
            self._timer = self._loop.call_later(self._pause, self._look)

    def _looked(self, mark: Mark | None) -> None:
        now = clock.monotonic()
        if mark != self._seen:
            self._seen, self._since = mark, now
        is_free = mark is None or mark.pulse == RELEASED
        if self._over or not (is_free or now - self._since > self._silence):
            self._look_again()
            return
        epoch, note = (mark.epoch, mark.note) if mark else (0, "")
        taken = Mark(epoch + 1, 0, note)
        self._aside.do(
            lambda: self._store.take(mark, taken),
            lambda done: self._took(taken, now) if done else self._look_again(),
            lambda _: self._look_again(),
        )

    def _took(self, mark: Mark, asked: float) -> None:
        self._mark = mark
        self._hold_from(asked)
        if self._over:  # released while it was asked for: the next one need not wait for long
            self._mark = None
        else:
            self._granted(Token(mark.epoch, mark.note))

    # -- leading -----------------------------------------------------------------------------

    def _renewed(self, kept: bool, mark: Mark, asked: float) -> None:
        self._renewing = False
        if self._mark is None:
            return
        if kept:
            self._mark = mark
            self._hold_from(asked)
        else:
            self._lose("another beat leads")

    def _not_renewed(self, error: TaskqError) -> None:
        self._renewing = False  # another attempt may come before the time is over

    def _hold_from(self, asked: float) -> None:
        self._deadline = asked + self._silence
        self._cancel_timer()
        left = max(0.0, self._deadline - clock.monotonic())
        self._timer = self._loop.call_later(left, self._run_out)

    def _run_out(self) -> None:
        self._timer = None
        self._lose(f"{self._store.url} has heard nothing of it for {self._silence:g} s")

    def _lose(self, reason: str) -> None:
        self._cancel_timer()
        self._mark = None
        self._seen, self._since = None, clock.monotonic()
        self._lost(reason)
        self._look_again()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
