"""Every lease that a beat can lead by keeps the contract of `taskq.broker.base.Lease`."""

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from taskq import clock
from taskq.beat.base import StoreOptions
from taskq.beat.lease import open_lease
from taskq.beat.stores import open_store
from taskq.broker import open_broker
from taskq.broker.base import BrokerOptions, Lease, Queue, Route, Token
from taskq.errors import PublishError, PublishRefused
from taskq.loop import Loop
from taskq.wire.message import Message, Properties
from tests.support.wait import wait_until

#: The shortest that is allowed.
LENGTH = 2.0


class Claimant:
    """Somebody who wants the lease; it does something only while it is turned."""

    def __init__(self, broker_url: str, store: StoreOptions, by_store: bool, root: str) -> None:
        self.loop = Loop()
        self.broker = open_broker(BrokerOptions((broker_url,), root=root))
        self.tokens: list[Token] = []
        self.reasons: list[str] = []
        self.holds = False
        self.answers: list[PublishError | None] = []
        self.lease: Lease = open_lease(
            self.loop,
            self.broker,
            partial(open_store, store),
            name=f"taskq.beat.{store.schedule}",
            length=LENGTH,
            by_store=by_store,
            granted=self._granted,
            lost=self._lost,
        )

    def _granted(self, token: Token) -> None:
        assert not self.holds
        self.holds = True
        self.tokens.append(token)

    def _lost(self, reason: str) -> None:
        assert self.holds
        self.holds = False
        self.reasons.append(reason)

    def publish(self, text: str) -> None:
        message = Message.of(Properties(message_id=text), text.encode())
        self.lease.publish(message, Route("", "out", (Queue("out"),)), self.answers.append)

    def renewed(self, note: str) -> None:
        self.lease.renew(note)

    def end(self, note: str = "") -> None:
        self.holds = False
        self.lease.release(note)


class Field:
    """Where some claim one lease."""

    def __init__(self, url: str, store: StoreOptions, by_store: bool, root: str) -> None:
        self.url = url
        self._given = store, by_store, root
        self.claimants: list[Claimant] = []

    def claimant(self, url: str | None = None) -> Claimant:
        self.claimants.append(Claimant(url or self.url, *self._given))
        return self.claimants[-1]

    def turn(self, *awake: Claimant) -> None:
        """Let those *awake* turn for a moment, who renew what they hold."""
        for claimant in awake:
            claimant.loop.turn(0.01)

    def until(self, condition: Callable[[], Any], *awake: Claimant, renew: str | None = "") -> None:
        def look() -> Any:
            self.turn(*awake)
            for claimant in awake:
                if claimant.holds and renew is not None:
                    claimant.renewed(renew)
            assert sum(claimant.holds for claimant in awake) <= 1
            return condition()

        wait_until(look, "the lease", timeout=60)


KINDS = ("rabbitmq", "sqlite", "redis", "postgres")


@pytest.fixture(params=KINDS)
def field(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Field]:
    broker, kind = f"sqlite:///{tmp_path}/broker.db", request.param
    store = f"sqlite:///{tmp_path}/beat.db"
    if kind == "rabbitmq":
        broker = request.getfixturevalue("rabbit").url
    elif kind == "redis":
        store = request.getfixturevalue("redis_server").url
    elif kind == "postgres":
        store = f"db+{request.getfixturevalue('postgres').url}"
    options = StoreOptions(store, schedule=uuid.uuid4().hex, timeout=1.0)
    field = Field(broker, options, kind != "rabbitmq", str(tmp_path))
    yield field
    for claimant in field.claimants:
        claimant.end()
        claimant.broker.close()
        claimant.loop.close()


def test_the_first_holder_finds_no_note(field: Field) -> None:
    first = field.claimant()

    field.until(lambda: first.holds, first)

    assert first.tokens[0].note == ""


def test_one_at_a_time_holds_it_and_each_finds_the_last_note(field: Field) -> None:
    claimants = [field.claimant() for _ in range(3)]
    epochs = []
    note = ""
    while claimants:
        field.until(lambda: any(each.holds for each in claimants), *claimants)
        (holder,) = [each for each in claimants if each.holds]
        assert note == holder.tokens[0].note
        epochs.append(holder.tokens[0].epoch)
        note = f"note {len(epochs)}"
        holder.end(note)
        claimants.remove(holder)

    assert sorted(set(epochs)) == epochs


def test_a_holder_that_is_frozen_is_replaced(field: Field) -> None:
    """It wakes up without the lease, and cannot publish any more."""
    frozen, other = field.claimant(), field.claimant()
    field.until(lambda: frozen.holds or other.holds, frozen, other)
    if other.holds:
        frozen, other = other, frozen
    asked = clock.monotonic()
    field.until(lambda: clock.monotonic() - asked > LENGTH, frozen, other, renew="so far")

    field.until(lambda: other.holds, other)
    assert other.tokens[0].note == "so far"
    frozen.publish("too late")
    field.until(lambda: not frozen.holds, frozen, other)
    frozen.publish("much too late")
    other.publish("in time")
    field.until(lambda: frozen.answers[1:] and other.answers, frozen, other)

    assert all(isinstance(answer, PublishRefused) for answer in frozen.answers)
    assert other.answers == [None]
    assert frozen.reasons
    assert other.broker.count("out") == 1


def test_a_holder_that_renews_keeps_it(field: Field) -> None:
    holder, other = field.claimant(), field.claimant()
    field.until(lambda: holder.holds or other.holds, holder, other)
    begun = clock.monotonic()

    field.until(lambda: clock.monotonic() - begun > 2 * LENGTH, holder, other)

    assert [len(holder.tokens), len(other.tokens)] in ([1, 0], [0, 1])


def test_what_is_published_under_the_lease_arrives(field: Field) -> None:
    holder = field.claimant()
    holder.publish("too early")
    field.until(lambda: holder.holds, holder)

    for number in range(100):
        holder.publish(str(number))
    field.until(lambda: len(holder.answers) == 101, holder)

    assert isinstance(holder.answers[0], PublishRefused)
    assert holder.answers[1:] == [None] * 100
    assert holder.broker.count("out") == 100


def test_releasing_twice_is_releasing_once(field: Field) -> None:
    holder, other = field.claimant(), field.claimant()
    field.until(lambda: holder.holds, holder)

    holder.end("the last word")
    holder.end("one more")

    field.until(lambda: other.holds, other)
    assert other.tokens[0].note == "the last word"


# -- RabbitMQ --------------------------------------------------------------------------------------


@pytest.fixture
def rabbit_field(rabbit: Any, tmp_path: Any) -> Iterator[Field]:
    store = StoreOptions(f"sqlite:///{tmp_path}/beat.db", schedule="x")
    field = Field(rabbit.url, store, False, str(tmp_path))
    yield field
    for claimant in field.claimants:
        claimant.end()
        claimant.loop.close()


def test_a_holder_whose_connection_is_cut_begins_anew(
    rabbit_field: Field, rabbit_through_proxy: Any
) -> None:
    holder = rabbit_field.claimant(rabbit_through_proxy.url)
    rabbit_field.until(lambda: holder.holds, holder, renew=None)
    holder.renewed("the last one")
    lease: Any = holder.lease
    rabbit_field.until(lambda: lease._awaited is None, holder, renew=None)  # it has come round

    holder.publish("on its way, maybe")
    rabbit_through_proxy.drop()
    rabbit_field.until(lambda: len(holder.tokens) == 2, holder, renew=None)

    assert len(holder.answers) == len(holder.reasons) == 1
    assert holder.tokens[1].note == "the last one"
    assert holder.tokens[1].epoch > holder.tokens[0].epoch


def test_a_lease_whose_queue_is_deleted_begins_anew(rabbit_field: Field, rabbit: Any) -> None:
    holder = rabbit_field.claimant()
    rabbit_field.until(lambda: holder.holds, holder)

    with rabbit.channel() as channel:
        channel.queue_delete("taskq.beat.x")

    rabbit_field.until(lambda: len(holder.tokens) == 2, holder)


def test_one_token_is_left(rabbit_field: Field, rabbit: Any) -> None:
    """Newcomers' probes and renewals do not pile up."""
    for _ in range(3):
        claimants = [rabbit_field.claimant() for _ in range(3)]
        rabbit_field.until(lambda c=claimants: any(each.holds for each in c), *claimants)
        begun = clock.monotonic()
        rabbit_field.until(lambda b=begun: clock.monotonic() - b > 0.5, *claimants)
        for claimant in claimants:
            claimant.end("note")

    assert rabbit.count("taskq.beat.x") <= 3


def test_what_is_no_token_in_the_queue_is_cleared_away(rabbit_field: Field, rabbit: Any) -> None:
    first = rabbit_field.claimant()
    rabbit_field.until(lambda: first.holds, first)
    first.end("the note")
    with rabbit.channel() as channel:
        for body in (b"", b"\xff", b"[]", b'{"epoch": "x"}', b'{"epoch": null}'):
            channel.basic_publish("", "taskq.beat.x", body)

    second = rabbit_field.claimant()
    rabbit_field.until(lambda: second.holds, second)

    assert second.tokens[0].note == "the note"
