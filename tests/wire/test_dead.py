"""Dead letters: what the worker writes is read back, bounded, whatever the task left behind."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.wire import dead, table
from taskq.wire.dead import DeadLetter, dead_headers

WHY = {
    "queue": "default",
    "reason": "raised ValueError",
    "exception_type": "ValueError",
    "exception": "bad",
    "traceback": "Traceback (most recent call last):\n ...\nValueError: bad",
    "attempts": 4,
    "worker": "w1@host",
    "died_at": 1795316953.5,
}


def test_the_headers_have_these_names():
    assert dead_headers(**WHY) == {
        "taskq-dead-queue": "default",
        "taskq-dead-reason": "raised ValueError",
        "taskq-dead-exception": "ValueError",
        "taskq-dead-message": "bad",
        "taskq-dead-traceback": "Traceback (most recent call last):\n ...\nValueError: bad",
        "taskq-dead-attempts": 4,
        "taskq-dead-worker": "w1@host",
        "taskq-dead-at": 1795316953.5,
    }


def test_what_is_written_is_read_back():
    headers = table.decode(table.encode({"task": "t.add"} | dead_headers(**WHY)))[0]

    assert dead.read(headers) == DeadLetter(**WHY)


anything = st.text(st.characters(exclude_categories=()), max_size=50) | st.builds(
    lambda text, times: text * times,
    st.text(st.characters(exclude_categories=()), min_size=1, max_size=5),
    st.sampled_from([1, 1_000, 30_000]),
)


TEXTS = ("queue", "reason", "exception_type", "exception", "traceback", "worker")


@given(st.fixed_dictionaries(dict.fromkeys(TEXTS, anything)))
def test_the_headers_never_take_more_than_16_kib(texts):
    headers = dead_headers(**texts, attempts=2**31, died_at=1e10)

    assert len(table.encode(headers)) <= 16 * 1024
    assert dead.read(headers) is not None


def test_of_a_long_traceback_the_end_is_kept_and_of_other_texts_the_beginning():
    headers = dead_headers(
        **WHY | {"traceback": "é" * 20_000 + "THE END", "exception": "x" * 9_000}
    )

    assert headers["taskq-dead-traceback"].startswith("...é")
    assert headers["taskq-dead-traceback"].endswith("éTHE END")
    assert headers["taskq-dead-message"].startswith("xxx")
    assert headers["taskq-dead-message"].endswith("x...")


@pytest.mark.parametrize(
    "headers", [{}, {"x-death": []}, {"taskq-dead-reason": None}, {"taskq-dead-reason": b"\xff"}]
)
def test_a_message_without_a_reason_is_no_dead_letter_of_ours(headers):
    assert dead.read(headers) is None


def test_headers_that_others_wrote_badly_are_read_as_far_as_they_go():
    wrong = dict.fromkeys(dead_headers(**WHY), b"?") | {"taskq-dead-reason": "why"}

    assert dead.read(wrong) == DeadLetter(queue="", reason="why")


def test_without_the_headers_of_its_death_a_message_has_its_own_again():
    headers = {"task": "t.add", "retries": 3, "mine": 1}

    assert dead.without({**headers, **dead_headers(**WHY), "taskq-dead-properties": b""}) == headers


def test_of_the_brokers_own_deaths_the_latest_is_told():
    latest = {"queue": "q1", "reason": "rejected", "time": datetime(2026, 1, 2, tzinfo=UTC)}
    headers = {"x-death": [latest, {"queue": "q0", "reason": "expired"}]}

    assert dead.read_x_death(headers) == DeadLetter(
        queue="q1", reason="dead-lettered by the broker: rejected", died_at=1767312000.0
    )


@pytest.mark.parametrize(
    "deaths", [None, [], {}, "", ["q"], [{}], [{"queue": "q"}], [{"queue": 1, "reason": "r"}]]
)
def test_a_death_that_the_broker_did_not_write_is_none(deaths):
    assert dead.read_x_death({"x-death": deaths}) is None


def test_the_raw_properties_of_an_undecodable_message_are_read_back():
    headers = dead_headers(**WHY) | {"taskq-dead-properties": b"\xff\xff"}

    assert dead.read(headers).properties == b"\xff\xff"
