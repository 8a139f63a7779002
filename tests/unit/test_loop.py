"""One loop that carries everything."""

import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from taskq.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def test_timers_run_in_the_order_of_their_times(loop: Loop) -> None:
    ran: list[str] = []
    loop.call_later(0.002, lambda: ran.append("later"))
    loop.call_later(0.0, lambda: ran.append("now"))
    cancelled = loop.call_later(0.001, lambda: ran.append("never"))
    cancelled.cancel()

    while len(ran) < 2:
        loop.turn(1.0)

    assert ["now", "later"] == ran


def test_a_callback_from_another_thread_wakes_the_loop(loop: Loop) -> None:
    loop.call_later(60, loop.stop)
    thread = threading.Thread(target=loop.add_callback, args=(loop.stop,))

    loop.add_callback(thread.start)
    loop.start()  # returns because of the thread, or the test times out

    thread.join()


def test_every_callback_of_many_threads_runs_once(loop: Loop) -> None:
    ran: list[int] = []

    def add(start: int) -> None:
        for n in range(start, start + 500):
            loop.add_callback(lambda n=n: ran.append(n))  # type: ignore[misc]

    threads = [threading.Thread(target=add, args=(1000 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or len(ran) < 2000:
        loop.turn(0.05)

    assert sorted(ran) == [1000 * k + n for k in range(4) for n in range(500)]


def test_no_wake_up_is_missed_when_threads_wait_for_their_callbacks(loop: Loop) -> None:
    """A loop that has missed one sleeps until its next timer, from then on each time."""
    loop.call_later(60, loop.stop)  # what a missed wake-up would leave it with
    finished: list[int] = []

    def ask(times: int) -> None:
        for _ in range(times):
            answered = threading.Event()
            loop.add_callback(answered.set)
            if not answered.wait(30):
                return
        loop.add_callback(lambda: finished.append(times))

    threads = [threading.Thread(target=ask, args=(3000,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(finished) < 4 and any(thread.is_alive() for thread in threads):
        loop.turn(60)
    for thread in threads:
        thread.join()

    assert [3000] * 4 == finished


def test_a_signal_is_handled_on_the_loop(loop: Loop) -> None:
    heard: list[str] = []
    before = signal.getsignal(signal.SIGUSR1)
    loop.on_signal(signal.SIGUSR1, lambda: heard.append("USR1"))

    os.kill(os.getpid(), signal.SIGUSR1)
    while not heard:
        loop.turn(1.0)

    signal.signal(signal.SIGUSR1, before)
    assert ["USR1"] == heard


def test_what_a_turn_gathers_leaves_at_its_end(loop: Loop) -> None:
    order: list[str] = []
    loop.at_turn_end(lambda: order.append("end"))
    loop.add_callback(lambda: order.append("first"))
    loop.add_callback(lambda: order.append("second"))

    loop.turn(0.0)

    assert ["first", "second", "end"] == order


def test_a_handler_may_remove_another_that_was_ready_in_the_same_turn(loop: Loop) -> None:
    left, right = socket.socketpair(), socket.socketpair()
    read: list[int] = []

    def on_ready(fd: int, _events: int) -> None:
        read.append(fd)
        loop.remove_handler(left[0].fileno())
        loop.remove_handler(right[0].fileno())

    for mine, other in (left, right):
        other.send(b"x")
        loop.add_handler(mine.fileno(), on_ready, Loop.READ)
    loop.turn(1.0)

    assert 1 == len(read)
    for each in (*left, *right):
        each.close()


def test_a_callback_may_turn_the_loop_itself(loop: Loop) -> None:
    ran: list[str] = []

    def outer() -> None:
        ran.append("outer")
        loop.turn(0.0)
        ran.append("back")

    loop.add_callback(outer)
    loop.add_callback(lambda: ran.append("inner"))
    loop.turn(0.0)

    assert ["outer", "inner", "back"] == ran
