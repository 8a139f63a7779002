"""Dead letters: which are meant, how far one can look, and that no message breaks the looking."""

import base64
import json
import math
import struct
import uuid
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq import ConfigurationError, TaskQ
from taskq.broker.base import Delivery, Queue
from taskq.deadletters import ALL, DeadLetters, Letter, Place, Wanted
from taskq.wire.dead import dead_headers
from taskq.wire.message import Message, Properties, encode_properties
from tests.support.letters import a_letter, a_task, bury

LETTERS = [
    a_letter(a_task("11111111-a", "shop.orders.send"), reason="no stock", age=10),
    a_letter(a_task("22222222-b", "shop.orders.cancel"), exception="KeyError", age=3600),
    a_letter(a_task("22222222-c", "mail.send"), exception="SmtpTimeout", age=100_000),
    Message.of(Properties(correlation_id="foreign"), b"hello"),
]


@pytest.fixture
def app():
    with TaskQ(broker=f"memory://{uuid.uuid4()}", task_default_queue="q1") as app:
        yield app


def ids(letters):
    with letters:
        return [letter.id for letter in letters]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (ALL, ["11111111-a", "22222222-b", "22222222-c", "foreign"]),
        (Wanted(ids=("22222222-b", "foreign")), ["22222222-b", "foreign"]),
        (Wanted(ids=("22222222",)), ["22222222-b", "22222222-c"]),
        (Wanted(ids=("2222222",)), []),
        (Wanted(task="shop.*"), ["11111111-a", "22222222-b"]),
        (Wanted(task="mail.send"), ["22222222-c"]),
        (Wanted(task="*"), ["11111111-a", "22222222-b", "22222222-c", "foreign"]),
        (Wanted(exception="*Timeout"), ["22222222-c"]),
        (Wanted(exception="keyerror"), []),
        (Wanted(reason="NO STOCK"), ["11111111-a"]),
        (Wanted(reason="nothing tells"), ["foreign"]),
        (Wanted(older=1800), ["22222222-b", "22222222-c"]),
        (Wanted(newer=1800), ["11111111-a"]),
        (Wanted(older=1800, newer=90_000), ["22222222-b"]),
        (Wanted(older=1800, task="mail.*"), ["22222222-c"]),
    ],
)
def test_letters_are_found_by_all_that_is_asked_for(app, wanted, found):
    bury(app.broker, LETTERS)

    assert ids(DeadLetters(app, ["q1"], wanted)) == found
    assert app.broker.count("q1.dead") == len(LETTERS)


def test_a_clock_that_goes_wrong_hides_no_fresh_letter(app):
    bury(app.broker, [a_letter(a_task("from-the-future"), age=-60)])

    assert ids(DeadLetters(app, ["q1"], Wanted(newer=5))) == ["from-the-future"]
    assert ids(DeadLetters(app, ["q1"], Wanted(older=5))) == []


def test_without_names_all_queues_of_the_app_are_looked_into():
    url = f"memory://{uuid.uuid4()}"
    with TaskQ(broker=url, task_queues=["a", "b"], queue_prefix="test.") as app:
        bury(app.broker, [a_letter(a_task("in-a"))], "test.a")
        bury(app.broker, [a_letter(a_task("in-b"))], "test.b")
        bury(app.broker, [a_letter(a_task("elsewhere"))], "b")

        assert ids(DeadLetters(app)) == ["in-a", "in-b"]
        assert ids(DeadLetters(app, ["b"])) == ["in-b"]
        assert ids(DeadLetters(app, ["b.dead", "a"])) == ["in-b", "in-a"]


def test_a_queue_that_the_app_may_not_make_is_an_error():
    with (
        TaskQ(broker="memory://", task_create_missing_queues=False) as app,
        pytest.raises(ConfigurationError, match="misspelt"),
    ):
        DeadLetters(app, ["misspelt"])


@pytest.fixture
def twenty_five(app):
    bury(app.broker, [a_letter(a_task(f"task-{n:04}")) for n in range(25)])
    return [f"task-{n:04}" for n in range(25)]


def test_what_is_behind_a_full_window_is_told(app, twenty_five):
    letters = DeadLetters(app, ["q1"], depth=10)

    assert ids(letters) == twenty_five[:10]
    assert (letters.seen, letters.unseen, letters.out_of_reach) == (10, 15, 15)


def test_a_limit_ends_the_looking(app, twenty_five):
    letters = DeadLetters(app, ["q1"], Wanted(task="*"), limit=3)

    assert ids(letters) == twenty_five[:3]
    assert (letters.seen, letters.unseen, letters.out_of_reach) == (3, 22, 0)


def test_more_than_the_window_can_be_replayed_and_discarded(app, twenty_five):
    seen = []
    with DeadLetters(app, ["q1"], depth=10, limit=20) as letters:
        letters.replay(None, seen.append)
    assert letters.done == 20
    assert seen == list(range(1, 21))
    assert app.broker.count("q1") == 20
    assert ids(DeadLetters(app, ["q1"])) == twenty_five[20:]

    with DeadLetters(app, ["q1"], depth=1) as letters:
        letters.discard(seen.append)

    assert letters.done == 5
    assert app.broker.count("q1.dead") == 0


def test_letters_that_are_kept_fill_the_window(app, twenty_five):
    with DeadLetters(app, ["q1"], Wanted(ids=("task-0002", "task-0024")), depth=10) as letters:
        letters.discard(lambda _seen: None)

    assert (letters.done, letters.out_of_reach) == (1, 14)
    assert ids(DeadLetters(app, ["q1"])) == [*twenty_five[:2], *twenty_five[3:]]


def test_letters_are_counted_without_looking_where_all_are_meant(app, twenty_five):
    with DeadLetters(app, ["q1"], limit=20) as letters:
        assert letters.count() == 20
        assert letters.seen == 0
    with DeadLetters(app, ["q1"], Wanted(ids=("task-0002",))) as letters:
        assert letters.count() == 1


def test_what_dies_again_during_a_replay_is_not_replayed_again(app, twenty_five):
    def die_again(_seen):
        bury(app.broker, [a_letter(a_task("again"))])

    with DeadLetters(app, ["q1"], depth=10) as letters:
        letters.replay(None, die_again)

    assert letters.done == 25
    assert ids(DeadLetters(app, ["q1"])) == ["again"] * 25


def test_no_queue_is_made_by_looking(app):
    assert ids(DeadLetters(app, ["q1"])) == []
    assert "q1.dead" not in app.broker._shelf.ready


# -- what anybody may have put there -------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | finite
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=20)
    | st.just(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    | st.decimals(-100, 100, places=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["queue", "reason", "time", "k"]), inner, max_size=3)
    ),
    max_leaves=5,
)
OURS = dead_headers(
    queue="", reason="", exception_type="", exception="", traceback="", attempts=0, worker="",
    died_at=0.0,
)  # fmt: skip
NAMES = [*OURS, "taskq-dead-properties", "x-death", "task", "id", "retries", "taskq-crashes", "z"]
PLACES = [Place("q1.dead", Queue("q1")), Place("taskq.undeliverable", None)]


@given(
    st.dictionaries(st.sampled_from(NAMES), anything)
    | st.fixed_dictionaries(
        {"taskq-dead-reason": st.text(st.characters(exclude_categories=["Cs"]), max_size=20)},
        optional={"taskq-dead-at": finite, "taskq-dead-attempts": st.integers(-9, 2**63 - 1)},
    ),
    st.binary(max_size=50),
    st.sampled_from(PLACES),
)
def test_a_letter_can_be_told_whatever_its_headers_are(headers, body, place):
    message = Message(encode_properties(Properties(headers=headers)), body)

    check_telling(place, message)


@given(st.binary(max_size=80), st.binary(max_size=50))
def test_a_letter_can_be_told_whatever_its_bytes_are(raw, body):
    check_telling(PLACES[0], Message(raw, body))


def check_telling(place, message):
    letter = Letter.of(place, Delivery(1, None, place.name, message, "", "key"))

    told = json.loads(json.dumps(letter.record(), allow_nan=False))

    assert base64.b64decode(told["raw"]) == message.raw
    assert base64.b64decode(told["body"]) == message.body
    assert told["id"] == letter.id
    assert told["reason"] is not None
    for wanted in (Wanted(task="*"), Wanted(reason="x"), Wanted(newer=1), Wanted(exception="E")):
        assert wanted.fits(letter, 1e9) in (True, False)


def test_what_json_lacks_is_told_as_text():
    headers = {
        "bytes": b"\xff",
        "date": datetime(2026, 1, 2, tzinfo=UTC),
        "price": Decimal("1.10"),
        "nan": 0.125,
        "nested": [{"n": 1.5}, None, True],
    }
    # We send no NaN, and RabbitMQ passes none on, but the other brokers do.
    raw = encode_properties(Properties(headers=headers))
    raw = raw.replace(struct.pack(">d", 0.125), struct.pack(">d", math.nan))

    letter = Letter.of(PLACES[0], Delivery(1, None, "q1.dead", Message(raw, b"")))

    assert letter.record()["headers"] == {
        "bytes": {"base64": "/w=="},
        "date": "2026-01-02T00:00:00+00:00",
        "price": "1.10",
        "nan": "nan",
        "nested": [{"n": 1.5}, None, True],
    }


def test_a_message_without_an_id_has_a_name_that_looking_does_not_change(app):
    bury(app.broker, [Message.of(Properties(headers={"a": 1, "x-delivery-count": 1}), b"x")])
    bury(app.broker, [Message.of(Properties(headers={"a": 1, "x-delivery-count": 2}), b"x")])
    bury(app.broker, [Message.of(Properties(headers={"a": 1}), b"y")])

    first, again, other = ids(DeadLetters(app, ["q1"]))

    assert first.startswith("no-id-")
    assert first == again != other
    assert ids(DeadLetters(app, ["q1"], Wanted(ids=(other,)))) == [other]
