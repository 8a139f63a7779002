"""Results as Celery's mapping, and exceptions that travel as data."""

import json
import sys
import types

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq import errors, states
from taskq.errors import ContentDisallowed, EncodeError, MessageMalformed
from taskq.wire import result as wire
from taskq.wire.result import Result, exception_from_wire, exception_to_wire

BOTH = ("json", "msgpack")
DONE = "2026-11-22T03:10:43.583645+00:00"


def through(result, serializer="json"):
    encoded = wire.encode(result, serializer)
    return wire.decode(encoded.body, encoded.content_type, encoded.content_encoding, [serializer])


# -- the mapping ---------------------------------------------------------------------------------

#: As Celery 5.7 stores them.
CELERY = [
    (
        {
            "status": "SUCCESS",
            "result": 3,
            "traceback": None,
            "children": [],
            "date_done": DONE,
            "task_id": "ID",
        },
        Result("ID", states.SUCCESS, 3, None, DONE, []),
    ),
    (
        {
            "status": "FAILURE",
            "result": {
                "exc_type": "ValueError",
                "exc_message": ["bad", 1],
                "exc_module": "builtins",
            },
            "traceback": "Traceback (most recent call last):\n …",
            "children": [],
            "date_done": DONE,
            "task_id": "ID",
        },
        Result(
            "ID",
            states.FAILURE,
            {"exc_type": "ValueError", "exc_message": ["bad", 1], "exc_module": "builtins"},
            "Traceback (most recent call last):\n …",
            DONE,
            [],
        ),
    ),
    (
        {
            "status": "STARTED",
            "result": {"pid": 23229, "hostname": "w1@vm"},
            "traceback": None,
            "children": None,
            "date_done": None,
            "task_id": "ID",
            "group_id": "G",
            "parent_id": "P",
        },
        Result(
            "ID", states.STARTED, {"pid": 23229, "hostname": "w1@vm"}, None, None, None, "P", "G"
        ),
    ),
]


@pytest.mark.parametrize(("mapping", "result"), CELERY)
def test_results_are_written_as_celery_writes_them(mapping, result):
    assert json.loads(wire.encode(result).body) == mapping
    assert msgpack.unpackb(wire.encode(result, "msgpack").body) == mapping


@pytest.mark.parametrize(("mapping", "result"), CELERY)
def test_results_are_read_as_celery_writes_them(mapping, result):
    extended = mapping | {"name": "w.add", "args": [1], "worker": "w1@vm", "retries": 0}
    for fields in (mapping, extended):
        body = json.dumps(fields).encode()
        assert wire.decode(body, "application/json", "utf-8", ["json"]) == result


@given(
    st.builds(
        Result,
        st.text(),
        st.sampled_from([states.SUCCESS, states.STARTED, "PROGRESS"]),
        st.none() | st.binary() | st.lists(st.dates() | st.uuids()),
        traceback=st.none() | st.text(),
        date_done=st.none() | st.just(DONE),
        parent_id=st.none() | st.text(),
        group_id=st.none() | st.text(),
    ),
    st.sampled_from(BOTH),
)
def test_results_come_back_equal(result, serializer):
    assert through(result, serializer) == result


def test_a_return_value_that_would_not_come_back_equal_is_refused():
    with pytest.raises(EncodeError, match=r"\['result'\]\['k'\].*object"):
        wire.encode(Result("ID", states.SUCCESS, {"k": object()}))


@pytest.mark.parametrize(
    "body",
    [b"", b"5", b"[]", b"{}", b'{"status": "SUCCESS"}', b'{"status": null, "task_id": "ID"}',
     b'{"status": "SUCCESS", "task_id": 5}'],
)  # fmt: skip
def test_what_is_no_result_is_malformed(body):
    with pytest.raises(MessageMalformed):
        wire.decode(body, "application/json", None, BOTH)


def test_a_result_in_a_format_that_is_not_listed_is_disallowed():
    with pytest.raises(ContentDisallowed):
        wire.decode(b"{}", "application/x-python-serialize", None, BOTH)


# -- exceptions ----------------------------------------------------------------------------------


class Refused(Exception):
    class Twice(Exception):
        pass


class Worded(Exception):
    def __init__(self, code):
        super().__init__(f"code {code}")


class Demanding(Exception):
    def __init__(self, *, keyword):
        super().__init__(keyword)


class Deadly(Exception):
    def __init__(self, *args):
        if args:
            raise RuntimeError("cannot be built again")
        super().__init__("deadly")


class Unshowable:
    def __repr__(self):
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "exception",
    [
        ValueError("bad", 1),
        KeyError("k"),
        ZeroDivisionError(),
        OSError(2, "gone"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"),
        Refused("no"),
        Refused.Twice(1, [2], {"three": 3}),
        Worded(5),
    ],
    ids=repr,
)
@pytest.mark.parametrize("serializer", BOTH)
def test_an_exception_comes_back_with_its_class_and_arguments(exception, serializer):
    failed = Result("ID", states.FAILURE, exception_to_wire(exception))

    found = exception_from_wire(through(failed, serializer).value)

    assert type(found) is type(exception)
    assert found.args == exception.args
    assert str(found) == str(exception)


@pytest.mark.parametrize(
    ("exception", "name", "module"),
    [
        (errors.TaskNotRegistered("x"), "NotRegistered", "celery.exceptions"),
        (errors.TaskRevokedError("expired"), "TaskRevokedError", "celery.exceptions"),
        (errors.MaxRetriesExceededError("x"), "MaxRetriesExceededError", "celery.exceptions"),
        (errors.MessageMalformed("x"), "InvalidTaskError", "celery.exceptions"),
        (errors.Retry("x"), "Retry", "celery.exceptions"),
        (errors.Reject("x"), "Reject", "celery.exceptions"),
        (errors.Ignore("x"), "Ignore", "celery.exceptions"),
        (errors.WorkerLostError("x"), "WorkerLostError", "billiard.exceptions"),
        (errors.TimeLimitExceeded(1), "TimeLimitExceeded", "billiard.exceptions"),
        (errors.SoftTimeLimitExceeded(), "SoftTimeLimitExceeded", "billiard.exceptions"),
    ],
    ids=repr,
)
def test_our_exceptions_have_the_names_that_celerys_readers_know(exception, name, module):
    mapping = exception_to_wire(exception)

    assert mapping == {
        "exc_type": name,
        "exc_message": list(exception.args),
        "exc_module": module,
    }
    for known in (module, "celery.exceptions"):
        found = exception_from_wire(mapping | {"exc_module": known})
        assert type(found) is type(exception)
        assert found.args == exception.args


def test_celerys_names_mean_our_exceptions_even_where_celery_is_imported(monkeypatch):
    celery = types.ModuleType("celery.exceptions")
    celery.TaskRevokedError = type("TaskRevokedError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "celery.exceptions", celery)

    found = exception_from_wire(
        {"exc_type": "TaskRevokedError", "exc_message": ["x"], "exc_module": "celery.exceptions"}
    )

    assert type(found) is errors.TaskRevokedError


@pytest.mark.parametrize(
    "argument",
    [object(), 1j, 2**64, "\ud800", {1: 2}, {"__type__": 1, "__value__": 2}, Unshowable()],
)
def test_arguments_that_cannot_travel_become_their_repr(argument):
    mapping = exception_to_wire(ValueError("bad", argument))

    assert mapping["exc_message"][0] == "bad"
    assert isinstance(mapping["exc_message"][1], str)
    for serializer in BOTH:
        through(Result("ID", states.FAILURE, mapping), serializer)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("PaymentRefused", "shop.errors"),
        ("Outer.Inner", "shop.errors"),
        ("test.<locals>.Local", __name__),
        ("Missing", __name__),
        ("Missing", None),
        ("Missing", 5),
        ("eval", "builtins"),
        ("system", "os"),
        ("object", "builtins"),
        ("str", "builtins"),
        ("SystemExit", "builtins"),
        ("KeyboardInterrupt", "builtins"),
        ("Worded.__init__", __name__),
        ("", "builtins"),
        ("a.", ""),
        ("\0", ""),
        ("\ud800", "\ud800"),
        ("Demanding", __name__),
        ("Deadly", __name__),
    ],
)
def test_what_is_no_exception_here_is_stood_in_for_by_name(name, module):
    found = exception_from_wire(
        {"exc_type": name, "exc_message": ["first", 2], "exc_module": module}
    )

    assert isinstance(found, Exception)
    assert found.args == ("first", 2)
    if name.isidentifier():
        assert type(found).__name__ == name


def test_no_module_is_imported_for_an_exception(monkeypatch):
    lazy = types.ModuleType("lazy_errors")
    lazy.__getattr__ = lambda name: pytest.fail(f"asked for {name}")
    monkeypatch.setitem(sys.modules, "lazy_errors", lazy)
    monkeypatch.delitem(sys.modules, "this", raising=False)

    for module in ("lazy_errors", "this"):
        exception_from_wire({"exc_type": "Error", "exc_message": [], "exc_module": module})

    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("message", "arguments"), [(None, ()), ("text", ("text",)), ([], ()), ({"a": 1}, ({"a": 1},))]
)
def test_arguments_may_be_a_list_or_one_value(message, arguments):
    mapping = {"exc_type": "ValueError", "exc_message": message, "exc_module": "builtins"}

    assert exception_from_wire(mapping).args == arguments


@pytest.mark.parametrize("mapping", [None, "", "text", 5, [], {}, {"exc_type": None}])
def test_what_stores_hold_in_place_of_an_exception_is_a_task_failure(mapping):
    assert isinstance(exception_from_wire(mapping), errors.TaskFailure)
