"""The commands that a worker obeys: a table of names, arguments and thin functions.

Names, arguments and replies are those of Celery 5.7, for the tools that were written for it; where
it has nothing alike, they are taskq's own.  Arguments are read before a function sees them, and
unknown ones are passed over.  Which requests reach a worker is the business of `mailbox`.
"""

import difflib
import resource
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from taskq.control.arguments import (
    CHILDREN,
    FLAG,
    IDS,
    NAME,
    NAMES,
    QUEUE,
    RATE,
    SECONDS,
    SEVERAL,
    SIGNAL,
    STAMPS,
    Argument,
    read,
)
from taskq.control.base import CommandError, Reply, Worker
from taskq.control.memory import (
    Change,
    LimitRate,
    LimitTime,
    Pause,
    Resume,
    Revoke,
    RevokeStamped,
)
from taskq.rate import parse_rate

#: What Flower and Celery show of a task when nobody says what.
_ATTRIBUTES = ("exchange", "routing_key", "rate_limit")


#: The arguments of a command, read: name -> value.
Given = Mapping[str, Any]


class Silence:
    """The reply of a command that has none."""


SILENCE = Silence()


@dataclass(frozen=True, slots=True)
class Command:
    """One line of the table.

    *run* is called with the worker and the arguments and makes the reply.  What outlives a worker
    has a *change*, called with the same before, which says what to remember.
    """

    name: str
    kind: Literal["inspect", "control"]
    summary: str
    run: Callable[[Worker, Given], Reply]
    arguments: tuple[Argument, ...] = ()
    change: Callable[[Worker, Given], Change] | None = None
    aliases: tuple[str, ...] = ()
    #: *run* finds the arguments that stand in no table under `options`.
    takes_more: bool = False
    #: For other workers only: people are not told of it.
    hidden: bool = False

    def read(self, given: Mapping[str, Any]) -> Given:
        """*given* as *run* takes it; CommandError says what is wrong with it."""
        found = {argument.name: read(argument, given) for argument in self.arguments}
        if self.takes_more:
            found["options"] = {name: given[name] for name in given if name not in found}
        return found


def find(name: str) -> Command:
    """The command of that *name* or alias; CommandError where there is none."""
    command = BY_NAME.get(name)
    if command is None:
        near = difflib.get_close_matches(name[:80], VISIBLE, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise CommandError(f"there is no command {name[:80]!r}{meant}")
    return command


# -- what is asked -------------------------------------------------------------------------------


def _ok(value: object) -> Reply:
    return {"ok": value}


def _hello(worker: Worker, given: Given) -> Reply:
    if given["from_node"] == worker.node:
        return None
    return {"revoked": list(worker.remembered.revoked), "clock": worker.clock.tick()}


def _memsample(_worker: Worker, _given: Given) -> Reply:
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return f"{pages * resource.getpagesize() / 1e6:.1f}MB"


def _absent(_worker: Worker, _given: Given) -> Reply:
    raise CommandError("taskq has no such command: ask for dump (stacks) or stats (memory)")


# -- what is changed -----------------------------------------------------------------------------


def _revoke(worker: Worker, given: Given) -> Reply:
    ids = given["task_id"]
    if not given.get("terminate", True):
        shown = "{" + ", ".join(map(repr, ids)) + "}" if ids else "set()"
        return _ok(f"tasks {shown} flagged as revoked")
    ended = worker.terminate(ids, given["signal"])
    return _ok(f"terminate: {', '.join(ended) or 'tasks unknown'}")


def _revoke_stamped(worker: Worker, given: Given) -> Reply:
    stamps = given["headers"]
    shown = {name: list(values) for name, values in stamps.items()}
    if not given["terminate"]:
        return _ok(f"headers {shown} flagged as revoked, but not terminated")
    ended = worker.terminate(worker.stamped(stamps), given["signal"])
    return _ok(f"headers {shown} revoked" if ended else f"headers {shown} were not terminated")


def _task(worker: Worker, given: Given) -> str:
    """The task that a limit is for."""
    task: str = given["task_name"]
    if not worker.knows(task):
        raise CommandError("unknown task")
    return task


def _rate_limit(_worker: Worker, given: Given) -> Reply:
    if parse_rate(given["rate_limit"]) is None:
        return _ok("rate limit disabled successfully")
    return _ok("new rate limit set successfully")


def _add_consumer(worker: Worker, given: Given) -> Reply:
    worker.add_consumer(
        given["queue"],
        given["exchange"],
        given["exchange_type"],
        given["routing_key"],
        given["options"],
    )
    return _ok(f"add consumer {given['queue']}")


def _cancel_consumer(worker: Worker, given: Given) -> Reply:
    worker.cancel_consumer(given["queue"])
    return _ok(f"no longer consuming from {given['queue']}")


def _pool_grow(worker: Worker, given: Given) -> Reply:
    worker.pool_grow(given["n"])
    return _ok("pool will grow")


def _pool_shrink(worker: Worker, given: Given) -> Reply:
    worker.pool_shrink(given["n"])
    return _ok("pool will shrink")


def _pool_restart(worker: Worker, _given: Given) -> Reply:
    worker.pool_restart()
    return _ok("reload started")


def _autoscale(worker: Worker, given: Given) -> Reply:
    most, least = worker.autoscale(given["max"], given["min"])
    return _ok(f"autoscale now max={most} min={least}")


def _enable_events(worker: Worker, _given: Given) -> Reply:
    return _ok(f"task events {'enabled' if worker.enable_events() else 'already enabled'}")


def _disable_events(worker: Worker, _given: Given) -> Reply:
    return _ok(f"task events {'disabled' if worker.disable_events() else 'already disabled'}")


def _heartbeat(worker: Worker, _given: Given) -> Reply:
    worker.heartbeat()
    return None


def _drain(worker: Worker, _given: Given) -> Reply:
    worker.drain()
    return _ok("takes nothing more")


def _undrain(worker: Worker, _given: Given) -> Reply:
    worker.undrain()
    return _ok("takes messages again")


def _shutdown(worker: Worker, _given: Given) -> Reply:
    worker.shutdown()
    return SILENCE


# -- the table -----------------------------------------------------------------------------------

_SAFE = Argument("safe", FLAG, False)
_SIGNAL = Argument("signal", SIGNAL, int(signal.SIGTERM))
_TERMINATE = Argument("terminate", FLAG, False)
_TASK = Argument("task_name", NAME, required=True)
_QUEUE = Argument("queue", QUEUE, required=True)
_IDS = Argument("task_id", NAMES, required=True)

COMMANDS: tuple[Command, ...] = (
    Command(
        "active",
        "inspect",
        "tasks that children have in hand",
        lambda worker, given: worker.active(given["safe"]),
        (_SAFE,),
        aliases=("dump_active",),
    ),
    Command(
        "active_queues",
        "inspect",
        "queues that it takes from",
        lambda worker, _: worker.active_queues(),
    ),
    Command(
        "clock",
        "inspect",
        "its logical clock",
        lambda worker, _: {"clock": worker.clock.tick()},
    ),
    Command(
        "conf",
        "inspect",
        "its settings, secrets masked",
        lambda worker, given: worker.conf(given["with_defaults"]),
        (Argument("with_defaults", FLAG, False),),
        aliases=("dump_conf",),
    ),
    Command("dump", "inspect", "Python stacks of its children", lambda worker, _: worker.dump()),
    Command("ping", "inspect", "whether it answers", lambda _, __: _ok("pong")),
    Command(
        "query_task",
        "inspect",
        "where these tasks are",
        lambda worker, given: worker.query(given["ids"]),
        (Argument("ids", NAMES, required=True),),
    ),
    Command(
        "registered",
        "inspect",
        "tasks that it knows",
        lambda worker, given: worker.registered(given["taskinfoitems"] or _ATTRIBUTES),
        (Argument("taskinfoitems", NAMES, _ATTRIBUTES),),
        aliases=("dump_tasks",),
    ),
    Command("report", "inspect", "versions and settings", lambda worker, _: _ok(worker.report())),
    Command(
        "reserved",
        "inspect",
        "tasks that wait for a child",
        lambda worker, given: worker.reserved(given["safe"]),
        (_SAFE,),
        aliases=("dump_reserved",),
    ),
    Command(
        "revoked",
        "inspect",
        "ids of revoked tasks",
        lambda worker, _: list(worker.remembered.revoked),
        aliases=("dump_revoked",),
    ),
    Command(
        "scheduled",
        "inspect",
        "tasks that wait for their time",
        lambda worker, given: worker.scheduled(given["safe"]),
        (_SAFE,),
        aliases=("dump_schedule",),
    ),
    Command("stats", "inspect", "numbers about it", lambda worker, _: worker.stats()),
    Command("memsample", "inspect", "memory that its parent process takes", _memsample),
    Command(
        "hello",
        "inspect",
        "what it remembers, for a new worker",
        _hello,
        (
            Argument("from_node", NAME, required=True),
            Argument("revoked", IDS, ()),
        ),
        change=lambda _, given: Revoke(given["revoked"]),
        hidden=True,
    ),
    Command("memdump", "inspect", "nothing", _absent, hidden=True),
    Command("objgraph", "inspect", "nothing", _absent, hidden=True),
    # ----
    Command(
        "add_consumer",
        "control",
        "take from one more queue",
        _add_consumer,
        (
            _QUEUE,
            Argument("exchange", NAME),
            Argument("exchange_type", NAME),
            Argument("routing_key", NAME),
        ),
        takes_more=True,
    ),
    Command(
        "autoscale",
        "control",
        "the most and the least children, of a worker started with --autoscale",
        _autoscale,
        (Argument("max", CHILDREN), Argument("min", CHILDREN)),
    ),
    Command("cancel_consumer", "control", "take no more from a queue", _cancel_consumer, (_QUEUE,)),
    Command("disable_events", "control", "tell monitors no more of tasks", _disable_events),
    Command("drain", "control", "take nothing more, finish what is held, stay up", _drain),
    Command("enable_events", "control", "tell monitors of tasks", _enable_events),
    Command("heartbeat", "control", "send a heartbeat now", _heartbeat),
    Command(
        "pause",
        "control",
        "take nothing from a queue, on any worker",
        lambda _, given: _ok(f"queue {given['queue']} paused"),
        (_QUEUE,),
        change=lambda _, given: Pause(given["queue"]),
    ),
    Command("pool_grow", "control", "more children", _pool_grow, (Argument("n", SEVERAL, 1),)),
    Command("pool_restart", "control", "import the app afresh, as HUP does", _pool_restart),
    Command("pool_shrink", "control", "fewer children", _pool_shrink, (Argument("n", SEVERAL, 1),)),
    Command(
        "rate_limit",
        "control",
        "how often each worker begins a task",
        _rate_limit,
        (_TASK, Argument("rate_limit", RATE, "0")),
        change=lambda worker, given: LimitRate(_task(worker, given), given["rate_limit"]),
    ),
    Command(
        "resume",
        "control",
        "take from a paused queue again, on all workers",
        lambda _, given: _ok(f"queue {given['queue']} resumed"),
        (_QUEUE,),
        change=lambda _, given: Resume(given["queue"]),
    ),
    Command(
        "revoke",
        "control",
        "have tasks never run; terminate: end those that do",
        _revoke,
        (_IDS, _TERMINATE, _SIGNAL),
        change=lambda _, given: Revoke(given["task_id"]),
    ),
    Command(
        "revoke_by_stamped_headers",
        "control",
        "as revoke, for tasks that carry a stamp",
        _revoke_stamped,
        (Argument("headers", STAMPS, required=True), _TERMINATE, _SIGNAL),
        change=lambda _, given: RevokeStamped(given["headers"]),
    ),
    Command("shutdown", "control", "stop as on TERM; there is no reply", _shutdown),
    Command(
        "terminate",
        "control",
        "revoke tasks, and end those that run",
        _revoke,
        (_IDS, _SIGNAL),
        change=lambda _, given: Revoke(given["task_id"]),
    ),
    Command(
        "time_limit",
        "control",
        "how many seconds a task may run; without one of the two, it has none of that kind",
        lambda _, __: _ok("time limits set successfully"),
        (_TASK, Argument("hard", SECONDS), Argument("soft", SECONDS)),
        change=lambda worker, given: LimitTime(_task(worker, given), given["hard"], given["soft"]),
    ),
    Command("undrain", "control", "take messages again after drain", _undrain),
    Command("election", "control", "nothing", lambda _, __: SILENCE, hidden=True),
)

#: Name or alias -> command.
BY_NAME = {name: command for command in COMMANDS for name in (command.name, *command.aliases)}
#: Names that people may use.
VISIBLE = tuple(command.name for command in COMMANDS if not command.hidden)
