"""The worker's parent, from boot to exit: read `run` top to bottom.

It owns the loop, the pool, and the parts that are made once the app is known (`parts`); children
are heard by the `switchboard` and counted by the `crew`, operators are served at the `desk`.  It
never imports the app, never opens a body, and never talks to a result store.

::

    boot ──> running ──TERM, INT──> stopping (warm) ──all done──> exit 0
      │         │                        │
      │         ├──QUIT──────────────────┴──second signal, or time is up──> cold: kill, give
      │         │                                                             back, exit 1
      │         └──HUP──> the app imported afresh, children replaced as they finish
      └── the app cannot be imported: exit 3
"""

import math
import os
import signal
import socket
from dataclasses import replace
from functools import partial

from taskq import clock, log
from taskq.broker import topology
from taskq.broker.base import Delivery
from taskq.control.mailbox import Mailbox
from taskq.loop import Loop, Timer
from taskq.worker.autoscale import Autoscale
from taskq.worker.companion import Companion
from taskq.worker.crew import Crew
from taskq.worker.desk import Desk
from taskq.worker.frames import Frame
from taskq.worker.health import ReadyFile
from taskq.worker.manifest import Manifest
from taskq.worker.options import WorkerOptions
from taskq.worker.parts import Callbacks, Parts, assemble, open_pool
from taskq.worker.pool import Death, Reports
from taskq.worker.switchboard import Switchboard

EXIT_OK = 0
#: Stopped at once: running tasks were killed and given back.
EXIT_COLD = 1
#: The app cannot be imported, or no child becomes ready: starting again will not help.
EXIT_BROKEN = 3


class Supervisor:
    """One worker; `run` is its life.  Everything here is written by the loop's one thread."""

    # Made with the parts, once the manifest is there; before that there are no children either.
    _crew: Crew
    _switchboard: Switchboard

    def __init__(self, options: WorkerOptions) -> None:
        self._options = replace(options, name=node_name(options.name))
        self._loop = Loop()
        self._reports = Reports(self._on_manifest, self._on_broken, self._on_frame, self._on_death)
        self._pool = open_pool(self._loop, self._options, self._reports)
        self._parts: Parts | None = None
        #: Where commands of operators come in; None: they do not.
        self._mailbox: Mailbox | None = None
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
                self._pool = open_pool(self._loop, self._options, self._reports)
                self._pool.start()
                return
        if self._parts is None:
            self._parts = self._open(manifest)
            self._renew()
        else:
            self._parts.manifest = manifest
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
        self._crew.fill()

    def _open(self, manifest: Manifest) -> Parts:
        """Put the parts together, and have each of them begin."""
        callbacks = Callbacks(
            self._on_delivery, self._on_consuming, self._on_lost, self._on_blocked
        )
        parts = assemble(self._loop, self._options, manifest, self._pool, callbacks)
        scaled = self._options.autoscale if self._options.pool != "solo" else None
        self._crew = Crew(
            self._loop,
            self._pool,
            parts,
            max_memory=self._options.max_memory_per_child
            or manifest.settings["worker_max_memory_per_child"],
            scale=Autoscale(*scaled) if scaled is not None else None,
            on_broken=partial(self._end, EXIT_BROKEN),
        )
        self._switchboard = Switchboard(
            self._loop, self._pool, parts, self._crew, on_ready=self._announce
        )
        begin = partial(self._begin, parts)
        if manifest.settings["worker_enable_remote_control"]:
            desk = Desk(
                self._options,
                self._pool,
                parts,
                self._crew,
                reload=self._reload,
                stop=self._stop_as_told,
            )
            self._mailbox = Mailbox(self._loop, parts.broker, parts.outlet, desk)
            # What was revoked or paused is known before the first delivery.
            self._mailbox.start(begin)
        else:
            begin()
        if self._companion is not None:
            self._companion.start()
        self._patience = manifest.settings["broker_consumer_timeout"]
        return parts

    def _begin(self, parts: Parts) -> None:
        """Take messages."""
        if not self._stopping:
            parts.hands.taps.begin(parts.window.width)

    def _renew(self) -> None:
        """Claim anew what the broker would soon take back; see `claims`."""
        if self._parts is None or not self._parts.broker.takes_back or self._stopping:
            return
        if self._renewal is not None:
            self._renewal.cancel()
        self._parts.dispatcher.renew(clock.wall() - self._patience / 2)
        self._renewal = self._loop.call_later(self._patience / 20, self._renew)

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
            if claimed is not None and parts.dispatcher.renewal.adopt(claimed, delivery, now):
                return
        job = parts.dispatcher.receive(delivery, now)
        if job.comes_again(now):
            return
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
        self._switchboard.on_frame(child, frame)

    def _on_death(self, child: int, death: Death) -> None:
        if self._exit is None:
            self._switchboard.on_death(child, death)

    # -- stopping ----------------------------------------------------------------------------

    def _end(self, code: int) -> None:
        self._exit = code

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

    def _stop_as_told(self) -> None:
        if not self._stopping:
            self._stop("remote control")

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
            self._crew.stop()
            self._parts.dispatcher.stop()
            self._parts.hands.taps.close("stopping")
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
        if self._mailbox is not None:
            self._mailbox.close()
        if self._parts is not None:
            self._parts.dispatcher.abandon("ended when its worker was stopped")
            self._parts.herald.close()
            self._parts.outlet.close()
            self._parts.intake.close()
            self._parts.broker.close()
        log.event("worker-stopped", node=self._options.name)
        self._loop.close()


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
