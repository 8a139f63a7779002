"""Commands by the thousand, half of them malformed, as messages for the mailboxes of workers."""

import json
import random
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import pika

#: Where Celery and taskq have the mailboxes of workers.
REQUESTS, REPLIES = "celery.pidbox", "reply.celery.pidbox"


class Blow(NamedTuple):
    """One message; *ticket* is there if each worker owes a reply."""

    body: bytes
    properties: pika.BasicProperties
    ticket: str | None = None


def command(
    method: object, arguments: object, reply_key: str, *, answered: bool = True, **more: Any
) -> Blow:
    """A command as Celery writes it, whatever *method* and *arguments* are."""
    ticket = secrets.token_hex(8)
    body = {
        "method": method,
        "arguments": arguments,
        "destination": None,
        "pattern": None,
        "matcher": None,
        "ticket": ticket,
        "reply_to": {"exchange": REPLIES, "routing_key": reply_key},
        **more,
    }
    return Blow(json.dumps(body).encode(), properties(), ticket if answered else None)


def properties(**changes: Any) -> pika.BasicProperties:
    """Those that Celery gives a command."""
    usual = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": 2,
        "priority": 0,
        "headers": {"clock": 1, "expires": 0},
    }
    return pika.BasicProperties(**{**usual, **changes})


def sound(chance: random.Random, reply_key: str) -> Blow:
    """A command that may be given, and takes no task away."""
    task_id = secrets.token_hex(8)
    method, arguments = chance.choice(
        [
            *((name, {}) for name in _QUESTIONS),
            ("active", {"safe": True}),
            ("query_task", {"ids": [task_id]}),
            ("conf", {"with_defaults": True}),
            ("hello", {"from_node": "somebody@else", "revoked": [task_id]}),
            ("revoke", {"task_id": [task_id], "terminate": True, "signal": "SIGKILL"}),
            ("terminate", {"task_id": task_id, "signal": "SIGTERM"}),
            ("revoke_by_stamped_headers", {"headers": {"header": task_id}}),
            ("rate_limit", {"task_name": "tasks.fail", "rate_limit": "100/s"}),
            ("time_limit", {"task_name": "tasks.fail", "hard": 60, "soft": 30}),
            ("add_consumer", {"queue": "storm"}),
            ("cancel_consumer", {"queue": "storm"}),
            ("enable_events", {}),
            ("disable_events", {}),
            ("pause", {"queue": "storm"}),
            ("resume", {"queue": "storm"}),
        ]
    )
    return command(method, arguments, reply_key)


_QUESTIONS = (
    *("ping", "clock", "report", "conf", "stats", "registered", "active", "reserved", "scheduled"),
    *("revoked", "active_queues", "dump_active", "dump_tasks", "dump_conf"),
)

#: What stands where something else is wanted.
_ODD: list[Any] = [
    *(None, True, -1, 0, 1.5, 10**30, "", "x" * 5000, "\x00", "\ud800", "nonsense"),
    *([], {}, [[]], [None], {"a": {"b": None}}, [1, 2], "amq.reserved", float("nan")),
]

#: A command and the arguments that it takes.
_TARGETS = (
    ("revoke", ("task_id", "terminate", "signal")),
    ("terminate", ("task_id", "signal")),
    ("revoke_by_stamped_headers", ("headers", "terminate", "signal")),
    ("rate_limit", ("task_name", "rate_limit")),
    ("time_limit", ("task_name", "hard", "soft")),
    ("query_task", ("ids",)),
    ("registered", ("taskinfoitems", "builtins")),
    ("active", ("safe",)),
    ("hello", ("from_node", "revoked")),
    ("autoscale", ("max", "min")),
    ("objgraph", ("num", "max_depth", "type")),
    ("memdump", ("samples",)),
)


def malformed(chance: random.Random, reply_key: str) -> Blow:
    """A command that cannot be read or obeyed."""
    return chance.choice(_MALFORMED)(chance, reply_key)


def _bytes(chance: random.Random, _: str) -> Blow:
    body = chance.choice(
        [b"", b"\xff\xfe\x00", b"{", b"null", b"[]", b'"x"', b"7", b"{}", b"[" * 100_000]
    )
    return Blow(body, properties())


def _labels(chance: random.Random, reply_key: str) -> Blow:
    whole = command("ping", {}, reply_key, answered=False)
    changes: dict[str, Any] = chance.choice(
        [
            {"content_type": "application/x-python-serialize"},
            {"content_type": "application/x-yaml"},
            {"content_type": "application/x-msgpack"},
            {"content_type": None},
            {"content_type": "x" * 255},
            {"content_encoding": "no-such-charset"},
            {"content_encoding": "binary"},
            {"headers": None},
            {"headers": {"clock": -1, "expires": "never"}},
            {"headers": {"clock": 2**62, "expires": -5}},
            {"headers": {"clock": "x", "expires": [1]}},
            {"headers": {"compression": "application/x-gzip"}},
            {"headers": {"compression": "no-such"}},
        ]
    )
    return Blow(whole.body, properties(**changes))


def _unknown(chance: random.Random, reply_key: str) -> Blow:
    name = chance.choice(["nonsense", "__init__", "_run", "run", "Ping", "ping ", "shut down", "é"])
    return command(name, chance.choice([{}, {"x": 1}]), reply_key)


def _method(chance: random.Random, reply_key: str) -> Blow:
    odd = chance.choice([each for each in _ODD if each != "nonsense"])
    return command(odd, {}, reply_key, answered=False)


def _arguments(chance: random.Random, reply_key: str) -> Blow:
    odd = [each for each in _ODD if each and not isinstance(each, dict)]
    return command("ping", chance.choice(odd), reply_key, answered=False)


def _values(chance: random.Random, reply_key: str) -> Blow:
    method, names = chance.choice(_TARGETS)
    given = {name: chance.choice(_ODD) for name in names if chance.random() < 0.8}
    return command(method, given, reply_key)


def _children(chance: random.Random, reply_key: str) -> Blow:
    count = chance.choice([-1, 0, 10**9, 10**30, "many", [], 1.5, True, float("inf")])
    return command(chance.choice(["pool_grow", "pool_shrink"]), {"n": count}, reply_key)


def _queues(chance: random.Random, reply_key: str) -> Blow:
    queue = chance.choice([5, "", "x" * 300, "\x00", [], {}, None, "\ud800"])
    verb = chance.choice(["add_consumer", "cancel_consumer", "pause", "resume"])
    return command(verb, {"queue": queue}, reply_key)


def _destination(chance: random.Random, reply_key: str) -> Blow:
    """Not for these workers, or for nobody that can be named."""
    more: dict[str, Any] = chance.choice(
        [
            {"destination": ["nobody@here"]},
            {"destination": ["x" * 100_000]},
            {"destination": "w1"},
            {"destination": 7},
            {"destination": [[]]},
            {"destination": [7, None, {}]},
            {"pattern": "(((", "matcher": "pcre"},
            {"pattern": "(a+)+$", "matcher": "pcre"},
            {"pattern": "(.*)*(.*)*(.*)*!", "matcher": "pcre"},
            {"pattern": "[" * 10_000, "matcher": "glob"},
            {"pattern": "w[", "matcher": "glob"},
            {"pattern": 7, "matcher": "glob"},
            {"pattern": "nobody*", "matcher": "glob"},
        ]
    )
    return command("shutdown", {}, reply_key, answered=False, **more)


def _address(chance: random.Random, reply_key: str) -> Blow:
    address = chance.choice(
        [
            *("somewhere", 7, [], {}, {"exchange": REPLIES}, {"routing_key": reply_key}),
            {"exchange": "no-such-exchange", "routing_key": "x"},
            {"exchange": "amq.direct", "routing_key": "x" * 300},
            {"exchange": None, "routing_key": None},
            {"exchange": [], "routing_key": {}},
            {"exchange": REPLIES, "routing_key": "gone"},
        ]
    )
    ticket = chance.choice(["ticket", 7, None, [], "x" * 300])
    return command("ping", {}, reply_key, answered=False, reply_to=address, ticket=ticket)


_MALFORMED: list[Callable[[random.Random, str], Blow]] = [
    *(_bytes, _labels, _unknown, _method, _arguments, _values, _children, _queues),
    *(_destination, _address),
]
