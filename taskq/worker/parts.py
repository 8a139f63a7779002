"""What a worker's parent is made of once it knows its app, put together in one place.

Here is which part is given which; when each of them begins and ends is the supervisor's business.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module

from taskq import tls
from taskq.broker import open_broker
from taskq.broker.base import Broker, Delivery, Intake, Outlet
from taskq.control.memory import Remembered
from taskq.loop import Loop
from taskq.worker import banner
from taskq.worker.dispatcher import Dispatcher
from taskq.worker.hands import WorkerHands
from taskq.worker.herald import Herald
from taskq.worker.manifest import Manifest
from taskq.worker.options import WorkerOptions
from taskq.worker.pool import Pool, Reports
from taskq.worker.recall import Recall
from taskq.worker.roster import DEPTH
from taskq.worker.timekeeper import Timekeeper
from taskq.worker.window import Window


def open_pool(loop: Loop, options: WorkerOptions, reports: Reports) -> Pool:
    """The pool that *options* name; `solo` brings rooms along that others need not."""
    if options.pool == "solo":
        made: Pool = import_module("taskq.worker.solo").Solo(loop, options, reports)
    else:
        made = import_module("taskq.worker.prefork").Prefork(loop, options, reports)
    return made


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Who hears what the broker says; see `broker.base.Intake`."""

    on_delivery: Callable[[Delivery], None]
    on_ready: Callable[[], None]
    on_lost: Callable[[str], None]
    on_blocked: Callable[[bool], None]


@dataclass(slots=True)
class Parts:
    """The parts; the manifest is that of the code that serves now."""

    manifest: Manifest
    broker: Broker
    intake: Intake
    outlet: Outlet
    hands: WorkerHands
    dispatcher: Dispatcher
    window: Window
    herald: Herald
    #: What operators have decided.
    remembered: Remembered
    #: How many children there are at first.
    children: int


def assemble(
    loop: Loop, options: WorkerOptions, manifest: Manifest, pool: Pool, callbacks: Callbacks
) -> Parts:
    """The parts of a worker with these *options*; nothing is consumed yet."""
    settings = manifest.settings
    solo = options.pool == "solo"
    children = 1 if solo else options.concurrency or settings["worker_concurrency"] or cpus()
    # What may be held follows what children there may be: that jobs wait is what has them come.
    most = children
    if options.autoscale is not None and not solo:
        most, children = options.autoscale
    told = replace(manifest.broker, name=options.name)
    if solo:  # nothing turns the loop while its one task runs
        told = replace(told, heartbeat=0.0, ack_delay=0.0)
    if not solo:
        tls.be_silent()  # the nursery has opened the same, and warned of it
    broker = open_broker(told)
    banner.show(options, manifest, children, broker.url)
    outlet = broker.outlet(loop, on_blocked=callbacks.on_blocked)
    intake = broker.intake(
        loop,
        on_delivery=callbacks.on_delivery,
        on_ready=callbacks.on_ready,
        on_lost=callbacks.on_lost,
    )
    hands = WorkerHands(
        loop,
        pool,
        intake,
        outlet,
        manifest.queues,
        node=options.name,
        dead_letter_ttl=settings["dead_letter_ttl"],
        child_start_timeout=settings["worker_child_start_timeout"],
    )
    window = Window(most, options.prefetch, settings["worker_prefetch_multiplier"] or None)
    remembered = Remembered()
    hands.dispatcher = dispatcher = Dispatcher(
        hands,
        manifest.policies,
        remembered=remembered,
        limit_rates=not settings["worker_disable_rate_limits"],
        max_crashes=settings["max_crashes"],
        max_deliveries=settings["max_deliveries"],
        max_tasks_per_child=None
        if solo
        else options.max_tasks_per_child or settings["worker_max_tasks_per_child"],
        depth=1 if solo else DEPTH,
        window=window,
        max_held=settings["worker_max_held_bytes"],
    )
    hands.timekeeper = Timekeeper(loop, pool, dispatcher, kill_wait=settings["kill_wait"])
    hands.recaller = Recall(loop, pool, dispatcher)
    herald = Herald(
        loop,
        outlet,
        options.name,
        interval=settings["worker_heartbeat"],
        vitals=partial(_vitals, dispatcher),
    )
    if options.task_events or settings["worker_send_task_events"]:
        hands.herald = herald
    return Parts(
        manifest,
        broker,
        intake,
        outlet,
        hands,
        dispatcher,
        window,
        herald,
        remembered,
        children,
    )


def _vitals(dispatcher: Dispatcher) -> tuple[int, int]:
    """How many tasks children have in their hands, and how many they have finished."""
    held = sum(len(dispatcher.in_hands(child)) for child in dispatcher.numbers())
    return held, dispatcher.ended


def cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
