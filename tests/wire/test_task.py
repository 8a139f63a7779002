"""Task messages: what Celery sends and reads, and every broken form of it."""

import json
import struct
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.errors import ConfigurationError, ContentDisallowed, EncodeError, MessageMalformed
from taskq.wire import table, task
from taskq.wire.headers import BROKER_HEADERS, PROTOCOL_HEADERS, TaskHeaders, read_headers
from taskq.wire.message import Message, Properties
from taskq.wire.task import Body

ACCEPT = ("json", "msgpack")
LIMIT = 1_000_000

#: What Celery 5.7 sends for `add.delay(1, 2)`, as it was seen on the wire.
CELERY_HEADERS = {
    "lang": "py",
    "task": "t.add",
    "id": "ID",
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "root_id": "ID",
    "parent_id": None,
    "argsrepr": "(1, 2)",
    "kwargsrepr": "{}",
    "origin": "gen15555@vm",
    "ignore_result": False,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}
CELERY_BODY = [[1, 2], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]

ADD = TaskHeaders(task="t.add", id="ID", origin="gen15555@vm", ignore_result=False)


def celery(body=CELERY_BODY, *, without=(), properties=None, **headers):
    """Celery's message with some headers, properties and the body changed."""
    fields = {k: v for k, v in (CELERY_HEADERS | headers).items() if k not in without}
    labels = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": 2,
        "priority": 0,
        "correlation_id": "ID",
        "reply_to": "OID",
    } | (properties or {})
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = Message.of(Properties(headers=fields, **labels), raw)
    return Message(sent.raw, sent.body)


def with_limit(seconds):
    """Celery's message with a time limit that our own encoder would refuse."""
    sent = celery(timelimit=[None, 1.5])
    raw = sent.raw.replace(struct.pack(">d", 1.5), struct.pack(">d", seconds))
    assert raw != sent.raw
    return Message(raw, sent.body)


# -- what is sent --------------------------------------------------------------------------------


def test_the_headers_of_protocol_2_are_these_nineteen():
    assert tuple(CELERY_HEADERS) == PROTOCOL_HEADERS
    assert len(PROTOCOL_HEADERS) == 19


def test_a_message_is_what_celery_sends():
    message = task.encode(ADD, (1, 2), {}, reply_to="OID")

    assert dict(message.headers) == CELERY_HEADERS | {"taskq-v": 1}
    assert message.properties == Properties(
        headers=message.headers,
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=2,
        priority=0,
        correlation_id="ID",
        reply_to="OID",
    )
    assert json.loads(message.body) == CELERY_BODY


def test_absent_headers_travel_as_void():
    raw = task.encode(ADD, (), {}).raw

    for name in ("shadow", "eta", "expires", "group", "group_index", "parent_id"):
        assert bytes((len(name),)) + name.encode() + b"V" in raw


def test_a_message_with_every_option_is_what_celery_sends():
    moment = datetime(2026, 11, 22, 3, 9, 13, 642135, UTC)
    headers = TaskHeaders(
        task="t.add",
        id="ID",
        retries=2,
        eta=moment.timestamp(),
        expires=moment.timestamp() + 50,
        time_limit=30,
        soft_time_limit=0.5,
        root_id="R",
        parent_id="P",
        group="G",
        group_index=3,
        shadow="adding",
        argsrepr="<args>",
        kwargsrepr="<kwargs>",
        extra={"x-request-id": "7"},
        crashes=1,
    )

    message = task.encode(headers, (), {}, priority=5)

    assert message.properties.priority == 5
    assert message.properties.expiration is None
    assert dict(message.headers) == CELERY_HEADERS | {
        "retries": 2,
        "eta": "2026-11-22T03:09:13.642135+00:00",
        "expires": "2026-11-22T03:10:03.642135+00:00",
        "timelimit": [30, 0.5],
        "root_id": "R",
        "parent_id": "P",
        "group": "G",
        "group_index": 3,
        "shadow": "adding",
        "argsrepr": "<args>",
        "kwargsrepr": "<kwargs>",
        "origin": None,
        "ignore_result": None,
        "taskq-v": 1,
        "taskq-crashes": 1,
        "x-request-id": "7",
    }


def test_msgpack_bodies_are_labelled_so():
    message = task.encode(ADD, (1, 2), {}, serializer="msgpack")

    assert message.properties.content_type == "application/x-msgpack"
    assert message.properties.content_encoding == "binary"
    assert msgpack.unpackb(message.body) == CELERY_BODY


def test_gzip_is_a_zlib_stream_under_celerys_name():
    message = task.encode(ADD, (1, 2), {}, compression="gzip")

    assert message.headers["compression"] == "application/x-gzip"
    assert message.properties.content_type == "application/json"
    assert json.loads(zlib.decompress(message.body)) == CELERY_BODY


@pytest.mark.parametrize(
    "name",
    [
        *PROTOCOL_HEADERS,
        *sorted(BROKER_HEADERS),
        "compression",
        "taskq-v",
        "taskq-crashes",
        "taskq-anything",
    ],
)
def test_a_user_header_never_takes_a_protocol_name(name):
    headers = TaskHeaders(task="t.add", id="ID", extra={"x-mine": 1, name: "mine"})

    with pytest.raises(ValueError, match=repr(name)):
        task.encode(headers, (), {})


def test_arguments_that_would_not_come_back_are_refused_by_their_path():
    with pytest.raises(EncodeError, match=r"args\[1\]\['when'\]"):
        task.encode(ADD, (1, {"when": object()}), {})
    with pytest.raises(EncodeError, match=r"kwargs\['when'\]"):
        task.encode(ADD, (), {"when": object()})


@pytest.mark.parametrize("field", ["task", "id"])
@pytest.mark.parametrize("value", ["", "a\nb", "a\0", "x" * 256, "é" * 128, "\ud800", 5, None])
def test_a_name_or_id_that_could_not_be_read_back_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        task.encode(TaskHeaders(**{"task": "t.add", "id": "ID", field: value}), (), {})
    with pytest.raises(MessageMalformed, match=f"`{field}`"):
        read_headers(Message(b"", b"", Properties(headers=CELERY_HEADERS | {field: value})))


@pytest.mark.parametrize("field", ["eta", "expires"])
@pytest.mark.parametrize("value", [1e18, float("inf"), float("nan"), -1e18])
def test_a_moment_outside_the_calendar_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        task.encode(TaskHeaders(task="t.add", id="ID", **{field: value}), (), {})


def test_too_many_headers_are_refused():
    with pytest.raises(ValueError, match="limit"):
        task.encode(TaskHeaders(task="t.add", id="ID", extra={"x": "y" * 70_000}), (), {})


@pytest.mark.parametrize("priority", [-1, 256])
def test_a_priority_that_is_no_octet_is_refused(priority):
    with pytest.raises(ValueError, match="priority"):
        task.encode(ADD, (), {}, priority=priority)


def test_unknown_serializers_and_compressions_are_refused():
    with pytest.raises(ConfigurationError, match="pickle"):
        task.encode(ADD, (), {}, serializer="pickle")
    with pytest.raises(ConfigurationError, match="zstd"):
        task.encode(ADD, (), {}, compression="zstd")


# -- argsrepr ------------------------------------------------------------------------------------


class Broken(StrEnum):
    VALUE = "v"

    def __repr__(self):
        raise RuntimeError("no repr")


class Odd(StrEnum):
    VALUE = "v"

    def __repr__(self):
        return "\ud800" * 5000


@pytest.mark.parametrize(
    "args",
    [
        ("x" * 100_000,),
        (b"\xff" * 100_000,),
        tuple(range(100_000)),
        ([[[[[[0]]]]]] * 1000,),
        ({str(n): n for n in range(10_000)},),
        ({"a": b"\xff" * 100_000, "b": ["é" * 5000]},),
        (Broken.VALUE,),
        (Broken.VALUE, "x" * 100_000),
        (Odd.VALUE,),
        ("é" * 2000,),
        (set(range(10_000)),),
    ],
    ids=lambda args: str(type(args[0]).__name__),
)
def test_reprs_are_bounded_and_never_fail(args):
    message = task.encode(ADD, args, {"k": args[0]})

    for name in ("argsrepr", "kwargsrepr"):
        assert 0 < len(message.headers[name]) <= task.MAX_REPR
    assert table.decode(table.encode(message.headers))[0] == message.headers


def test_reprs_of_small_arguments_are_plain():
    message = task.encode(ADD, [1, "two", [3.0]], {"when": datetime(2026, 1, 2, tzinfo=UTC)})

    assert message.headers["argsrepr"] == "(1, 'two', [3.0])"
    assert message.headers["kwargsrepr"].startswith("{'when': datetime.datetime(2026, 1, 2")


# -- what is read --------------------------------------------------------------------------------


def test_celerys_message_is_read():
    message = celery()

    assert read_headers(message) == TaskHeaders(
        task="t.add",
        id="ID",
        root_id="ID",
        argsrepr="(1, 2)",
        kwargsrepr="{}",
        origin="gen15555@vm",
        ignore_result=False,
    )
    assert task.open_body(message, ACCEPT, LIMIT) == Body((1, 2), {}, CELERY_BODY[2])


def test_celerys_message_with_options_is_read():
    message = celery(
        properties={"expiration": "60000", "priority": 5},
        eta="2026-11-22T03:09:13.642135+00:00",
        expires="2026-11-22T03:10:03",
        timelimit=[30, 20],
        group="G",
        group_index=0,
        celery_beat_task=True,
    )

    headers = read_headers(message)

    assert headers.eta == datetime(2026, 11, 22, 3, 9, 13, 642135, UTC).timestamp()
    assert headers.expires == datetime(2026, 11, 22, 3, 10, 3, tzinfo=UTC).timestamp()
    assert (headers.time_limit, headers.soft_time_limit) == (30, 20)
    assert (headers.group, headers.group_index) == ("G", 0)
    assert headers.extra == {"celery_beat_task": True}


def test_the_least_message_that_celery_runs_is_read():
    properties = Properties(headers={"task": "t", "id": "i"}, content_type="application/json")
    message = Message.of(properties, b"[[], {}, null]")

    assert read_headers(message) == TaskHeaders(task="t", id="i")
    assert task.open_body(message, ACCEPT, LIMIT) == Body((), {}, {})


names = st.text(min_size=1, max_size=40).filter(str.isprintable)
maybe = st.none() | st.text(max_size=20)
seconds = st.none() | st.integers(1, 10**6) | st.floats(0.001, 10**6)


@given(
    st.builds(
        TaskHeaders,
        task=names,
        id=names,
        retries=st.integers(0, 2**31),
        eta=st.none() | st.integers(0, 2**32).map(lambda eighths: eighths / 8),
        expires=st.none() | st.integers(0, 2**32).map(lambda eighths: eighths / 8),
        time_limit=seconds,
        soft_time_limit=seconds,
        ignore_result=st.none() | st.booleans(),
        root_id=names,
        parent_id=maybe,
        group=maybe,
        group_index=st.none() | st.integers(0, 10**6),
        shadow=maybe,
        argsrepr=st.text(min_size=1, max_size=20),
        kwargsrepr=st.text(min_size=1, max_size=20),
        origin=maybe,
        crashes=st.integers(0, 10),
        extra=st.none() | st.dictionaries(names.map("x-{}".format), maybe, min_size=1, max_size=3),
    ),
    st.sampled_from(ACCEPT),
    st.sampled_from([None, "gzip", "bzip2"]),
)
def test_what_is_sent_is_read_back(headers, serializer, compression):
    sent = task.encode(headers, (1,), {"k": "v"}, serializer=serializer, compression=compression)
    arrived = Message(sent.raw, sent.body)

    assert read_headers(arrived) == headers
    assert task.open_body(arrived, ACCEPT, LIMIT).args == (1,)
    assert task.open_body(arrived, ACCEPT, LIMIT).kwargs == {"k": "v"}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message(b"\xff\xff", b""), "properties cannot be decoded"),
        (Message.of(Properties(content_type="application/json"), b"{}"), "task_protocol = 2"),
        (celery(without=("task",)), "protocol 1"),
        (celery(without=("id",)), "`id` is missing"),
        (celery(id=None), "`id` is missing"),
        (celery(id=5), "`id` is not text"),
        (celery(id=b"\xff"), "`id` is not text"),
        (celery(task=None), "`task` is missing"),
        (celery(task=["t"]), "`task` is not text"),
        (celery(properties={"content_type": None}), "no content_type"),
        (celery(properties={"content_type": ""}), "no content_type"),
        (celery(timelimit=[]), "timelimit"),
        (celery(timelimit=[1]), "timelimit"),
        (celery(timelimit=[1, 2, 3]), "timelimit"),
        (celery(timelimit=5), "timelimit"),
        (celery(timelimit="12"), "timelimit"),
        (celery(timelimit={"a": 1, "b": 2}), "timelimit"),
        (celery(timelimit=["1", None]), "timelimit"),
        (celery(timelimit=[True, None]), "timelimit"),
        (celery(timelimit=[-1, None]), "timelimit"),
        (with_limit(float("nan")), "timelimit"),
        (with_limit(float("inf")), "timelimit"),
        (celery(eta="tomorrow"), "`eta`"),
        (celery(eta=5), "`eta`"),
        (celery(eta=["2026-11-22"]), "`eta`"),
        (celery(expires=""), "`expires`"),
        (celery(expires="2026-13-01T00:00:00"), "`expires`"),
        (celery(retries="1"), "`retries`"),
        (celery(retries=1.5), "`retries`"),
        (celery(retries=True), "`retries`"),
        (celery(retries=-1), "`retries`"),
        (celery(**{"taskq-crashes": "many"}), "`taskq-crashes`"),
        (celery(eta="x" * 10_000), "`eta`"),
    ],
)
def test_broken_headers_are_malformed_with_a_short_reason(message, reason):
    with pytest.raises(MessageMalformed) as caught:
        read_headers(Message(message.raw, message.body))

    assert reason in caught.value.reason
    assert len(caught.value.reason) < 200
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize("name", [n for n in PROTOCOL_HEADERS if n not in ("task", "id")])
def test_every_other_header_may_be_absent_or_void(name):
    assert read_headers(celery(without=(name,))).id == "ID"
    assert read_headers(celery(**{name: None})).id == "ID"


@pytest.mark.parametrize(
    "name",
    [
        "lang", "shadow", "group", "group_index", "root_id", "parent_id", "argsrepr", "kwargsrepr",
        "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [b"\xff", 1.5, [1], {"a": 1}])
def test_headers_that_do_not_decide_how_a_task_runs_may_be_anything(name, value):
    found = read_headers(celery(**{name: value}))

    assert getattr(found, name, None) in (None, "")


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-11-22T03:09:13", 1795316953.0),
        ("2026-11-22T03:09:13Z", 1795316953.0),
        ("2026-11-22T05:09:13.5+02:00", 1795316953.5),
        (datetime(2026, 11, 22, 3, 9, 13, tzinfo=UTC), 1795316953.0),
    ],
)
def test_moments_without_an_offset_are_in_utc(value, moment):
    assert read_headers(celery(eta=value, expires=value)).eta == moment
    assert read_headers(celery(eta=value, expires=value)).expires == moment


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        (None, (None, None)),
        ([0, 0.0], (None, None)),
        ([0.5, 1], (0.5, 1.0)),
        ([Decimal("1.5"), None], (1.5, None)),
    ],
)
def test_a_time_limit_of_zero_is_none(value, limits):
    found = read_headers(celery(timelimit=value))

    assert (found.time_limit, found.soft_time_limit) == limits


def test_headers_of_brokers_are_not_the_senders_own():
    message = celery(**dict.fromkeys(BROKER_HEADERS, "x"), mine=1, compression="gzip")

    assert read_headers(message).extra == {"mine": 1}


# -- bodies --------------------------------------------------------------------------------------

SIGNATURE = {"task": "t.add", "args": [], "kwargs": {}, "options": {}, "subtask_type": None}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not json"),
        (b"[[1, 2], {}", "not json"),
        (b"\xff\xfe", "UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        ([[1, 2], {}], "not a list of args"),
        ([[1, 2], {}, {}, {}], "not a list of args"),
        ("text", "not a list of args"),
        (None, "not a list of args"),
        ({"task": "t.add", "id": "ID", "args": [1], "kwargs": {}}, "task_protocol = 2"),
        ({"args": [1], "kwargs": {}}, "task_protocol = 2"),
        ([{"a": 1}, {}, None], "args"),
        ([None, {}, None], "args"),
        ([[], [], None], "kwargs"),
        ([[], None, None], "kwargs"),
        ([[], {}, []], "embed"),
        ([[], {}, {"chain": [SIGNATURE]}], "chain"),
        ([[], {}, {"chord": SIGNATURE}], "chord"),
        ([[], {}, {"callbacks": [SIGNATURE]}], "callbacks"),
        ([[], {}, {"errbacks": [SIGNATURE]}], "errbacks"),
        ([[{"__type__": "complex", "__value__": "1j"}], {}, None], "unknown __type__"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_broken_bodies_are_malformed_with_a_short_reason(body, reason):
    with pytest.raises(MessageMalformed) as caught:
        task.open_body(celery(body), ACCEPT, LIMIT)

    assert reason in caught.value.reason
    assert len(caught.value.reason) < 200


@pytest.mark.parametrize("embed", [None, {}, {"chain": [], "callbacks": [], "chord": None}])
def test_an_embed_without_anything_in_it_is_fine(embed):
    assert task.open_body(celery([[1], {}, embed]), ACCEPT, LIMIT).args == (1,)


def test_kwargs_with_keys_that_are_not_text_are_malformed():
    body = msgpack.packb([[], {b"k": 1}, None])
    message = celery(body, properties={"content_type": "application/x-msgpack"})

    with pytest.raises(MessageMalformed, match="kwargs"):
        task.open_body(message, ACCEPT, LIMIT)


def test_a_content_type_that_is_not_listed_is_disallowed():
    message = celery(properties={"content_type": "application/x-python-serialize"})

    with pytest.raises(ContentDisallowed, match="python-serialize"):
        task.open_body(message, ACCEPT, LIMIT)


@pytest.mark.parametrize("compression", ["application/zstd", "", 5, [1]])
def test_an_unknown_compression_is_malformed(compression):
    with pytest.raises(MessageMalformed, match="compression"):
        task.open_body(celery(compression=compression), ACCEPT, LIMIT)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_body_over_the_limit_is_malformed(compression):
    message = task.encode(ADD, ("x" * 1000,), {}, compression=compression)

    assert task.open_body(message, ACCEPT, 1_100).args == ("x" * 1000,)
    with pytest.raises(MessageMalformed, match="larger than 1000 bytes"):
        task.open_body(message, ACCEPT, 1_000)


# -- sending again -------------------------------------------------------------------------------


def test_sending_again_strips_what_brokers_added_and_keeps_the_rest():
    stamped = {"x-mine": 1, "stamped_headers": ["x"], "stamps": {"x": 1.5}}
    added = {
        "x-death": [{"queue": "q", "reason": "expired", "count": 1}],
        "x-first-death-exchange": "",
        "x-first-death-queue": "q",
        "x-first-death-reason": "expired",
        "x-last-death-exchange": "",
        "x-last-death-queue": "q",
        "x-last-death-reason": "expired",
        "x-delivery-count": 2,
        "x-acquired-count": 3,
        "CC": ["other"],
        "BCC": ["other"],
        "taskq-route": {"exchange": "e"},
    }
    message = celery(**added, **stamped, properties={"expiration": "60000", "user_id": "celery"})

    again = task.resend(message, {"taskq-crashes": 1, "eta": None})

    assert dict(again.headers) == CELERY_HEADERS | stamped | {"taskq-crashes": 1}
    assert again == celery(**stamped, **{"taskq-crashes": 1})


def test_sending_again_changes_the_properties_that_are_given():
    again = task.resend(celery(), expiration="5", priority=7)

    assert again.properties.expiration == "5"
    assert again.properties.priority == 7


def test_sending_again_leaves_of_a_malformed_message_its_body():
    again = task.resend(Message(b"\xff\xff", b"body"), {"taskq-dead-reason": "broken"})

    assert Message(again.raw, again.body) == again
    assert dict(again.headers) == {"taskq-dead-reason": "broken"}
    assert again.body == b"body"
