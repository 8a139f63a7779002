"""What brokers without a server decide by arithmetic: where to, how early, how long."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.broker.base import Queue, Route
from taskq.broker.exchange import bindings, rank_and_lifetime, targets, topic_fits
from taskq.errors import PublishRefused
from taskq.wire.message import Properties, encode_properties


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("a.b", ["a.b"], ["", "a", "b", "a.b.c", "a.c"]),
        ("*", ["a", "abc"], ["", "a.b"]),
        ("#", ["", "a", "a.b.c"], []),
        ("a.*", ["a.b"], ["a", "a.b.c", "b.a"]),
        ("a.#", ["a", "a.b", "a.b.c"], ["", "b", "ab"]),
        ("#.z", ["z", "a.z", "a.b.z"], ["", "z.a"]),
        ("a.#.z", ["a.z", "a.b.z", "a.b.c.z"], ["a", "z", "a.b"]),
        ("*.#", ["a", "a.b"], [""]),
        ("#.*", ["a", "a.b"], [""]),
        ("#.a.#", ["a", "b.a", "a.b", "b.a.b"], ["", "b"]),
        ("*.*", ["a.b"], ["a", "a.b.c"]),
        ("", [""], ["a"]),
    ],
)
def test_topic_patterns_fit_by_words(pattern: str, fitting: list[str], others: list[str]) -> None:
    assert [topic_fits(pattern, key) for key in fitting] == [True] * len(fitting)
    assert [topic_fits(pattern, key) for key in others] == [False] * len(others)


def test_many_wildcards_are_no_riddle() -> None:
    assert not topic_fits(".".join(["#"] * 100 + ["z"]), ".".join(["a"] * 100))


def test_a_queue_bound_twice_gets_one_copy() -> None:
    bound = [*bindings(Queue("q", "e", "topic", "#")), *bindings(Queue("q", "e", "topic", "a.*"))]

    assert ["q"] == targets((b for b in bound if b.exchange), Route("e", "a.b"), mandatory=True)


def test_a_missing_exchange_refuses_what_need_not_arrive_too() -> None:
    with pytest.raises(PublishRefused, match="'e'"):
        targets([], Route("e", "k"), mandatory=False)


_short = st.text(max_size=20)


@given(
    priority=st.none() | st.integers(0, 255),
    lifetime_ms=st.none() | st.integers(0, 10**9),
    others=st.fixed_dictionaries(
        {},
        optional={
            "content_type": _short,
            "content_encoding": _short,
            "headers": st.dictionaries(st.text(max_size=5), _short, max_size=3),
            "delivery_mode": st.integers(1, 2),
            "correlation_id": _short,
            "reply_to": _short,
            "message_id": _short,
            "timestamp": st.integers(0, 2**63),
        },
    ),
)
def test_priority_and_expiration_are_found_between_any_properties(
    priority: int | None, lifetime_ms: int | None, others: dict[str, Any]
) -> None:
    expiration = None if lifetime_ms is None else str(lifetime_ms)
    raw = encode_properties(Properties(priority=priority, expiration=expiration, **others))

    rank, lifetime = rank_and_lifetime(raw)

    assert rank == 9 - min(priority or 0, 9)
    assert lifetime == (None if lifetime_ms is None else lifetime_ms / 1000)


@given(st.binary(max_size=60))
def test_broken_properties_are_carried_like_any_other(raw: bytes) -> None:
    rank, lifetime = rank_and_lifetime(raw)

    assert 0 <= rank <= 9
    assert isinstance(lifetime, float | None)


def test_an_expiration_that_is_no_number_is_none() -> None:
    assert rank_and_lifetime(encode_properties(Properties(expiration="soon"))) == (9, None)
