"""Where operators are served: what remote commands ask of a worker, asked of its parts.

It keeps the contract `control.base.Worker` and decides nothing: what a command is and how it came
here is the business of the room `control`, what follows from it that of the parts.  How answers
look is in `portrait`.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from taskq import __version__, clock
from taskq.broker.base import Queue
from taskq.control.base import Change, Clock, CommandError, Later, Remembered
from taskq.control.memory import texts
from taskq.worker import frames, portrait
from taskq.worker.crew import Crew
from taskq.worker.ledger import Job, Phase
from taskq.worker.options import WorkerOptions
from taskq.worker.parts import Parts
from taskq.worker.pool import Pool

_EXCHANGE_TYPES = ("direct", "topic", "fanout", "headers")
#: RabbitMQ's own queues and exchanges, which nobody else may declare.
_RESERVED = "amq."
#: More children than this are nobody's wish.
_MOST_CHILDREN = 1000


class Desk:
    """One worker, as remote commands see it; see `control.base.Worker` for the verbs."""

    def __init__(
        self,
        options: WorkerOptions,
        pool: Pool,
        parts: Parts,
        crew: Crew,
        *,
        reload: Callable[[], None],
        stop: Callable[[], None],
    ) -> None:
        self._options = options
        self._pool = pool
        self._parts = parts
        self._dispatcher = parts.dispatcher
        self._taps = parts.hands.taps
        self._crew = crew
        self._reload = reload
        self._stop = stop
        self._since = clock.monotonic()
        self._draining = False
        #: The dump that is being made, and the children that have not answered.
        self._dump: Later | None = None
        self._asked: set[int] = set()

    @property
    def node(self) -> str:
        return self._options.name

    @property
    def clock(self) -> Clock:
        return self._parts.herald.writer

    @property
    def remembered(self) -> Remembered:
        return self._parts.remembered

    def apply(self, change: Change) -> None:
        self._dispatcher.apply(change)

    # -- what it is doing --------------------------------------------------------------------

    def active(self, safe: bool) -> list[dict[str, Any]]:
        return [
            portrait.request(job, self.node, safe=safe, started=started, pid=pid)
            for job, started, pid in self._in_hands()
        ]

    def _in_hands(self) -> Iterator[tuple[Job, float | None, int | None]]:
        """Each job in a child's hands, when it was begun, if it was, and the child's process id."""
        now, epoch = clock.monotonic(), clock.wall()
        for child in self._dispatcher.numbers():
            begun, _state, since = self._pool.slate(child)
            pid = self._pool.pid(child)
            for job in self._dispatcher.in_hands(child):
                yield job, epoch - (now - since) if job.number == begun else None, pid

    def reserved(self, safe: bool) -> list[dict[str, Any]]:
        return [portrait.request(job, self.node, safe=safe) for job in self._dispatcher.waiting]

    def scheduled(self, safe: bool) -> list[dict[str, Any]]:
        return [
            portrait.scheduled(job, self.node, until, safe=safe)
            for until, job in self._dispatcher.held
        ]

    def query(self, ids: Collection[str]) -> dict[str, list[Any]]:
        wanted = set(ids)
        held = {job for _, job in self._dispatcher.held}
        begun = {job: (started, pid) for job, started, pid in self._in_hands()}
        found: dict[str, list[Any]] = {}
        for job in self._dispatcher.ledger:
            if job.id not in wanted:
                continue
            started, pid = begun.get(job, (None, None))
            state = (
                "active"
                if job in begun
                else "scheduled"
                if job in held
                else "reserved"
                if job.phase is Phase.WAITING
                else "ready"
            )
            info = portrait.request(job, self.node, safe=True, started=started, pid=pid)
            found[job.id] = [state, info]
        return found

    def stamped(self, stamps: Mapping[str, Collection[str]]) -> list[str]:
        return [job.id for job in self._dispatcher.active if _carries(job, stamps)]

    def registered(self, attributes: Sequence[str]) -> list[str]:
        manifest = self._parts.manifest
        rates = {
            name: rate
            for name, policy in manifest.policies.items()
            if (rate := self.remembered.rate_limits.get(name, policy.rate_limit))
        }
        return portrait.tasks(manifest, rates, attributes)

    def knows(self, task: str) -> bool:
        return task in self._parts.manifest.policies

    def conf(self, with_defaults: bool) -> dict[str, Any]:
        known, changed = self._parts.manifest.conf, self._parts.manifest.changed
        return {name: known[name] for name in (known if with_defaults else changed)}

    def report(self) -> str:
        return portrait.report(self.node, self._parts.manifest, self._parts.broker.url)

    def active_queues(self) -> list[dict[str, Any]]:
        paused = self.remembered.paused
        return [
            portrait.queue(queue, paused=queue.name in paused)
            for queue in self._taps.queues.values()
        ]

    def stats(self) -> dict[str, Any]:
        manifest, scale = self._parts.manifest, self._crew.scale
        told = {
            "total": dict(self._dispatcher.totals),
            "pid": os.getpid(),
            "clock": str(self._parts.herald.writer.clock),
            "uptime": int(clock.monotonic() - self._since),
            "pool": {
                "implementation": f"taskq:{self._options.pool}",
                "max-concurrency": self._crew.size,
                "processes": [pid for _, pid in self._processes()],
                "max-tasks-per-child": self._options.max_tasks_per_child
                or manifest.settings["worker_max_tasks_per_child"]
                or "N/A",
                "put-guarded-by-semaphore": False,
                "timeouts": [
                    manifest.conf["task_soft_time_limit"] or 0,
                    manifest.conf["task_time_limit"] or 0,
                ],
                "writes": "N/A",
            },
            "broker": portrait.broker(manifest.broker),
            "prefetch_count": self._parts.window.width,
            "rusage": portrait.usage(),
            "taskq": {
                "version": __version__,
                "window": self._parts.window.width,
                "held": len(self._dispatcher.ledger),
                "held_bytes": self._dispatcher.ledger.size,
                "waiting": len(self._dispatcher.waiting),
                "draining": self._draining,
                "paused": sorted(self.remembered.paused & self._taps.queues.keys()),
                "events": self._parts.hands.herald is not None,
                "children": [self._child(child, pid) for child, pid in self._processes()],
            },
        }
        if scale is not None:
            told["autoscaler"] = {
                "max": scale.most,
                "min": scale.least,
                "current": self._crew.size,
                "qty": len(self._dispatcher.active),
            }
        return told

    def _processes(self) -> list[tuple[int, int]]:
        """The children that are born, by number and process id."""
        found = [(child, self._pool.pid(child)) for child in self._dispatcher.numbers()]
        return [(child, pid) for child, pid in found if pid is not None]

    def _child(self, child: int, pid: int) -> dict[str, Any]:
        begun, _state, since = self._pool.slate(child)
        jobs = self._dispatcher.in_hands(child)
        job = next((each for each in jobs if each.number == begun), None)
        return {
            "pid": pid,
            "memory": self._pool.memory(child) * 1024,
            "id": job.id if job is not None else None,
            "name": job.name if job is not None else None,
            "since": clock.wall() - (clock.monotonic() - since) if job is not None else None,
            "in_hand": len(jobs),
        }

    def dump(self) -> Later:
        if self._dump is not None:
            return self._dump
        told, stacks = Later(), dict[str, str]()
        children = list(self._dispatcher.numbers())
        if not children:
            told.set(stacks)
            return told
        self._dump, self._asked = told, set(children)
        unborn = os.getpid() if self._options.pool == "solo" else None
        for child in children:  # some answer at once
            name = str(self._pool.pid(child) or unborn or f"child {child}")
            self._pool.stacks(child, partial(self._on_stacks, child, name, stacks))
        return told

    def _on_stacks(self, child: int, pid: str, stacks: dict[str, str], text: str) -> None:
        stacks[pid] = text
        self._asked.discard(child)
        if not self._asked and self._dump is not None:
            told, self._dump = self._dump, None
            told.set(stacks)

    # -- what it should do -------------------------------------------------------------------

    def terminate(self, ids: Collection[str], signum: int) -> list[str]:
        wanted = set(ids)
        return [
            job.id
            for job in self._dispatcher.active
            if job.id in wanted and self._dispatcher.terminate(job.number, signum)
        ]

    def add_consumer(
        self,
        queue: str,
        exchange: str | None,
        exchange_type: str | None,
        routing_key: str | None,
        options: Mapping[str, Any],
    ) -> None:
        manifest = self._parts.manifest
        known = next((each for each in manifest.known_queues if each.name == queue), None)
        if exchange is None and known is not None:
            self._taps.add(known)
            return
        if known is None and not manifest.conf["task_create_missing_queues"]:
            raise CommandError(
                f"queue {queue!r} is not in task_queues, and task_create_missing_queues is off"
            )
        kind = exchange_type or "direct"
        if kind not in _EXCHANGE_TYPES:
            raise CommandError(f"exchange_type must be one of {', '.join(_EXCHANGE_TYPES)}")
        if queue.startswith(_RESERVED):
            raise CommandError(f"names that begin with {_RESERVED!r} are RabbitMQ's own")
        self._taps.add(
            Queue(
                queue,
                exchange=exchange or "",
                exchange_type=kind if exchange else "direct",
                routing_key=(queue if routing_key is None else routing_key) if exchange else "",
                max_priority=manifest.conf["task_queue_max_priority"],
            )
        )

    def cancel_consumer(self, queue: str) -> None:
        self._taps.remove(queue)

    def pool_grow(self, count: int) -> None:
        self._resize("pool_grow", self._crew.size + count)

    def pool_shrink(self, count: int) -> None:
        self._resize("pool_shrink", self._crew.size - count)

    def _resize(self, command: str, size: int) -> None:
        if self._crew.scale is not None:
            raise CommandError(
                f"{command} is not supported with autoscale. Adjust autoscale range instead."
            )
        if self._options.pool == "solo":
            raise CommandError("a solo worker has one child, which is itself")
        if not 1 <= size <= _MOST_CHILDREN:
            raise CommandError(f"there would be {size} children; 1 to {_MOST_CHILDREN} may be")
        self._crew.resize(size)

    def pool_restart(self) -> None:
        if self._options.pool == "solo":
            raise CommandError("a solo worker has its app in its own process: restart it")
        self._reload()

    def autoscale(self, most: int | None, least: int | None) -> tuple[int, int]:
        scale = self._crew.scale
        if scale is None:
            raise CommandError("autoscale is not on: start the worker with --autoscale max,min")
        most = scale.most if most is None else most
        least = max(1, scale.least if least is None else least)
        if least > most:
            raise CommandError(f"max={most} is less than min={least}")
        scale.most, scale.least = most, least
        self._crew.resize(max(least, min(most, self._crew.size)))
        return most, least

    def enable_events(self) -> bool:
        return self._send_task_events(True)

    def disable_events(self) -> bool:
        return self._send_task_events(False)

    def _send_task_events(self, wanted: bool) -> bool:
        """Begin, or cease, to tell monitors what becomes of tasks; whether that is a change."""
        hands, herald = self._parts.hands, self._parts.herald
        if wanted == (hands.herald is not None):
            return False
        hands.herald = herald if wanted else None
        for child in self._dispatcher.numbers():
            self._pool.send(child, [frames.EVENTS, wanted])
        return True

    def heartbeat(self) -> None:
        self._parts.herald.beat()

    def drain(self) -> None:
        self._draining = True
        self._taps.close("drain")

    def undrain(self) -> None:
        self._draining = False
        self._taps.open("drain")

    def shutdown(self) -> None:
        self._stop()


def _carries(job: Job, stamps: Mapping[str, Collection[str]]) -> bool:
    """Whether *job* carries one of these *stamps*."""
    own = job.delivery.message.headers.get("stamps")
    if not isinstance(own, Mapping):
        return False
    return any(value in values for name, values in stamps.items() for value in texts(own.get(name)))
