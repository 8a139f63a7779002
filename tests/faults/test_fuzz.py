"""Messages made of anything: the worker lives, and each of them is accounted for."""

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from taskq.broker.base import Queue, Route
from taskq.errors import PublishError
from taskq.loop import Loop
from taskq.wire.message import Message, Properties
from tests.faults.arena import COUNT, PATIENCE, Account, Tally
from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker
from tests.support.site import Site
from tests.support.wait import wait_until

GOOD = Properties(content_type="application/json", content_encoding="utf-8", delivery_mode=2)
HEADERS = {
    "lang": "py", "task": "tasks.mark", "id": "an-id", "retries": 0, "argsrepr": "()",
    "eta": None, "expires": None, "timelimit": [None, None], "ignore_result": True,
    "root_id": "an-id", "parent_id": None, "group": None, "shadow": None, "stack": 1,
    "taskq-crashes": 0, "x-delivery-count": 0, "taskq-route": ["", "q1"], "compression": None,
}  # fmt: skip

#: Names that mean nothing to RabbitMQ: `CC`, for one, would send copies elsewhere.
names = st.text("abcdefghijklmnopqrstuvwxyz-\N{SNOWMAN}", max_size=10)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.datetimes()
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=10,
)
short = st.none() | st.text(max_size=30)


@st.composite
def properties(draw: st.DrawFn) -> Properties:
    """Those of a good message, some of them wrong."""
    wrong = draw(st.dictionaries(st.sampled_from(sorted(HEADERS)) | names, anything, max_size=3))
    for name in ("eta", "expires"):
        if isinstance(wrong.get(name), datetime):
            del wrong[name]  # that is right: the task would wait for ever, or have expired long ago
    missing = draw(st.sets(st.sampled_from(sorted(HEADERS)), max_size=1))
    headers = {key: value for key, value in (HEADERS | wrong).items() if key not in missing}
    changes: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "content_type": short | st.sampled_from(["application/x-msgpack", "pickle"]),
                "content_encoding": short,
                "priority": st.integers(0, 255),
                "correlation_id": short,
                "reply_to": short,
                "message_id": short,
                "timestamp": st.integers(0, 2**64 - 1),
                "type": short,
            },
        )
    )
    return replace(GOOD, headers=headers, **changes)


def bodies(name: str) -> st.SearchStrategy[bytes]:
    """A good body, or JSON of a wrong form, or any bytes; *name* is in each."""
    good = json.dumps([[name], {}, {}]).encode()
    return (
        st.just(good)
        | st.builds(lambda value: json.dumps([[name], {}, value]).encode(), jsons)
        | st.builds(lambda value: json.dumps([value, name]).encode(), jsons)
        | st.builds(lambda value: value + name.encode(), st.binary(max_size=200))
    )


def fuzzed(count: int) -> dict[bytes, tuple[str, Message]]:
    """At least *count* messages and their names, by their bodies."""
    made: dict[bytes, tuple[str, Message]] = {}

    def make(data: st.DataObject) -> None:
        name = f"message-{len(made)}"
        try:
            message = Message.of(data.draw(properties()), data.draw(bodies(name)))
        except ValueError:
            return  # AMQP cannot hold it
        made[message.body] = (name, message)

    while missing := max(0, count - len(made)):
        rules = settings(
            max_examples=max(100, missing),
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        rules(given(st.data())(make))()
    return made


def send(site: Site, messages: list[Message]) -> list[PublishError | None]:
    answers: list[PublishError | None] = []
    with site.broker() as broker:
        loop = Loop()
        outlet = broker.outlet(loop)
        for message in messages:
            outlet.publish(message, Route("", "q1", (Queue("q1"),)), answers.append, timeout=60)
        wait_until(lambda: loop.turn(0.1) or len(answers) == len(messages), "all to be answered")
        outlet.close()
        loop.close()
    return answers


def test_every_message_of_any_bytes_runs_or_is_dead_lettered_and_the_worker_lives(
    site: Site, worker_process: StartWorker, ledger: Ledger, tally: Tally
) -> None:
    made = fuzzed(COUNT)
    worker = worker_process(APP, "-Q", "q1", "-c", "2", "-l", "critical", env=site.env)
    worker.wait_for("worker-ready")

    assert {None} == set(send(site, [message for _, message in made.values()]))
    wait_until(
        lambda: site.count("q1.dead") + len(set(ledger.ids())) >= len(made),
        "each to run or to be dead-lettered",
        timeout=PATIENCE,
    )

    assert 0 == worker.stop()
    dead = [made[letter.body][0] for letter in site.take("q1.dead", site.count("q1.dead"))]
    assert_conserved([name for name, _ in made.values()], ledger, dead=dead, once=True)
    tally(Account(sent=len(made), done=len(ledger.ids()), dead=len(dead)))
