"""One transaction a turn: what a loop's outlets and intakes want written, written together.

At the end of a turn: settlements, new messages, and what is taken next; then everybody is told.
This file knows when to write and when to wake; the statements are in `sqlite_rows`, and what a
message means to its queue's consumer is the business of `sqlite`.
"""

import itertools
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from taskq import clock
from taskq.broker import sqlite_rows as rows
from taskq.broker.base import Delivery
from taskq.broker.doorbell import Doorbell
from taskq.broker.sqlite_owner import Owners
from taskq.broker.sqlite_rows import Postmaster, Send
from taskq.errors import PublishRefused
from taskq.log import event
from taskq.loop import Loop, Timer
from taskq.sqlitefile import PATIENCE, SqliteFile

#: Seconds between two attempts to write when the file cannot be written.
_RETRY_INTERVAL = 1.0

#: What can be wrong with a file, and with a name that is no text.
STORAGE_ERRORS = (sqlite3.Error, OSError, UnicodeError)

#: Nobody waits for these statements, so no bell is rung for them.
_SILENT = {rows.ACK, rows.BIND}


class Taker(Protocol):
    """Who wants messages: an intake."""

    #: How many more messages each queue that is consumed from may bring.
    room: dict[str, int]

    @property
    def owner(self) -> int:
        """The owner of what is taken."""

    def hold(self, queue: str, row: rows.Taken) -> Delivery:
        """Take a row that is ours by now into the books."""

    def deliver(self, delivery: Delivery) -> None:
        """Hand over what `hold` made, unless it was given back since."""


class Turn:
    """What the members (outlets and intakes) of one loop write together at the end of a turn.

    Everything here is written by the loop's own thread.
    """

    def __init__(
        self,
        loop: Loop,
        file: SqliteFile,
        postmaster: Postmaster,
        dead_letter_ttl: float,
        interval: float,
        forget: Callable[[], object],
    ) -> None:
        self.file = file
        #: How long (seconds) what is dead-lettered here is kept.
        self.dead_letter_ttl = dead_letter_ttl
        self._loop = loop
        self._postmaster = postmaster
        self._interval = interval
        self._forget = forget
        self._members: list[object] = []
        self._takers: list[Taker] = []
        self._sends: list[Send] = []
        #: Statement -> arguments, in the order of the saying; kept until they are committed.
        self._said: dict[str, list[tuple[Any, ...]]] = {}
        self._after: list[Callable[[], None]] = []
        self._scheduled = False
        self._reporting = False
        self._bell: Doorbell | None = None
        self._timer: Timer | None = None

    # -- what members say --------------------------------------------------------------------

    def join(self, member: object) -> None:
        """Go on until *member*, and all others, have left."""
        self._members.append(member)

    def feed(self, taker: Taker) -> None:
        """Take messages for the member *taker*, until it leaves.  Idempotent."""
        if taker not in self._takers:
            self._takers.append(taker)
        self._schedule()

    def publish(self, send: Send) -> None:
        """Write a message with this turn; `send.done` hears how that ended."""
        self._sends.append(send)
        self._schedule()

    def say(self, statement: str, *arguments: Any) -> None:
        """Execute *statement* with this turn, or with the first one that can be written."""
        self._said.setdefault(statement, []).append(arguments)
        self._schedule()

    def then(self, callback: Callable[[], None]) -> None:
        """Call *callback* once all that was said until now is committed."""
        self._after.append(callback)
        self._schedule()

    def leave(self, member: object, timeout: float) -> None:
        """Write what there is, waiting *timeout* seconds for others, and let *member* go."""
        if member not in self._members:
            return
        self._write(timeout)
        self._members.remove(member)
        self._takers = [taker for taker in self._takers if taker is not member]
        if not self._members:
            self._forget()
            if self._timer is not None:
                self._timer.cancel()
            if self._bell is not None:
                self._bell.close()

    def _schedule(self) -> None:
        # Not twice in a turn: what a commit leads to may go on for ever, while signals and timers
        # wait for the turn to end.
        if not self._scheduled:
            self._scheduled = True
            if self._reporting:
                self._loop.add_callback(partial(self._loop.at_turn_end, self._write))
            else:
                self._loop.at_turn_end(self._write)

    # -- the transaction ---------------------------------------------------------------------

    def _write(self, timeout: float = PATIENCE) -> None:
        self._scheduled = False
        sends, self._sends = self._sends, []
        try:
            if not (sends or self._said or self._after or self._is_worth_taking(timeout)):
                return
            is_news = bool(sends) or not self._said.keys() <= _SILENT
            with self.file.writing(timeout, ring=is_news) as db:
                for statement, arguments in self._said.items():
                    db.executemany(statement, arguments)
                if rows.DEAD_LETTER in self._said:
                    rejected = self._said[rows.DEAD_LETTER]
                    self._postmaster.bound(db, [queue for _, _, queue, _ in rejected])
                refusals = self._insert(db, sends)
                taken = self._take(db)
        except STORAGE_ERRORS as error:
            self._fail(sends, error)
            return
        self._said.clear()
        self._reporting = True
        try:
            self._report(sends, refusals, taken)
        finally:
            self._reporting = False

    def _insert(self, db: sqlite3.Connection, sends: list[Send]) -> list[PublishRefused | None]:
        """Write the rows of *sends*; why each was refused, or None."""
        refusals: list[PublishRefused | None] = []
        made: list[rows.Made] = []
        for send in sends:
            try:
                made += self._postmaster.rows(db, send)
                refusals.append(None)
            except PublishRefused as refused:
                refusals.append(refused)
        self._postmaster.insert(db, made)
        return refusals

    def _take(self, db: sqlite3.Connection) -> list[tuple[Taker, str, list[rows.Taken]]]:
        hungry = self._hungry()
        if not hungry:
            return []
        if self._bell is None:  # in a transaction nobody else can commit, and so ring, too early
            self._bell = Doorbell(self._loop, self.file.bell, self._schedule)
            db.executemany(rows.BURY, self._died(db))
        now = clock.wall()
        db.execute(rows.PROMOTE, (now,))
        db.execute(rows.VANISH, (now,))
        expired = db.execute(rows.EXPIRE, (now + self.dead_letter_ttl, now)).fetchall()
        self._postmaster.bound(db, [queue for (queue,) in expired])
        taken = [
            (taker, queue, sorted(db.execute(rows.TAKE, (taker.owner, queue, room))))
            for taker, queue, room in hungry
        ]
        self._wake_for_earliest(db)
        return taken

    def _is_worth_taking(self, timeout: float) -> bool:
        """Whether a take would find something: to look costs less than to write."""
        hungry = self._hungry()
        if not hungry:
            return False
        with self.file.reading(timeout) as db:
            return (
                self._wake_for_earliest(db)
                or db.execute(rows.ANY_EXPIRED, (clock.wall(),)).fetchone() is not None
                or any(db.execute(rows.ANY_READY, (queue,)).fetchone() for _, queue, _ in hungry)
            )

    def _hungry(self) -> list[tuple[Taker, str, int]]:
        return [
            (taker, queue, room)
            for taker in self._takers
            for queue, room in taker.room.items()
            if room > 0
        ]

    def _report(
        self,
        sends: list[Send],
        refusals: list[PublishRefused | None],
        taken: list[tuple[Taker, str, list[rows.Taken]]],
    ) -> None:
        """Tell the members what was committed; any of them may close in a callback."""
        # All is in the books before any callback runs, so that each sees the windows as they are.
        batches = [
            [(taker, taker.hold(queue, row)) for row in found] for taker, queue, found in taken
        ]
        after, self._after = self._after, []
        for callback in after:
            callback()
        for in_turn in itertools.zip_longest(*batches):  # one of each queue, again and again
            for taker, delivery in filter(None, in_turn):
                taker.deliver(delivery)
        for send, refused in zip(sends, refusals, strict=True):
            if refused is None:
                self._postmaster.learn(send.route)
            send.done(refused)

    def _fail(self, sends: list[Send], error: Exception) -> None:
        """Refuse what was sent in this turn; what was said besides is tried again in a while."""
        if self._said or self._hungry():
            url = f"sqlite:///{self.file.path}"
            delay = _RETRY_INTERVAL
            event("connection-failed", broker=url, role="worker", reason=error, delay=delay)
            self._wake_in(delay)
        for send in sends:
            send.done(not_written(self.file.path, error))

    # -- waking ------------------------------------------------------------------------------

    def _wake_for_earliest(self, db: sqlite3.Connection) -> bool:
        """Set the timer for the earliest due message, or the next look; True if one is due now."""
        (due,) = db.execute(rows.EARLIEST).fetchone() or (None,)
        delay = self._interval if due is None else due - clock.wall()
        self._wake_in(min(max(delay, 0.0), self._interval))
        return delay <= 0

    def _wake_in(self, delay: float) -> None:
        if self._timer is not None:
            if self._timer.when <= clock.monotonic() + delay:
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._wake_in(self._interval)
        self._bury_the_dead()
        self._schedule()

    def _bury_the_dead(self) -> None:
        """Give back what is held by owners whose process died."""
        try:
            with self.file.reading() as db:
                died = self._died(db)
        except STORAGE_ERRORS:
            return  # the next transaction fails too, and says so
        for (owner,) in died:
            self.say(rows.BURY, owner)

    def _died(self, db: sqlite3.Connection) -> list[tuple[int]]:
        alive = Owners.of(self.file.path).alive
        return [(owner,) for (owner,) in db.execute(rows.OWNERS) if not alive(owner)]


def not_written(path: Path, error: Exception) -> PublishRefused:
    """Why a message is certainly not in the file *path*."""
    return PublishRefused(
        f"not queued: {path} cannot be written ({error}); see that its disk has room, that it may "
        "be written, and that no other program keeps it locked"
    )
