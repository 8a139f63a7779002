"""The embedded broker among real processes: their deaths, their number, their waking.

Run as a program this file is one of those processes; see `main`.
"""

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from taskq import clock
from taskq.broker.base import BrokerOptions, Delivery, Queue, Route
from taskq.broker.sqlite import SqliteBroker
from taskq.errors import BrokerUnavailable, ConfigurationError, PublishError, PublishRefused
from taskq.loop import Loop
from taskq.testing.broker_contract import Bench, a_message, dead_letters_of, straight_to
from tests.support.wait import wait_until

QUEUE = Queue("q")
ROUTE = straight_to(QUEUE)
DEAD = dead_letters_of(QUEUE)

#: Longer than any test waits: whoever looks this seldom lives by the bell and by due times.
NEVER = 3600.0


def open_broker(path: Path, interval: float = 1.0, **options: Any) -> SqliteBroker:
    broker = SqliteBroker(BrokerOptions((f"sqlite:///{path}",), **options))
    broker._interval = interval
    return broker


# -- the other processes ---------------------------------------------------------------------------


def main(role: str, path: str, *arguments: str) -> None:
    roles = {"produce": produce, "hold": hold, "work": work}
    roles[role](Path(path), *arguments)


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # in one piece, and at once


def produce(path: Path, name: str, number: str, size: str) -> None:
    """Publish bodies `name:0:xxx...`, and say each name and number once it is safe."""
    outlet = open_broker(path).outlet(None)
    for n in range(int(number)):
        label = f"{name}:{n}"
        answers: list[PublishError | None] = []
        outlet.publish(a_message(f"{label}:".encode() + b"x" * int(size)), ROUTE, answers.append)
        assert answers == [None]
        say(label)


def hold(path: Path, number: str, interval: str) -> None:
    """Take *number* messages, say so for each, and ack them all when a line comes in."""
    loop, deliveries = Loop(), list[Delivery]()

    def on_delivery(delivery: Delivery) -> None:
        deliveries.append(delivery)
        say(delivery.message.body.decode())

    intake = open_broker(path, float(interval)).intake(
        loop, on_delivery=on_delivery, on_ready=lambda: say("ready"), on_lost=lambda _reason: None
    )
    intake.consume([QUEUE], int(number))

    def ack_and_end(_fd: int, _events: int) -> None:
        for delivery in deliveries:
            intake.ack(delivery)
        intake.close()
        loop.stop()

    loop.add_handler(0, ack_and_end, Loop.READ)
    loop.start()


def work(path: Path) -> None:
    """Say "ready", then say and ack what comes, until a line comes in."""
    loop = Loop()

    def on_delivery(delivery: Delivery) -> None:
        say(delivery.message.body.decode().rstrip(":"))
        intake.ack(delivery)

    intake = open_broker(path).intake(
        loop, on_delivery=on_delivery, on_ready=lambda: say("ready"), on_lost=lambda _reason: None
    )
    intake.consume([QUEUE], 10)
    loop.add_handler(0, lambda *_: loop.stop(), Loop.READ)
    loop.start()
    intake.close()


class Program:
    """This file as a process, in one of its roles."""

    def __init__(self, output: Path, role: str, path: Path, *arguments: object) -> None:
        self._output = output
        command = [sys.executable, "-m", __spec__.name, role, path, *arguments]
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.PIPE, stdout=file
            )

    @property
    def lines(self) -> list[str]:
        """What it said so far, whole lines only."""
        return self._output.read_text().split("\n")[:-1]

    def expect(self, number: int) -> list[str]:
        """Wait until it said *number* lines, and return all."""
        wait_until(lambda: len(self.lines) >= number or self.process.poll(), f"{number} lines")
        assert len(self.lines) >= number
        return self.lines

    def end(self) -> None:
        """Tell it to end in order."""
        self.process.communicate(b"\n", timeout=30)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "tasks.db"


@pytest.fixture
def program(tmp_path: Path, path: Path) -> Iterator[type[Program]]:
    """Starts one of the other processes: `program(role, ...)`."""
    with ExitStack() as stack:

        def start(role: str, *arguments: object) -> Program:
            output = tmp_path / f"output-{os.urandom(4).hex()}"
            started = Program(output, role, path, *arguments)
            stack.callback(started.kill)
            return started

        yield start  # type: ignore[misc]


@contextmanager
def a_bench(path: Path, interval: float = 1.0, **options: Any) -> Iterator[Bench]:
    broker = open_broker(path, interval, **options)
    bench = Bench(broker)
    try:
        yield bench
    finally:
        bench.close()
        broker.close()


@pytest.fixture
def bench(path: Path) -> Iterator[Bench]:
    with a_bench(path) as bench:
        yield bench


# -- death -----------------------------------------------------------------------------------------


def test_a_killed_worker_loses_nothing(bench: Bench, program: type[Program]) -> None:
    bench.send(QUEUE, b"1", b"2", b"3", b"4", b"5")
    holder = program("hold", 3, 1.0)
    assert ["ready", "1", "2", "3"] == holder.expect(4)

    holder.kill()
    hold = bench.receive(QUEUE, number=5)

    assert {b"1", b"2", b"3", b"4", b"5"} == set(hold.bodies)
    returned = {d.message.body: (d.redelivered, d.count) for d in hold.deliveries}
    assert {(True, 1)} == {returned[body] for body in (b"1", b"2", b"3")}
    assert {(False, 0)} == {returned[body] for body in (b"4", b"5")}


def test_what_a_killed_worker_held_is_counted_and_comes_in_its_order(
    path: Path, program: type[Program]
) -> None:
    """At once, where nobody lived to give it back."""
    with a_bench(path, NEVER) as bench:
        bench.send(QUEUE, b"1", b"2", b"3")
        holder = program("hold", 2, NEVER)
        holder.expect(3)
        assert bench.broker.count("q") == 1

        holder.kill()
        assert bench.broker.count("q") == 3
        assert [b"1", b"2", b"3"] == bench.receive(QUEUE, number=3).bodies


def test_a_slow_worker_keeps_what_it_holds(path: Path, program: type[Program]) -> None:
    """However long a worker stands still: nobody else gets its messages while it lives."""
    with a_bench(path, interval=0.001) as bench:  # looks for dead workers all the time
        bench.send(QUEUE, b"held")
        holder = program("hold", 1, 1.0)
        holder.expect(2)

        holder.process.send_signal(signal.SIGSTOP)
        hold = bench.consume(QUEUE)
        for number in range(20):
            bench.publish(a_message(b"%d" % number), ROUTE, due=clock.wall() + 0.01)
            bench.expect(hold, number + 1)
        holder.process.send_signal(signal.SIGCONT)
        holder.end()

        assert [b"%d" % number for number in range(20)] == hold.bodies
        hold.intake.close()
        assert bench.broker.count("q") == 20


def test_a_worker_that_ends_gives_back_uncounted(bench: Bench) -> None:
    bench.send(QUEUE, b"1")
    bench.receive(QUEUE).intake.close()

    (delivery,) = bench.receive(QUEUE).deliveries

    assert (True, 0) == (delivery.redelivered, delivery.count)


def test_a_requeued_message_is_counted(bench: Bench) -> None:
    bench.send(QUEUE, b"1")
    hold = bench.receive(QUEUE)

    for times in (1, 2, 3):
        hold.intake.reject(hold.deliveries[-1], requeue=True)
        bench.expect(hold, times + 1)

    assert [0, 1, 2, 3] == [delivery.count for delivery in hold.deliveries]


def test_a_killed_producer_leaves_whole_messages(bench: Bench, program: type[Program]) -> None:
    size = 20_000
    producer = program("produce", "p", 100_000, size)
    producer.expect(30)

    producer.kill()
    confirmed = producer.lines
    number = bench.broker.count("q")
    hold = bench.receive(QUEUE, number=number, window=number)

    bodies = [body.decode().rpartition(":") for body in hold.bodies]
    assert {"x" * size} == {filling for _, _, filling in bodies}
    labels = [label for label, _, _ in bodies]
    assert labels == [f"p:{n}" for n in range(number)]
    assert confirmed == labels[: len(confirmed)]
    assert number - len(confirmed) <= 1


def test_a_fork_may_publish_while_its_parent_closes(path: Path) -> None:
    """SQLite's own trap: the parent's last close would unlink the log that the child writes to."""
    broker, answers = open_broker(path), list[PublishError | None]()
    outlet = broker.outlet(None)
    outlet.publish(a_message(b"before"), ROUTE, answers.append)
    begin, go = os.pipe()
    done, finish = os.pipe()

    child = os.fork()
    if child == 0:
        try:
            outlet.publish(a_message(b"child"), ROUTE, answers.append)
            os.write(finish, b"\0")
            os.read(begin, 1)
            outlet.publish(a_message(b"child, later"), ROUTE, answers.append)
        finally:
            os._exit(0 if answers == [None] * 3 else 1)
    os.read(done, 1)
    outlet.publish(a_message(b"parent"), ROUTE, answers.append)
    broker.close()
    os.write(go, b"\0")
    assert os.waitpid(child, 0) == (child, 0)

    assert answers == [None] * 2
    assert broker.count("q") == 4
    broker.close()
    for fd in (begin, go, done, finish):
        os.close(fd)


def test_a_settlement_by_one_who_lost_the_message_changes_nothing(bench: Bench, path: Path) -> None:
    bench.send(QUEUE, b"1", b"2", b"3")
    loser = bench.receive(QUEUE, number=3, window=3)
    connection = sqlite3.connect(path)
    connection.execute("update message set state = 0, owner = 0")  # as if the loser were dead
    connection.commit()
    connection.close()
    winner = bench.receive(QUEUE, number=3)

    loser.intake.ack(loser.deliveries[0])
    loser.intake.reject(loser.deliveries[1], requeue=True)
    loser.intake.reject(loser.deliveries[2], requeue=False)
    loser.intake.close()
    winner.intake.close()
    hold = bench.receive(QUEUE, number=3)

    assert {b"1", b"2", b"3"} == set(hold.bodies)
    assert {0} == {delivery.count for delivery in hold.deliveries}


def test_a_fork_does_not_take_its_parents_messages(path: Path) -> None:
    """Neither the fork nor its end lets go of what the parent holds."""
    with a_bench(path, interval=0.001) as bench:
        bench.send(QUEUE, b"held")
        bench.receive(QUEUE, window=1)

        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        with a_bench(path, interval=0.001) as other:
            hold = other.consume(QUEUE)
            other.publish(a_message(b"new"), ROUTE, due=clock.wall() + 0.1)
            other.expect(hold, 1)

            assert [b"new"] == hold.bodies


# -- many ------------------------------------------------------------------------------------------


def test_many_producers_and_workers_lose_and_repeat_nothing(
    bench: Bench, program: type[Program], path: Path
) -> None:
    bench.send(QUEUE, b"first")
    workers = [program("work") for _ in range(2)]
    for worker in workers:
        worker.expect(1)
    producers = [program("produce", name, 500, 0) for name in "abcd"]

    wait_until(lambda: sum(len(worker.lines) for worker in workers) >= 2003, "2001 messages")
    for worker in workers:
        worker.end()
    for producer in producers:
        producer.process.communicate(timeout=30)

    done = [line for worker in workers for line in worker.lines]
    expected = [f"{name}:{n}" for name in "abcd" for n in range(500)]
    assert sorted(["ready", "ready", "first", *expected]) == sorted(done)
    assert rows(path, "select * from message") == []


def rows(path: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


# -- waking ----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the bell is heard by inotify only")
def test_the_bell_wakes_a_waiting_worker(bench: Bench, program: type[Program]) -> None:
    waiting = program("hold", 10, NEVER)
    waiting.expect(1)

    bench.send(QUEUE, b"ding")
    assert ["ready", "ding"] == waiting.expect(2)
    bench.send(QUEUE, b"dong")
    assert ["ready", "ding", "dong"] == waiting.expect(3)


@pytest.mark.skipif(sys.platform != "linux", reason="the bell is heard by inotify only")
def test_a_waiting_worker_wakes_when_a_message_is_due(bench: Bench, program: type[Program]) -> None:
    waiting = program("hold", 10, NEVER)
    waiting.expect(1)

    bench.publish(a_message(b"second"), ROUTE, due=clock.wall() + 0.6)
    bench.publish(a_message(b"first"), ROUTE, due=clock.wall() + 0.2)

    assert ["ready", "first", "second"] == waiting.expect(3)


@pytest.mark.skipif(sys.platform != "linux", reason="the bell is heard by inotify only")
def test_what_one_worker_gives_back_wakes_another(path: Path, program: type[Program]) -> None:
    with a_bench(path, NEVER) as bench:
        bench.send(QUEUE, b"given back")
        hold = bench.receive(QUEUE)
        waiting = program("hold", 10, NEVER)
        waiting.expect(1)

        hold.intake.close()

        assert ["ready", "given back"] == waiting.expect(2)


def test_a_worker_that_hears_no_bell_looks_for_itself(path: Path) -> None:
    with a_bench(path) as bench:
        hold = bench.consume(QUEUE)
        connection = sqlite3.connect(path)
        connection.execute(  # as a silent writer would
            "insert into message (queue, rank, state, exchange, routing_key, properties, body)"
            "values ('q', 9, 0, '', 'q', x'0000', x'61')"
        )
        connection.commit()
        connection.close()

        bench.expect(hold, 1)

        assert [b"a"] == hold.bodies


# -- transactions ----------------------------------------------------------------------------------


def test_a_turn_is_one_transaction(bench: Bench) -> None:
    bench.send(QUEUE, b"1", b"2")
    hold = bench.receive(QUEUE, window=1)
    statements: list[str] = []
    broker = bench.broker
    assert isinstance(broker, SqliteBroker)
    with broker._file.reading() as db:
        db.set_trace_callback(statements.append)

    hold.ack(hold.deliveries[0])
    answers = [bench.post(a_message(), ROUTE) for _ in range(3)]
    bench.loop.turn(0)
    assert [[None]] * 3 == answers
    assert [b"1", b"2"] == hold.bodies
    assert (statements.count("begin immediate"), statements.count("commit")) == (1, 1)

    bench.publish(a_message(), ROUTE)
    deletions = [line for line in statements if line.startswith("delete from message where id")]
    assert len(deletions) == 1


def test_what_cannot_be_written_is_refused_and_settlements_are_kept(
    bench: Bench, path: Path
) -> None:
    bench.send(QUEUE, b"1", b"2")
    hold = bench.receive(QUEUE, number=2)
    spoiler = sqlite3.connect(path)
    spoiler.execute("alter table message rename to elsewhere")

    refused = bench.publish(a_message(b"refused"), ROUTE)
    hold.ack(hold.deliveries[0])
    hold.intake.reject(hold.deliveries[1], requeue=False)
    bench.loop.turn(0)
    spoiler.execute("alter table elsewhere rename to message")
    spoiler.close()
    dead = bench.receive(Queue("q.dead", kind="dead"))

    assert isinstance(refused, PublishRefused)
    assert str(path) in str(refused)
    assert [b"2"] == dead.bodies
    assert [("2",)] == rows(path, "select cast(body as text) from message")


def test_a_file_that_others_keep_busy_refuses_in_time(path: Path) -> None:
    broker, answers = open_broker(path), list[PublishError | None]()
    outlet = broker.outlet(None)
    outlet.publish(a_message(), ROUTE, answers.append)
    turnstile = os.open(f"{path}-bell", os.O_RDWR)
    fcntl.flock(turnstile, fcntl.LOCK_EX)

    outlet.publish(a_message(), ROUTE, answers.append, timeout=0.1)
    os.close(turnstile)
    outlet.publish(a_message(), ROUTE, answers.append, timeout=0.1)

    assert [None, None] == [answers[0], answers[2]]
    assert isinstance(answers[1], PublishRefused)
    assert "busy" in str(answers[1])
    assert broker.count("q") == 2
    broker.close()


def test_a_file_that_cannot_be_opened_refuses(tmp_path: Path) -> None:
    tmp_path.joinpath("file").write_text("in the way")
    broker, answers = open_broker(tmp_path / "file" / "tasks.db"), list[PublishError | None]()

    broker.outlet(None).publish(a_message(), ROUTE, answers.append)

    assert isinstance(answers[0], PublishRefused)
    with pytest.raises(BrokerUnavailable, match="cannot be read"):
        broker.count("q")


def test_an_exchange_type_that_needs_a_server_is_refused(bench: Bench) -> None:
    queue = Queue("q", "e", "headers")

    refused = bench.publish(a_message(), Route("e", "", (queue,)))

    assert isinstance(refused, PublishRefused)
    assert "direct, topic and fanout" in str(refused)
    with pytest.raises(ConfigurationError, match="headers"):
        bench.consume(queue)


# -- dead letters ----------------------------------------------------------------------------------


def die(bench: Bench, *bodies: bytes, way: str) -> None:
    """Let messages with *bodies* become dead letters of QUEUE."""
    if way == "sent by a worker":
        for body in bodies:
            bench.send(DEAD, body)
    elif way == "sent by a program":
        outlet, answers = bench.broker.outlet(None), list[PublishError | None]()
        for body in bodies:
            outlet.publish(a_message(body), straight_to(DEAD), answers.append)
        assert [None] * len(bodies) == answers
    elif way == "rejected":
        bench.send(QUEUE, *bodies)
        hold = bench.receive(QUEUE, number=len(bodies))
        for delivery in hold.deliveries:
            hold.intake.reject(delivery, requeue=False)
        hold.intake.close()
    else:
        for body in bodies:
            bench.publish(a_message(body, expiration="1"), ROUTE)
        bench.expect_count(DEAD, len(bodies))  # though nobody has moved them yet


WAYS = ["sent by a worker", "sent by a program", "rejected", "expired"]


@pytest.mark.parametrize("way", WAYS)
def test_of_too_many_dead_letters_the_oldest_go(path: Path, way: str) -> None:
    with a_bench(path, dead_letter_max_length=3) as bench:
        bench.send(Queue("alive"), b"1", b"2", b"3", b"4", b"5")

        die(bench, b"1", b"2", b"3", b"4", b"5", way=way)

        assert [b"3", b"4", b"5"] == bench.receive(DEAD, number=3).bodies
        assert bench.broker.count(DEAD.name) == 0
        assert bench.broker.count("alive") == 5


def test_dead_letters_exceed_their_number_by_no_more_than_a_percent(path: Path) -> None:
    with a_bench(path, dead_letter_max_length=200) as bench:
        die(bench, *[b"%d" % number for number in range(200)], way="sent by a program")
        assert bench.broker.count(DEAD.name) == 200

        for number in range(200, 210):
            die(bench, b"%d" % number, way="sent by a worker")
            assert 200 <= bench.broker.count(DEAD.name) <= 202


@pytest.mark.parametrize("way", ["rejected", "expired"])
def test_what_the_broker_dead_letters_itself_is_kept_as_long_as_others(
    path: Path, way: str
) -> None:
    with a_bench(path, dead_letter_ttl=3600.0) as bench:
        before = clock.wall()
        die(bench, b"1", way=way)
        bench.receive(DEAD)

        ((expires,),) = rows(path, "select expires from message where queue = 'q.dead'")
        assert before + 3600 <= expires <= clock.wall() + 3600


# -- the file --------------------------------------------------------------------------------------


def test_relative_urls_start_from_the_root(tmp_path: Path) -> None:
    options = BrokerOptions(("sqlite:///a/b.db",), root=str(tmp_path))
    broker = SqliteBroker(options)

    assert broker.url == f"sqlite:///{tmp_path}/a/b.db"
    assert broker.count("q") == 0
    assert (tmp_path / "a/b.db").exists()
    broker.close()


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://a.db", "sqlite:///a?mode=ro",
     "sqlite:///a?synchronous=perhaps"],
)  # fmt: skip
def test_a_wrong_url_is_an_error_that_shows_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SqliteBroker(BrokerOptions((url,)))

    assert url in str(caught.value)


@pytest.mark.parametrize(("option", "level"), [("", 1), ("?synchronous=full", 2)])
def test_the_url_says_whether_to_survive_a_loss_of_power(
    tmp_path: Path, option: str, level: int
) -> None:
    broker = SqliteBroker(BrokerOptions((f"sqlite:///{tmp_path}/t.db{option}",)))

    with broker._file.reading() as db:
        assert db.execute("pragma synchronous").fetchone() == (level,)
        assert db.execute("pragma journal_mode").fetchone() == ("wal",)
    broker.close()


def test_a_broker_without_reply_queues_says_what_to_use(path: Path) -> None:
    loop = Loop()
    with pytest.raises(ConfigurationError, match="result_backend"):
        open_broker(path).replies(loop, Queue("r", kind="reply"), lambda _message: None)
    loop.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
