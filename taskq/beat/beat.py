"""The beat process: of all those of one schedule, the leader sends each task when it is due.

What is due is the agenda's to say, who leads the lease's; here both meet the loop, the store and
the sending.  Everything turns on one loop, and what blocks is done aside.

::

    store ── rows, each time they change ──▶ agenda ── turn(now) ──▶ occurrences
                                               ▲                        │ overlap?
    lease ── granted: through ─────────────────┤                        ▼
          ◀─ renew: through ───────────────────┤                     publish under the lease
                                               └────── settle ◀── confirmed ─┘
"""

import math
import signal
import socket
from collections import deque
from collections.abc import Sequence
from functools import partial

from taskq import clock, log
from taskq.app import TaskQ
from taskq.beat.agenda import Agenda
from taskq.beat.aside import Aside
from taskq.beat.base import Row, Run, merged
from taskq.beat.lease import open_lease
from taskq.beat.progress import Progress
from taskq.beat.runs import Answer, Runs
from taskq.beat.stores import schedule_name, store_of
from taskq.broker.base import Lease, Token
from taskq.client.options import Signature
from taskq.errors import ConfigurationError, PublishError, TaskqError, Undeliverable
from taskq.loop import Loop, Timer
from taskq.schedules import Entry, Occurrence
from taskq.url import scheme
from taskq.wire.result import Result

#: Seconds between two looks at the store.
_LOOK = 1.0
#: Renewals in the length of a lease, at least; and the longest pause between two of them.
_RENEWALS, _LONGEST_PAUSE = 8, 1.0
#: Who is late by so many seconds, or leases, was not missed.
_GRACE, _GRACE_LEASES = 60.0, 6.0
#: So many are made into messages before the loop turns again, and so many may be unconfirmed.
_SLICE, _MOST = 200, 20_000
#: Seconds until what was not confirmed is tried again.
_PAUSE = 1.0
#: Seconds that a beat which stops gives the broker and the store.
_FAREWELL = 5.0


class Beat:
    """One beat of *app*'s schedule; `run` is its life.  ConfigurationError for a wrong schedule."""

    def __init__(self, app: TaskQ) -> None:
        self._app = app
        self._host = socket.gethostname()
        self._node = f"beat@{self._host}"
        conf = app.conf
        self._static = app.schedule_entries()
        self._results = scheme(conf.backend_options().url)
        for entry in self._static.values():
            if problem := self._problem(entry):
                raise ConfigurationError(f"the entry {entry.name!r} of the schedule: {problem}")
        self._length = conf.beat_lease
        self._grace = max(_GRACE, _GRACE_LEASES * self._length)
        self._loop = Loop()
        self._aside = Aside(self._loop)
        self._runs = Runs(self._aside, self._fetch, conf.result_expires or math.inf)
        self._store = store_of(app)
        self._changes: int | None = None
        self._rows: Sequence[Row] = ()
        self._is_away = False
        self._lease: Lease | None = None
        #: What was granted, while this beat leads.
        self._token: Token | None = None
        #: There while it leads and knows what the store knows.
        self._agenda: Agenda | None = None
        #: Due, and not handed over yet.
        self._waiting: deque[Occurrence] = deque()
        #: How many are due and neither settled nor given up.
        self._open = 0
        self._next_turn: Timer | None = None
        self._stopping = False
        self._error: TaskqError | None = None

    def run(self, *, leash: int | None = None) -> None:
        """Lead or wait until told to stop by TERM or INT, or by the end of the descriptor *leash*.

        Raises ConfigurationError when the store cannot be used by this beat at all.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.on_signal(number, self.stop)
        if leash is not None:
            self._loop.add_handler(leash, lambda *_: self.stop(), Loop.READ)
        try:
            self._look()
            self._renew()
            while not self._stopping:
                self._loop.turn()
            if self._error is not None:
                raise self._error
        finally:
            self._shut_down()

    def stop(self) -> None:
        """Let `run` end after this turn."""
        self._stopping = True

    def _shut_down(self) -> None:
        self._stopping = True
        self._open -= len(self._waiting)
        self._waiting.clear()
        deadline = clock.monotonic() + _FAREWELL
        while self._open and (left := deadline - clock.monotonic()) > 0:
            self._loop.turn(left)
        if self._lease is not None:
            self._lease.release(self._note(self._agenda))
        self._runs.tell(self._store)
        self._aside.finish(_FAREWELL)
        self._store.close()
        self._app.close()
        self._loop.close()
        log.event("beat-stopped", node=self._node)

    # -- the store -----------------------------------------------------------------------------

    def _look(self) -> None:
        """Ask the store whether anything has changed, again and again."""
        if self._stopping:
            return
        self._runs.tell(self._store)
        self._aside.do(partial(self._ask, self._changes), self._answered, self._not_answered)

    def _ask(self, known: int | None) -> tuple[int, Sequence[Row] | None]:
        self._store.attend()
        changes = self._store.changes()
        return changes, None if changes == known else self._store.rows()

    def _answered(self, answer: tuple[int, Sequence[Row] | None]) -> None:
        if self._stopping:
            return
        self._is_away = False
        self._changes, rows = answer
        if rows is not None:
            self._rows = rows
            self._runs.learn(_last_of(rows))
            entries = self._entries()
            if self._lease is None:
                log.event(
                    "beat-ready", node=self._node, entries=len(entries), store=self._store.url
                )
                self._lease = self._ask_for_lease()
            elif self._agenda is None or self._agenda.replace(entries):
                log.event("schedule-changed", entries=len(entries))
                self._turn()
        self._loop.call_later(_LOOK, self._look)

    def _not_answered(self, error: TaskqError) -> None:
        if isinstance(error, ConfigurationError):
            self._error = error
            self._stopping = True
            return
        if not self._is_away:
            self._is_away = True
            log.event("beat-store-away", reason=str(error))
        self._loop.call_later(_LOOK, self._look)

    def _entries(self) -> dict[str, Entry]:
        found = merged(self._static, self._rows)
        for entry in [*found.values()]:
            if problem := self._problem(entry):
                log.event("entry-broken", entry=entry.name, reason=problem)
                del found[entry.name]
        return found

    def _problem(self, entry: Entry) -> str | None:
        if entry.overlap == "skip" and self._results in ("rpc", "disabled"):
            return (
                "overlap='skip' needs a result store that beat can read, and result_backend is "
                f"{self._results}://"
            )
        return None

    def _fetch(self, task_id: str) -> Result | None:
        return self._app.backend.fetch(task_id)  # which is opened when first asked

    # -- the lease -----------------------------------------------------------------------------

    def _ask_for_lease(self) -> Lease:
        return open_lease(
            self._loop,
            self._app.broker,
            partial(store_of, self._app),
            name=f"taskq.beat.{schedule_name(self._app)}",
            length=self._length,
            by_store=self._app.conf.beat_leader == "store",
            granted=self._granted,
            lost=self._lose,
        )

    def _granted(self, token: Token) -> None:
        self._token = token
        progress = Progress.read(token.note)
        if not self._store.shared and progress.host not in ("", self._host) and self._rows:
            log.event("beat-store-local", host=progress.host)
        # The last runs may be those of another leader.
        self._aside.do(
            self._store.rows,
            partial(self._begin, token),
            lambda _: self._begin(token, self._rows),
        )

    def _begin(self, token: Token, rows: Sequence[Row]) -> None:
        if self._token is not token:  # lost already
            return
        self._rows = rows
        progress = Progress.read(token.note)
        self._runs.learn(_last_of(rows))
        self._runs.learn(progress.runs)
        now = clock.wall()
        self._agenda = Agenda(
            self._entries().values(), now=now, through=progress.through, grace=self._grace
        )
        through = clock.utc(self._agenda.through).isoformat(timespec="seconds")
        log.event("beat-leading", node=self._node, epoch=token.epoch, through=through)
        self._turn()

    def _lose(self, reason: str) -> None:
        self._token = self._agenda = None
        self._waiting.clear()
        self._runs.clear()
        self._open = 0
        if self._next_turn is not None:
            self._next_turn.cancel()
        log.event("beat-lost", node=self._node, reason=reason)

    def _renew(self) -> None:
        if self._token is not None and self._lease is not None:
            self._lease.renew(self._note(self._agenda))
        pause = min(_LONGEST_PAUSE, self._length / _RENEWALS)
        self._loop.call_later(pause, self._renew)

    def _note(self, agenda: Agenda | None) -> str:
        if agenda is None:
            return "" if self._token is None else self._token.note
        runs = {}
        if not self._store.shared:
            runs = self._runs.of(entry.name for entry in agenda if entry.overlap == "skip")
        return Progress(agenda.through, runs, self._host).to_text()

    # -- what is due ---------------------------------------------------------------------------

    def _turn(self) -> None:
        """Take what is due from the agenda, and sleep until more is."""
        if self._next_turn is not None:
            self._next_turn.cancel()
        agenda = self._agenda
        if agenda is None or self._stopping:
            return
        pause = _PAUSE
        if self._open < _MOST:
            due = agenda.turn(clock.wall())
            self._open += len(due)
            idle = not self._waiting
            self._waiting.extend(due)
            if due and idle:
                self._hand_over_some()
            pause = agenda.patience(clock.wall())
        self._next_turn = self._loop.call_later(pause, self._turn)

    def _hand_over_some(self) -> None:
        for _ in range(min(_SLICE, len(self._waiting))):
            occurrence = self._waiting.popleft()
            if occurrence.entry.overlap == "skip":
                self._runs.ask(
                    occurrence, partial(self._hand_over_unless, self._agenda, occurrence)
                )
            else:
                self._hand_over(occurrence)
            if self._agenda is None:
                return
        if self._waiting:
            self._loop.add_callback(self._hand_over_some)

    def _hand_over_unless(
        self, agenda: Agenda | None, occurrence: Occurrence, found: Answer
    ) -> None:
        """*found* is what is known of the last run of an entry that must not overlap."""
        if agenda is None or agenda is not self._agenda:
            return
        if found is None:
            self._hand_over(occurrence)
        elif isinstance(found, Run):
            log.event("due-skipped", name=occurrence.entry.task, id=occurrence.id, last=found.id)
            self._settle(agenda, occurrence)
        else:
            self._try_later(agenda, occurrence, found)

    def _hand_over(self, occurrence: Occurrence) -> None:
        agenda, entry, lease = self._agenda, occurrence.entry, self._lease
        if agenda is None or lease is None:
            return
        options = occurrence.options()
        if self._results == "rpc":  # nobody here would read it
            options["ignore_result"] = True
        task = self._app.registry.get(entry.task)
        call = Signature(entry.task, entry.args, entry.kwargs, options, type=task)
        try:
            self._app.sender.hand_over(
                call, lease.publish, partial(self._handed_over, agenda, occurrence)
            )
        except Exception as error:  # of the user's arguments, options or router
            self._give_up(agenda, occurrence, repr(error))

    def _handed_over(
        self, agenda: Agenda, occurrence: Occurrence, error: PublishError | None
    ) -> None:
        if agenda is not self._agenda:
            return  # another leader may send it
        if error is None:
            self._runs.add(occurrence)
            if log.audible("due-sent"):
                log.event("due-sent", name=occurrence.entry.task, id=occurrence.id)
            self._settle(agenda, occurrence)
        elif isinstance(error, Undeliverable):
            self._give_up(agenda, occurrence, str(error))
        else:
            self._try_later(agenda, occurrence, error)

    def _try_later(self, agenda: Agenda, occurrence: Occurrence, error: TaskqError) -> None:
        log.event("due-late", name=occurrence.entry.task, id=occurrence.id, reason=str(error))
        self._loop.call_later(_PAUSE, partial(self._try_again, agenda, occurrence))

    def _try_again(self, agenda: Agenda, occurrence: Occurrence) -> None:
        if agenda is self._agenda:
            self._waiting.append(occurrence)
            if len(self._waiting) == 1:
                self._hand_over_some()

    def _give_up(self, agenda: Agenda, occurrence: Occurrence, reason: str) -> None:
        log.event("due-failed", name=occurrence.entry.task, id=occurrence.id, reason=reason)
        self._settle(agenda, occurrence)

    def _settle(self, agenda: Agenda, occurrence: Occurrence) -> None:
        self._open -= 1
        agenda.settle(occurrence)
        self._runs.leave(occurrence)


def _last_of(rows: Sequence[Row]) -> dict[str, Run]:
    return {row.name: row.last for row in rows if row.last}
