"""The worker's parent, from boot to exit: read `run` top to bottom.

It owns the loop, the two connections to the broker (intake consumes and settles, outlet publishes)
and the pool, and passes between dispatcher and children what they say.  It never imports the app,
never opens a body, and never talks to a result store.

::

    boot ──> running ──TERM, INT──> stopping (warm) ──all done──> exit 0
      │         │                        │
      │         ├──QUIT──────────────────┴──second signal, or time is up──> cold: kill, give
      │         │                                                             back, exit 1
      │         └──HUP──> the app imported afresh, children replaced as they finish
      └── the app cannot be imported: exit 3
"""

import itertools
import math
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from taskq import clock, log, tls
from taskq.broker import open_broker, topology
from taskq.broker.base import Broker, Delivery, Intake, Outlet, Route
from taskq.errors import PublishError
from taskq.loop import Loop, Timer
from taskq.wire.message import Message
from taskq.worker import banner, frames
from taskq.worker.companion import Companion
from taskq.worker.dispatcher import Dispatcher
from taskq.worker.frames import Frame
from taskq.worker.hands import WorkerHands
from taskq.worker.health import ReadyFile
from taskq.worker.herald import Herald
from taskq.worker.manifest import Manifest
from taskq.worker.options import WorkerOptions
from taskq.worker.outcome import Outcome
from taskq.worker.pool import Pool, Reports
from taskq.worker.prefork import Prefork
from taskq.worker.recall import Recall
from taskq.worker.relay import pack_error, unpack_route
from taskq.worker.roster import DEPTH
from taskq.worker.solo import Solo
from taskq.worker.timekeeper import Timekeeper
from taskq.worker.window import Window

EXIT_OK = 0
#: Stopped at once: running tasks were killed and given back.
EXIT_COLD = 1
#: The app cannot be imported, or no child becomes ready: starting again will not help.
EXIT_BROKEN = 3

#: A child with more messages unconfirmed than this is not listened to until half are confirmed.
_TALKATIVE = 2000
#: Besides one for each place, so many children in a row may die before they are ready.
_STILLBIRTHS = 5
#: A child that has so many times max_memory_per_child while its task runs is killed.
_TOO_MUCH = 1.5
#: Seconds between two looks at that.
_WEIGHING = 1.0
#: Unpacked routes kept; more than this many different ones are unpacked again.
_ROUTES = 10_000


@dataclass(slots=True)
class _Parts:
    """What exists once the manifest is known."""

    manifest: Manifest
    broker: Broker
    intake: Intake
    outlet: Outlet
    hands: WorkerHands
    dispatcher: Dispatcher
    herald: Herald
    concurrency: int
    #: KiB that a child may have resident after a task; None: any.
    max_memory: int | None


class Supervisor:
    """One worker; `run` is its life.  Everything here is written by the loop's one thread."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = replace(options, name=node_name(options.name))
        self._loop = Loop()
        self._pool = self._new_pool()
        self._parts: _Parts | None = None
        self._routes: dict[bytes, Route] = {}
        #: Messages of each child that are not confirmed yet.
        self._unconfirmed: dict[int, int] = {}
        self._paused: set[int] = set()
        #: Children in a row that died before they were ready.
        self._stillborn = 0
        self._ready_file = (
            ReadyFile(self._loop, options.ready_file, self._options.name)
            if options.ready_file
            else None
        )
        self._companion = Companion(self._loop, options) if options.beat else None
        #: How long the broker leaves a delivery unsettled, in seconds.
        self._patience = math.inf
        self._renewal: Timer | None = None
        self._tells_received = log.audible("task-received")
        self._consuming = False
        self._announced = False
        self._stopping = False
        self._quitting = False
        self._exit: int | None = None

    def run(self) -> int:
        """Work until told to stop; returns the exit code."""
        self._loop.on_signal(signal.SIGTERM, partial(self._stop, "SIGTERM"))
        self._loop.on_signal(signal.SIGINT, partial(self._stop, "SIGINT"))
        self._loop.on_signal(signal.SIGHUP, self._reload)
        self._loop.on_signal(signal.SIGQUIT, self._quit)
        if os.getpid() == 1:
            self._loop.on_signal(signal.SIGCHLD, self._reap_strangers)
        self._pool.start()
        while self._exit is None:
            self._loop.turn()
            if self._exit is None and self._stopping and self._idle:
                self._exit = EXIT_OK
        self._shut_down()
        return self._exit

    # -- booting -----------------------------------------------------------------------------

    def _new_pool(self) -> Pool:
        reports = Reports(self._on_manifest, self._on_broken, self._on_frame, self._on_death)
        make = Solo if self._options.pool == "solo" else Prefork
        return make(self._loop, self._options, reports)

    def _reap_strangers(self) -> None:
        self._pool.reap_strangers()

    def _on_broken(self, why: str) -> None:
        log.event("app-broken", app=self._options.app or "(looked for)", why=why)
        self._exit = EXIT_BROKEN

    def _reload(self) -> None:
        if not self._stopping:
            log.event("worker-reloading", node=self._options.name)
            self._pool.reload()

    def _on_manifest(self, packed: dict[str, object], old: list[int]) -> None:
        """The app is there: at the start, after a reload, or in the place of a dead nursery."""
        manifest = Manifest.unpack(packed)
        if self._options.pool is None:
            # Nobody chose on the command line, and only the app, which a nursery has imported,
            # knows its setting: the pool without processes imports it once more.
            self._options = replace(self._options, pool=manifest.settings["worker_pool"])
            if self._options.pool == "solo":
                self._pool.close(0.0)
                self._pool = self._new_pool()
                self._pool.start()
                return
        if self._parts is None:
            self._parts = self._open(manifest)
            if self._companion is not None:
                self._companion.start()
            self._weigh()
            self._patience = manifest.settings["broker_consumer_timeout"]
            self._renew()
        else:
            self._parts.dispatcher.learn(manifest.policies)
        if old:
            log.event("worker-reloaded", node=self._options.name, tasks=len(manifest.policies))
            if self._companion is not None:
                self._companion.replace()
            self._pool.announce()
        for child in old:
            if self._parts.hands.is_clerk(child):
                self._parts.hands.dismiss_clerk()
            else:
                self._parts.dispatcher.retire(child)
        self._grow()

    def _open(self, manifest: Manifest) -> _Parts:
        options, settings = self._options, manifest.settings
        solo = options.pool == "solo"
        concurrency = 1 if solo else options.concurrency or settings["worker_concurrency"] or cpus()
        # A solo worker cannot answer heartbeats while its one task runs.
        heartbeat = 0.0 if solo else manifest.broker.heartbeat
        if not solo:
            tls.be_silent()  # the nursery has opened the same, and warned of it
        broker = open_broker(replace(manifest.broker, name=options.name, heartbeat=heartbeat))
        banner.show(options, manifest, concurrency, broker.url)
        outlet = broker.outlet(self._loop, on_blocked=self._on_blocked)
        intake = broker.intake(
            self._loop,
            on_delivery=self._on_delivery,
            on_ready=self._on_consuming,
            on_lost=self._on_lost,
        )
        hands = WorkerHands(
            self._loop,
            self._pool,
            intake,
            outlet,
            manifest.queues,
            node=options.name,
            dead_letter_ttl=settings["dead_letter_ttl"],
            child_start_timeout=settings["worker_child_start_timeout"],
        )
        fixed = options.prefetch
        if fixed is None and settings["worker_prefetch_multiplier"]:
            fixed = concurrency * settings["worker_prefetch_multiplier"]
        window = Window(concurrency, fixed)
        hands.dispatcher = Dispatcher(
            hands,
            manifest.policies,
            max_crashes=settings["max_crashes"],
            max_deliveries=settings["max_deliveries"],
            max_tasks_per_child=None
            if solo
            else options.max_tasks_per_child or settings["worker_max_tasks_per_child"],
            depth=1 if solo else DEPTH,
            window=window,
            max_held=settings["worker_max_held_bytes"],
        )
        hands.timekeeper = Timekeeper(
            self._loop, self._pool, hands.dispatcher, kill_wait=settings["kill_wait"]
        )
        hands.recall = Recall(self._loop, self._pool, hands.dispatcher)
        herald = Herald(
            self._loop,
            outlet,
            options.name,
            interval=settings["worker_heartbeat"],
            vitals=partial(_vitals, hands.dispatcher),
        )
        if options.task_events or settings["worker_send_task_events"]:
            hands.herald = herald
        intake.consume(manifest.queues, window.width)
        max_memory = options.max_memory_per_child or settings["worker_max_memory_per_child"]
        return _Parts(
            manifest,
            broker,
            intake,
            outlet,
            hands,
            hands.dispatcher,
            herald,
            concurrency,
            max_memory,
        )

    def _renew(self) -> None:
        """Claim anew what the broker would soon take back; see `claims`."""
        if self._parts is None or not self._parts.broker.takes_back or self._stopping:
            return
        if self._renewal is not None:
            self._renewal.cancel()
        self._parts.dispatcher.renew(clock.wall() - self._patience / 2)
        self._renewal = self._loop.call_later(self._patience / 20, self._renew)

    def _weigh(self) -> None:
        """End children that a running task has blown up far beyond their limit."""
        parts = self._parts
        if parts is None or parts.max_memory is None:
            return
        for child in parts.dispatcher.numbers():
            if self._pool.memory(child) > _TOO_MUCH * parts.max_memory:
                self._pool.kill(child, f"over {_TOO_MUCH:g} times max_memory_per_child")
        self._loop.call_later(_WEIGHING, self._weigh)

    def _grow(self) -> None:
        """Spawn until there are as many children as wanted."""
        if self._parts is None or self._stopping:
            return
        timeout = self._parts.manifest.settings["worker_child_start_timeout"]
        while self._parts.dispatcher.children < self._parts.concurrency:
            self._parts.dispatcher.child_started(self._pool.spawn(timeout))

    def _on_consuming(self) -> None:
        self._consuming = True
        self._announce()

    def _announce(self) -> None:
        ready = self._parts is not None and self._parts.dispatcher.any_ready
        if ready and self._consuming and not self._announced:
            self._announced = True
            log.event("worker-ready", node=self._options.name)
            assert self._parts is not None
            self._parts.herald.start()
            self._pool.announce()
        if self._announced and self._ready_file is not None and not self._stopping:
            self._ready_file.update(consuming=self._consuming)

    # -- what the broker says ----------------------------------------------------------------

    def _on_delivery(self, delivery: Delivery) -> None:
        assert self._parts is not None
        parts, now = self._parts, clock.wall()
        if parts.hands.claims.any:
            claimed = parts.hands.claims.recognise(delivery)
            if claimed is not None and parts.dispatcher.adopt(claimed, delivery, now):
                return
        job = parts.dispatcher.receive(delivery, now)
        if parts.hands.herald is not None:
            parts.hands.herald.received(job)
        if self._tells_received and job.headers is not None:
            log.event("task-received", name=job.name, id=job.id, queue=delivery.queue)

    def _on_blocked(self, blocked: bool) -> None:
        assert self._parts is not None
        if blocked:
            self._parts.dispatcher.blocked = True
        else:
            self._parts.dispatcher.unblock()

    def _on_lost(self, reason: str) -> None:
        assert self._parts is not None
        patience = topology.consumer_timeout(reason)
        if patience is not None:
            self._patience = min(patience, self._patience)
            self._renew()
        self._consuming = False
        self._announce()
        self._parts.dispatcher.lose_deliveries()

    # -- what children say -------------------------------------------------------------------

    def _on_frame(self, child: int, frame: Frame) -> None:
        assert self._parts is not None
        match frame[0]:
            case frames.DONE:
                if self._parts.hands.herald is not None:
                    self._tell_done(frame[1], frame[2])
                self._parts.dispatcher.succeeded(child, frame[1])
                self._weigh_child(child)
            case frames.PUBLISH:
                self._on_publish(child, *frame[1:])
            case frames.ENDED:
                self._on_ended(child, *frame[1:])
            case frames.BACK:
                self._parts.dispatcher.came_back(child, frame[1])
            case frames.FLUSH:
                self._parts.dispatcher.asked(child, frame[1], frame[2])
            case frames.CAST:
                self._parts.outlet.broadcast(Message(frame[1], frame[2]), frame[3], frame[4])
            case frames.STORED:
                self._parts.hands.on_stored(frame[1], frame[2])
            case frames.READY:
                log.event("child-ready", pid=frame[1])
                self._stillborn = 0
                if not self._parts.hands.is_clerk(child):
                    if self._parts.hands.herald is not None:
                        self._pool.send(child, [frames.EVENTS, True])
                    self._parts.dispatcher.child_ready(child)
                    self._announce()

    def _on_ended(
        self,
        child: int,
        number: int,
        outcome: str,
        runtime: float,
        reason: str,
        evidence: Sequence[str] | None,
        shown: str | None,
    ) -> None:
        assert self._parts is not None
        job = self._parts.dispatcher.ledger.get(number)
        if self._parts.hands.herald is not None and job is not None:
            self._parts.hands.herald.heard(job, Outcome(outcome), runtime, evidence, shown)
        told = (evidence[0], evidence[1], evidence[2]) if evidence else None
        self._parts.dispatcher.done(child, number, Outcome(outcome), runtime, reason, told)
        self._weigh_child(child)

    def _tell_done(self, told: Sequence[float], shown: Sequence[str]) -> None:
        """Tell monitors of jobs that succeeded; *told* and *shown* are those of a DONE."""
        assert self._parts is not None
        assert self._parts.hands.herald is not None
        texts = shown if 2 * len(shown) == len(told) else itertools.repeat(None)
        for number, runtime, text in zip(told[::2], told[1::2], texts, strict=False):
            job = self._parts.dispatcher.ledger.get(int(number))
            self._parts.hands.herald.done(int(number), job, text, runtime)

    def send_task_events(self, wanted: bool) -> None:
        """Begin, or cease, to tell monitors what becomes of tasks."""
        if self._parts is not None:
            self._parts.hands.herald = self._parts.herald if wanted else None
            for child in self._parts.dispatcher.numbers():
                self._pool.send(child, [frames.EVENTS, wanted])

    def _weigh_child(self, child: int) -> None:
        assert self._parts is not None
        if self._parts.max_memory and self._pool.memory(child) > self._parts.max_memory:
            self._parts.dispatcher.retire(child)

    def _on_publish(
        self,
        child: int,
        number: int,
        packed: bytes,
        raw: bytes,
        body: bytes,
        due: float | None,
        mandatory: bool,
        ticket: int | None,
    ) -> None:
        assert self._parts is not None
        route = self._routes.get(packed)
        if route is None:
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            route = self._routes[packed] = unpack_route(packed)
        known = self._parts.dispatcher.publishing(number)
        waiting = self._unconfirmed[child] = self._unconfirmed.get(child, 0) + 1
        if waiting == _TALKATIVE:
            self._paused.add(child)
            self._pool.pause(child, True)
        self._parts.outlet.publish(
            Message(raw, body),
            route,
            partial(self._on_published, child, number if known else None, ticket),
            due=due,
            mandatory=mandatory,
        )

    def _on_published(
        self, child: int, number: int | None, ticket: int | None, error: PublishError | None
    ) -> None:
        assert self._parts is not None
        refusal = None if error is None else str(error)
        if child in self._unconfirmed:
            waiting = self._unconfirmed[child] = self._unconfirmed[child] - 1
            if child in self._paused and waiting <= _TALKATIVE // 2:
                self._paused.discard(child)
                self._pool.pause(child, False)
        if ticket is not None:  # the child waits for this very message: it hears, and decides
            told = None if error is None else pack_error(error)
            self._parts.hands.answer(child, ticket, told)
            refusal = None
        if number is not None:
            self._parts.dispatcher.published(number, refusal)

    def _on_death(self, child: int, finished: int, begun: int, how: str) -> None:
        self._unconfirmed.pop(child, None)
        self._paused.discard(child)
        if self._parts is None or self._exit is not None:
            return
        if self._parts.hands.is_clerk(child):
            self._parts.hands.on_clerk_death()
            return
        self._parts.dispatcher.finished(child, finished)
        if self._parts.hands.herald is not None:
            self._parts.hands.herald.child_died(child)
        if not self._mourn(child, how):
            return
        for job in self._parts.dispatcher.child_died(child, begun, how):
            log.event(
                "task-lost",
                name=job.name,
                id=job.id,
                how=how,
                crashes=job.crashes,
                limit=self._parts.manifest.settings["max_crashes"],
            )
        self._grow()

    def _mourn(self, child: int, how: str) -> bool:
        """Say that *child* is gone; False if so many died before they were ready that all ends."""
        assert self._parts is not None
        ready = self._parts.dispatcher.was_ready(child)
        if ready is None:
            log.event("child-retired", child=child)
            return True
        log.event("child-died", child=child, how=how)
        self._stillborn += not ready
        if self._stillborn <= _STILLBIRTHS + self._parts.concurrency:
            return True
        log.event("children-broken", count=self._stillborn, how=how)
        self._exit = EXIT_BROKEN
        return False

    # -- stopping ----------------------------------------------------------------------------

    @property
    def _idle(self) -> bool:
        return self._parts is None or self._parts.dispatcher.idle

    def _stop(self, signal_name: str) -> None:
        if self._stopping:
            self._stop_cold(f"second signal, {signal_name}")
        else:
            settings = self._parts.manifest.settings if self._parts else None
            timeout = settings["worker_shutdown_timeout"] if settings else None
            self._stop_warm(signal_name, timeout, "worker_shutdown_timeout")

    def _quit(self) -> None:
        settings = self._parts.manifest.settings if self._parts else None
        timeout = settings["worker_soft_shutdown_timeout"] if settings else None
        if self._quitting or not timeout:
            self._stop_cold("SIGQUIT")
        else:  # as in Celery, the cold stop is put off for so long
            self._quitting = True
            self._stop_warm("SIGQUIT", timeout, "worker_soft_shutdown_timeout")

    def _stop_warm(self, signal_name: str, timeout: float | None, setting: str) -> None:
        """Finish what runs, for no longer than *timeout* seconds, which *setting* says."""
        self._stopping = True
        if self._ready_file is not None:
            self._ready_file.remove()
        log.event(
            "worker-stopping", node=self._options.name, how=f"{signal_name}, finishing what runs"
        )
        if self._companion is not None:
            self._companion.end()
        if self._parts is not None:
            self._parts.dispatcher.stop()
            self._parts.intake.pause()
        if timeout is not None:
            self._loop.call_later(
                timeout, partial(self._stop_cold, f"{setting} ({timeout:g}s) is over")
            )

    def _stop_cold(self, why: str) -> None:
        self._stopping = True
        log.event("worker-stopping", node=self._options.name, how=f"{why}, at once")
        self._exit = EXIT_OK if self._idle else EXIT_COLD
        if self._parts is not None:
            self._parts.dispatcher.stop()
        self._pool.kill_all()

    def _shut_down(self) -> None:
        """Children first, so that nothing more is said; then what is unconfirmed; the intake last.

        Closing the intake gives back what was never begun, and an ack must not overtake a confirm.
        """
        if self._ready_file is not None:
            self._ready_file.remove()
        if self._companion is not None:
            self._companion.close()
        self._pool.close(0.0 if self._exit == EXIT_COLD else 5.0)
        if self._parts is not None:
            self._parts.dispatcher.abandon("ended when its worker was stopped")
            self._parts.herald.close()
            self._parts.outlet.close()
            self._parts.intake.close()
            self._parts.broker.close()
        log.event("worker-stopped", node=self._options.name)
        self._loop.close()


def _vitals(dispatcher: Dispatcher) -> tuple[int, int]:
    """How many tasks children have in their hands, and how many they have finished."""
    held = sum(len(dispatcher.in_hands(child)) for child in dispatcher.numbers())
    return held, dispatcher.ended


def cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def node_name(pattern: str) -> str:
    """*pattern* with %h (host name), %n (its first part), %d (its domain) and %% filled in.

    A name without a host part gets this host's, as operators' tools expect `name@host`.
    """
    host = socket.gethostname()
    short, _, domain = host.partition(".")
    if "@" not in pattern:
        pattern += "@%h"
    for word, value in (("%h", host), ("%n", short), ("%d", domain), ("%%", "%")):
        pattern = pattern.replace(word, value)
    return pattern
