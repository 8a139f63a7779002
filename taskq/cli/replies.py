"""How workers' replies look for people: lines for a terminal, made of what came as JSON.

Replies may come from Celery's workers or from newer ones, so that nothing in them is relied upon.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from taskq import clock
from taskq.cli.text import clean, one_line, roughly, table
from taskq.control.base import Reply


def error_in(reply: Reply) -> str | None:
    """What is wrong, if *reply* says that something is."""
    if isinstance(reply, Mapping) and "error" in reply and len(reply) == 1:
        return one_line(str(reply["error"]))
    return None


def lines_of(command: str, reply: Reply, room: int) -> list[str]:
    """*reply* to *command* in lines, at most *room* columns wide if it is a table."""
    if isinstance(reply, Mapping) and "ok" in reply and len(reply) == 1:
        reply = reply["ok"]
    make = _TABLES.get(command)
    found = make(reply) if make and reply else None
    if found is None:
        return list(_plain(reply))
    headings, rows, narrow = found
    return table(headings, rows, narrow, room)


#: Headings, rows, and which columns are cut first.
_Table = tuple[Sequence[str], Sequence[Sequence[str]], Sequence[int]]


def _tasks(reply: Reply) -> _Table | None:
    """Of `active` and `reserved`."""
    infos = _mappings(reply)
    if infos is None:
        return None
    rows = [(*_call(info), _text(info.get("worker_pid")), _since(info)) for info in infos]
    return ("ID", "TASK", "ARGS", "PID", "FOR"), rows, (1, 2)


def _scheduled(reply: Reply) -> _Table | None:
    lines = _mappings(reply)
    if lines is None:
        return None
    rows = [(*_call(mapping(line.get("request"))), _text(line.get("eta"))) for line in lines]
    return ("ID", "TASK", "ARGS", "ETA"), rows, (1, 2)


def _found(reply: Reply) -> _Table | None:
    """Of `query_task`: `{id: [state, info]}`."""
    if not isinstance(reply, Mapping):
        return None
    rows = []
    for task_id, found in reply.items():
        state, info = found if isinstance(found, list | tuple) and len(found) == 2 else (found, {})
        name, args = _call(mapping(info))[1:]
        rows.append((str(task_id), _text(state), name, args))
    return ("ID", "STATE", "TASK", "ARGS"), rows, (2, 3)


def _queues(reply: Reply) -> _Table | None:
    queues = _mappings(reply)
    if queues is None:
        return None
    rows = []
    for queue in queues:
        exchange = mapping(queue.get("exchange"))
        row = (queue.get("name"), exchange.get("name"), exchange.get("type"))
        rows.append(tuple(map(_text, (*row, queue.get("routing_key")))))
    return ("QUEUE", "EXCHANGE", "TYPE", "ROUTING KEY"), rows, (0, 1, 3)


_TABLES: dict[str, Callable[[Reply], _Table | None]] = {
    "active": _tasks,
    "reserved": _tasks,
    "scheduled": _scheduled,
    "query_task": _found,
    "active_queues": _queues,
}


def _mappings(reply: Reply) -> list[Mapping[str, Any]] | None:
    if isinstance(reply, list) and all(isinstance(each, Mapping) for each in reply):
        return reply
    return None


def mapping(value: object) -> Mapping[str, Any]:
    """*value*, or nothing where it is none."""
    return value if isinstance(value, Mapping) else {}


def _call(info: Mapping[str, Any]) -> tuple[str, str, str]:
    """Id, name and arguments of a request."""
    given = [info.get(name) for name in ("args", "kwargs")]
    args = " ".join(_text(each) for each in given if each not in (None, [], {}, "()", "[]", "{}"))
    return _text(info.get("id")), _text(info.get("name")), args or "-"


def _since(info: Mapping[str, Any]) -> str:
    started = info.get("time_start")
    if type(started) not in (int, float) or not started:
        return "-"
    return roughly(clock.wall() - started)


def _text(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


def _plain(value: object) -> Iterator[str]:
    """Mappings and lists as indented lines."""
    if isinstance(value, Mapping) and value:
        wide = max(len(str(key)) for key in value)
        for key, each in value.items():
            name, lines = clean(str(key)), list(_plain(each))
            if len(lines) == 1 and not (isinstance(each, Mapping) and each):
                yield f"{name:<{wide}}  {lines[0]}"
            else:
                yield name
                yield from (f"    {line}" for line in lines)
    elif isinstance(value, list) and value:
        if all(isinstance(each, int | float) for each in value):
            yield ", ".join(map(str, value))
            return
        for each in value:
            mark = "- " if isinstance(each, Mapping) else ""
            for number, line in enumerate(_plain(each)):
                yield f"{' ' * len(mark) if number else mark}{line}"
    else:
        text = "-" if value in (None, [], {}) else str(value)
        yield from map(clean, text.splitlines() or [""])
