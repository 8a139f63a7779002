"""Reference pages say what the code says: nothing is missing, nothing is made up."""

import inspect
import json
import logging
import re
import string
from typing import Any

import click
import pytest

from taskq import hooks, settings, testing
from taskq.broker import topology
from taskq.broker.base import Queue
from taskq.cli.worker import worker
from taskq.log import EVENTS
from taskq.settings import DEFAULTS, PublishRetry
from taskq.wire.headers import PROTOCOL_HEADERS
from taskq.worker.outcome import Outcome, Policy, settle
from tests.docs.pages import ROOT, blocks, named_in_rows, page, rows

HOOKS = {name: hook for name, hook in vars(hooks).items() if isinstance(hook, hooks.Hook)}


def section(text: str, title: str) -> str:
    """The part of a page under the heading *title*."""
    return re.split(r"^## ", text.partition(f"## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def code(cell: str) -> list[str]:
    """The words of a cell that are set as code."""
    return re.findall(r"`([^`]+)`", cell)


def test_every_setting_stands_in_its_page_with_its_default() -> None:
    reference = page("settings").partition("## Other variables")[0]

    shown = {cells[0]: cells[1] for cells in rows(reference)}

    assert shown == {f"`{name}`": f"`{_default(value)}`" for name, value in DEFAULTS.items()}


def _default(value: Any) -> str:
    return repr(value._asdict() if isinstance(value, PublishRetry) else value)


def test_the_table_of_waits_is_that_of_the_settings() -> None:
    told = re.findall(r"^(\w+) +(none|[\d.]+)  \w", settings.__doc__ or "", re.MULTILINE)
    waits = rows(section(page("settings"), "How long things may take"))

    assert told == [(cells[0].strip("`"), cells[1]) for cells in waits]
    for name, seconds in told:
        default = DEFAULTS[name]
        assert seconds == ("none" if default is None else f"{default:g}")


def test_every_event_stands_in_its_page_with_level_and_fields() -> None:
    expected = [
        [f"`{name}`", logging.getLevelName(level).lower(), [*dict.fromkeys(_fields(sentence))]]
        for name, (level, sentence) in EVENTS.items()
    ]

    assert expected == [
        [event, level, code(fields)] for event, level, fields in rows(page("logging"))
    ]


def _fields(sentence: str) -> list[str]:
    return [field for _, field, _, _ in string.Formatter().parse(sentence) if field]


def test_every_hook_stands_in_its_page_with_its_fields() -> None:
    shown = {cells[0].strip("`"): code(cells[3]) for cells in rows(page("hooks"))}

    assert HOOKS.keys() == shown.keys()
    source = inspect.getsource(hooks)
    for name, fields in shown.items():
        head = re.search(rf"def {name}\((.*?)\) -> None", source, re.DOTALL)
        assert head is not None
        assert re.findall(r"(\w+):", head[1]) == fields


def test_every_option_of_the_worker_stands_in_its_page() -> None:
    options = [param.opts for param in worker.params if isinstance(param, click.Option)]

    assert options == [code(cells[0]) for cells in rows(page("worker")) if "`-" in cells[0]]


def test_everything_for_users_tests_stands_in_its_page() -> None:
    public = {
        name
        for name, value in vars(testing).items()
        if inspect.isfunction(value) and value.__module__ == testing.__name__
        if not name.startswith("_")
    }

    assert public == set(named_in_rows(page("testing"))) - {"backend_contract", "broker_contract"}


def test_the_guarantees_print_the_table_of_settlements() -> None:
    cases = {
        "": (Policy(), 1),
        ", no crashes left": (Policy(), 3),
        ", with `dead_letter=False`": (Policy(dead_letter=False), 1),
        ", without `acks_on_failure_or_timeout`": (Policy(acks_on_failure_or_timeout=False), 1),
        ", without `reject_on_worker_lost`": (Policy(reject_on_worker_lost=False), 1),
        ", without `acks_late`": (Policy(acks_late=False), 1),
    }
    expected = []
    for outcome in Outcome:
        usual = settle(outcome, Policy(), crashes=1, max_crashes=3)
        for words, (policy, crashes) in cases.items():
            settlement = settle(outcome, policy, crashes=crashes, max_crashes=3)
            if settlement is not usual or not words:
                expected.append([f"{outcome}{words}", str(settlement)])

    assert expected == rows(section(page("guarantees"), "What becomes of a message"))


def test_every_promise_about_a_death_names_a_test() -> None:
    for title in ("How a call ends", "When something dies"):
        for cells in rows(section(page("guarantees"), title)):
            assert "[test_" in cells[-1], cells


@pytest.mark.parametrize(
    ("number", "queue"),
    [
        (0, Queue("default")),
        (1, Queue("default.dead", kind="dead")),
        (2, Queue("default", max_priority=9)),
    ],
)
def test_the_protocol_declares_queues_as_taskq_does(number: int, queue: Queue) -> None:
    declared = [json.loads(b.text) for b in blocks(page("protocol")) if b.language == "json"]

    length = DEFAULTS["dead_letter_max_length"]

    assert topology.arguments(queue, length) == declared[number]


def test_the_protocol_lists_every_header() -> None:
    listed = named_in_rows(section(page("protocol"), "Headers"))

    assert {*PROTOCOL_HEADERS, "compression", "taskq-v", "taskq-crashes"} == set(listed)
    assert len(listed) == len(set(listed))


def test_every_file_that_internals_names_is_there() -> None:
    text = page("internals")
    named = re.findall(r"`((?:[\w]+/)*\w+\.py)`", text)
    stops = re.findall(r"\b((?:client|wire|broker|worker)/\w+)", text)

    missing = [
        name
        for name in [*named, *(f"{stop}.py" for stop in stops)]
        if not (ROOT / name).is_file() and not (ROOT / "taskq" / name).is_file()
    ]

    assert named
    assert [] == missing
