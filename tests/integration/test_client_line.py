"""One connection for all threads: turned by whoever waits, and by its keeper for everybody else."""

import asyncio
import signal
import threading

import pytest

from taskq import PublishUnconfirmed, TaskQ
from tests.support.wait import wait_until


@pytest.fixture
def app(rabbit_through_proxy):
    app = TaskQ("producer", broker=rabbit_through_proxy.url, result_backend="disabled://")
    app.send_task("t", ("before",))
    yield app
    app.close()


def test_a_connection_that_is_lost_while_nobody_calls_is_mended(app, rabbit_through_proxy):
    taken = rabbit_through_proxy.taken

    rabbit_through_proxy.drop()

    wait_until(lambda: rabbit_through_proxy.taken > taken, "another connection")


def test_who_waits_and_who_does_not_are_answered_side_by_side(app):
    async def send_in_turn():
        for number in range(50):
            await app.asend_task("t", (number,))

    def send_each():
        for number in range(50):
            app.send_task("t", (number,))

    threads = [threading.Thread(target=send_each) for _ in range(4)]
    threads.append(threading.Thread(target=lambda: asyncio.run(send_in_turn())))
    for thread in threads:
        thread.start()
    send_each()
    for thread in threads:
        thread.join()

    assert app.broker.count("default") == 1 + 6 * 50


def test_a_signal_that_raises_while_a_call_waits_leaves_nobody_waiting(app, rabbit_through_proxy):
    class Alarm(Exception):
        pass

    def ring(_number, _frame):
        raise Alarm

    answers = []

    def call():
        try:
            app.send_task("t", ("other",))
        except PublishUnconfirmed as error:
            answers.append(error)

    other = threading.Thread(target=call)
    before = signal.signal(signal.SIGALRM, ring)
    rabbit_through_proxy.stall()
    try:
        with pytest.raises(Alarm):
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            other.start()
            app.send_task("t", ("main",))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        rabbit_through_proxy.resume()
    other.join()
    app.send_task("t", ("after",))

    assert app.broker.count("default") in (2, 3, 4)
