"""Who may import whom: arrows point down, and lazy and type-only imports count as well."""

import ast
import subprocess
import sys

from tests.house.source import ROOT, assert_none, imports_of, modules

#: The house from its roof to the ground.  A room may import those on lower lines; the ground floor
#: is one for all its rooms.  A module belongs to the longest name that it begins with.
FLOORS = """
    __main__
    cli
    worker  beat  testing
    top
    locate  deadletters  queues  beat.stores  events
    taskq
    app
    client  control  broker  backends
    settings
    kinds  foreign  project
    broker.topology  backends.base  beat.base
    broker.base
    wire  schedules
    errors states rate retry clock hooks log loop tls url sqlitefile sqlengine redisclient
"""

#: Rooms of alternatives: from outside one asks the package for its contract, never one of these.
ALTERNATIVES = ("broker", "backends", "beat.stores")

#: Where each package that is not Python's own may be named.
THIRD_PARTIES = {
    "click": ("cli",),
    "msgpack": ("wire.codec", "worker"),
    "pika": (
        "broker.amqp",
        "broker.amqp_broadcast",
        "broker.amqp_history",
        "broker.amqp_intake",
        "broker.amqp_keeper",
        "broker.amqp_lease",
        "broker.amqp_outlet",
        "broker.connection",
        "broker.fastpath",
    ),
    "pydantic": ("client.validation",),
    "pydantic_core": ("client.validation", "kinds"),
    "pytest": ("testing",),
    "redis": ("redisclient",),
    "rich": ("cli.screen",),
    "sqlalchemy": ("sqlengine",),
}

#: Imported when their URL is used, because they may not be installed.
OPTIONAL = ("redis", "rich", "sqlalchemy")

#: Imported when used, because it takes a good part of a program's start and most never use it.
SLOW = (
    "asyncio",
    "concurrent.futures",
    "difflib",
    "hashlib",
    "http.client",
    "importlib.metadata",
    "logging.handlers",
    "pydantic",
    "taskq.control",
    "tomllib",
)

#: These decide and do nothing: time, chance and the world are passed in.
PURE = (
    "wire",
    "states",
    "rate",
    "retry",
    "schedules",
    "broker.topology",
    "client.router",
    "control.memory",
    "events.state",
    "top.picture",
    "top.rates",
    "top.stage",
    "beat.agenda",
    "beat.policy",
    "worker.clearing",
    "worker.autoscale",
    "worker.dispatcher",
    "worker.gate",
    "worker.ledger",
    "worker.lobby",
    "worker.outcome",
    "worker.plain",
    "worker.rates",
    "worker.renewal",
    "worker.roster",
    "worker.taps",
    "worker.window",
)
WORLD = {
    *("asyncio", "multiprocessing", "os", "random", "secrets", "selectors", "signal", "socket"),
    *("sqlite3", "subprocess", "tempfile", "threading", "time"),
    *("taskq.clock", "taskq.loop", "taskq.log"),
}
#: It is a parameter there, and this its default.
EXCUSED = {("retry", "random"), ("schedules.base", "taskq.clock")}

_FLOOR = {room: depth for depth, line in enumerate(FLOORS.split("\n")) for room in line.split()}
_GROUND = max(_FLOOR.values())


def test_every_module_has_a_room():
    homeless = [module.at(1) for module in modules().values() if _room(module.name) not in _FLOOR]

    assert_none(homeless)


def test_arrows_point_down():
    upward = [
        f"{module.at(line)}: {_room(module.name)} imports {_room(target)}"
        for module, target, line in _arrows()
        if not _may_import(_room(module.name), _room(target))
    ]

    assert_none(upward)


def test_no_import_leads_back_to_its_start():
    arrows = {(module.name, target) for module, target, _ in _arrows()}

    # A module without an arrow to it, or without one from it, is in no ring.
    while True:
        inner = {start for start, _ in arrows} & {end for _, end in arrows}
        kept = {(start, end) for start, end in arrows if start in inner and end in inner}
        if kept == arrows:
            break
        arrows = kept

    assert_none(f"{start} -> {end}" for start, end in sorted(arrows))


def test_alternatives_are_reached_by_their_contract():
    bypasses = [
        f"{module.at(line)}: {target}"
        for module, target, line in _arrows()
        if _room(target) in ALTERNATIVES
        and target != _room(target)
        and _room(module.name) != _room(target)
    ]

    assert_none(bypasses)


def test_a_third_party_is_named_in_its_own_room_only():
    strays = [
        f"{module.at(brought.line)}: {brought.module}"
        for module in modules().values()
        for brought in module.imports
        if (package := brought.module.partition(".")[0]) not in {*sys.stdlib_module_names, "taskq"}
        if not _inside(module.name, THIRD_PARTIES.get(package, ()))
    ]

    assert_none(strays)


def test_imports_stand_at_the_top():
    """Imported when used: an optional driver, the alternative that a URL names, what is slow."""
    lazy = [
        f"{module.at(brought.line)}: {brought.module}"
        for module in modules().values()
        for brought in module.imports
        if brought.lazy
        and not brought.module.startswith((*OPTIONAL, *SLOW))
        and not (module.name in ALTERNATIVES and brought.module.startswith("taskq."))
    ]

    assert_none(lazy)


def test_an_app_is_made_without_what_is_slow():
    line = (
        "from taskq import TaskQ; import sys; TaskQ('x', publish_timeout='5'); print(*sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", line], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert_none({*SLOW, *OPTIONAL} & {*ran.stdout.split()})


def test_what_decides_touches_nothing():
    touches = [
        f"{module.at(brought.line)}: {brought.module}"
        for module in modules().values()
        if _inside(module.name, PURE)
        for brought in module.imports
        if brought.module in WORLD and (module.name, brought.module) not in EXCUSED
    ]

    assert_none(touches)


def test_the_rules_see_hidden_imports():
    hidden = ast.parse(
        """
        if TYPE_CHECKING:
            from taskq.app import TaskQ
        class C:
            def m(self):
                from taskq import worker, TaskQ
        """.replace("\n        ", "\n")
    )

    seen = [(found.module, found.lazy) for found in imports_of(hidden, submodules=["worker"])]

    assert seen == [("taskq.app", False), ("taskq.worker", True), ("taskq", True)]
    assert not _may_import("client", "app")
    assert not _may_import("client", "broker")
    assert _may_import("app", "client")


def _arrows():
    """Each import of one module of taskq by another."""
    for module in modules().values():
        for brought in module.imports:
            if brought.module == "taskq" or brought.module.startswith("taskq."):
                yield module, brought.module.removeprefix("taskq").removeprefix("."), brought.line


def _room(name):
    """The room of a module; `taskq` for the package itself."""
    parts = name.split(".") if name else ["taskq"]
    beginnings = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((room for room in beginnings if room in _FLOOR), name)


def _may_import(importer, imported):
    down = _FLOOR.get(imported, 0) > _FLOOR.get(importer, 0)
    return down or importer == imported or _FLOOR[importer] == _GROUND


def _inside(name, rooms):
    return any(name == room or name.startswith(f"{room}.") for room in rooms)
