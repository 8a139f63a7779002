"""`taskq status`: which workers are there, and how they are."""

from collections.abc import Mapping
from typing import Any

import click

from taskq.cli.fleet import Fleet, NoAnswer, print_json, with_fleet
from taskq.cli.replies import mapping
from taskq.cli.text import print_table, roughly
from taskq.control.base import Reply

_COUNTS = ("children", "active", "done")


@click.command()
@with_fleet
def status(fleet: Fleet) -> None:
    """List the workers that answer, with what they do."""
    missing: NoAnswer | None = None
    stats: dict[str, Reply] = {}
    try:
        for node, reply in fleet.ask("stats"):
            stats[node] = reply
    except NoAnswer as error:  # told behind what others said
        missing = error
    if stats:
        _print(fleet, stats)
    if missing:
        raise missing


def _print(fleet: Fleet, stats: Mapping[str, Reply]) -> None:
    nodes = sorted(stats)
    active = fleet.gather("active", nodes)
    queues = fleet.gather("active_queues", nodes)
    records = [_record(node, stats[node], active.get(node), queues.get(node)) for node in nodes]
    if fleet.as_json:
        for record in records:
            print_json(**record)
        return
    headings = ("NODE", "CHILDREN", "ACTIVE", "DONE", "UP", "LOAD", "QUEUES")
    print_table(headings, [_cells(record) for record in records], narrow=(0, 6))
    click.echo(f"\n{len(nodes)} worker{'s' * (len(nodes) != 1)} on {fleet.app.broker.url}")


def _record(node: str, stats: Reply, active: Reply, queues: Reply) -> dict[str, Any]:
    """What is known of a worker, None for what it does not say."""
    told = mapping(stats)
    own, done = mapping(told.get("taskq")), told.get("total")
    return {
        "node": node,
        "pid": told.get("pid"),
        "children": mapping(told.get("pool")).get("max-concurrency"),
        "active": len(active) if isinstance(active, list) else None,
        "done": sum(done.values()) if isinstance(done, Mapping) else None,
        "uptime": told.get("uptime"),
        "load": own.get("load"),
        "draining": own.get("draining"),
        "paused": own.get("paused"),
        "queues": None if queues is None else [mapping(each).get("name") for each in queues],
    }


def _cells(record: Mapping[str, Any]) -> tuple[str, ...]:
    uptime, load = record["uptime"], record["load"]
    return (
        record["node"],
        *("-" if record[key] is None else f"{record[key]}" for key in _COUNTS),
        "-" if uptime is None else roughly(uptime),
        "-" if load is None else " ".join(map(str, load)),
        _queues(record),
    )


def _queues(record: Mapping[str, Any]) -> str:
    if record["draining"]:
        return "none: it drains"
    if record["queues"] is None:
        return "-"
    paused = record["paused"] or ()
    return ", ".join(
        f"{name} (paused)" if name in paused else f"{name}" for name in record["queues"]
    )
