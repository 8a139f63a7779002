"""Results as messages on RabbitMQ: to the process that sent the task, and to nobody else."""

import json
import os
import threading
import uuid
from contextlib import suppress
from dataclasses import replace

import pytest

from taskq.backends.base import BackendOptions
from taskq.backends.rpc import RpcBackend
from taskq.broker import open_broker
from taskq.broker.base import BrokerOptions, Route
from taskq.errors import BackendUnavailable, ConfigurationError, PublishRefused
from taskq.loop import Loop
from taskq.testing.backend_contract import Ears, a_failure, a_success
from taskq.wire.message import Message, Properties
from taskq.wire.result import Result
from tests.support.wait import wait_until


class OutletThread:
    """A broker's outlet on a loop of its own thread, which any thread may publish through."""

    def __init__(self, broker):
        self._loop = Loop()
        self._outlet = broker.outlet(self._loop)
        self._thread = threading.Thread(target=self._loop.start, daemon=True)
        self._thread.start()

    def publish(self, message, route, done, **options):
        self._loop.add_callback(lambda: self._outlet.publish(message, route, done, **options))

    def close(self, timeout=5.0):
        self._loop.add_callback(self._loop.stop)
        self._thread.join(timeout)
        self._outlet.close(timeout)
        self._loop.close()

    def send(self, message, route):
        """Publish *message* and wait until the broker has it."""
        answers, answered = [], threading.Event()
        self.publish(message, route, lambda refusal: (answers.append(refusal), answered.set()))
        assert answered.wait(20)
        assert answers == [None]


@pytest.fixture
def open_store(rabbit):
    """Backends with a connection of their own each, as if each were a process."""
    opened = []

    def open_store(url=rabbit.url, **options):
        broker = open_broker(BrokerOptions((url,)))
        outlet = OutletThread(broker)
        backend = RpcBackend(
            BackendOptions("rpc://", **options), broker=broker, outlet=lambda: outlet
        )
        opened.append((backend, outlet, broker))
        # The sender of a task declares the queue of its reply together with the task's own.
        queue = backend.reply_queue()
        outlet.send(Message.of(Properties(), b""), Route("", queue.name, (queue,)))
        return backend

    yield open_store
    for backend, outlet, broker in opened:
        backend.close()
        outlet.close()
        broker.close()


@pytest.fixture
def asker(open_store):
    return open_store()


@pytest.fixture
def worker(open_store):
    return open_store()


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_who_asked_hears_and_fetches_the_result(asker, open_store, serializer):
    results = [a_success({"n": 1}), replace(a_failure(), parent_id="P", group_id="G")]
    worker, ears = open_store(serializer=serializer), Ears(asker)
    for result in results:
        asker.hold(result.task_id)
        ears.listen(result.task_id)

    for result in results:
        worker.store(result, reply_to=asker.reply_queue().name)

    assert [ears.hear(), ears.hear()] == results
    assert [asker.fetch(result.task_id) for result in results] == results


def test_a_result_waits_in_the_queue_until_somebody_asks(asker, worker):
    result = a_success("early")
    asker.hold(result.task_id)
    worker.store(result, reply_to=asker.reply_queue().name)

    ears = Ears(asker)
    ears.listen(result.task_id)

    assert ears.hear() == result


def test_each_state_is_told_and_only_the_last_wakes(asker, worker):
    task_id = str(uuid.uuid4())
    done, progress = a_success("done", task_id), Result(task_id, "PROGRESS", {"done": 1})
    asker.hold(task_id)
    ears = Ears(asker)
    ears.listen(task_id)

    worker.store(Result(task_id, "STARTED"), reply_to=asker.reply_queue().name)
    worker.store(progress, reply_to=asker.reply_queue().name)
    wait_until(lambda: asker.fetch(task_id) == progress, "the progress")
    worker.store(done, reply_to=asker.reply_queue().name)

    assert ears.hear() == done
    assert ears.heard_nothing_more()


def test_success_is_final(asker, worker):
    result, marker = a_success("first"), a_success("marker")
    asker.hold(result.task_id)
    asker.hold(marker.task_id)
    ears = Ears(asker)
    ears.listen(marker.task_id)

    for late in (result, replace(result, state="FAILURE", value={}), marker):
        worker.store(late, reply_to=asker.reply_queue().name)

    assert ears.hear() == marker  # so all before it have arrived
    assert asker.fetch(result.task_id) == result


def test_the_message_is_as_celery_sends_it(asker, worker, rabbit):
    result = a_success(3)

    worker.store(result, reply_to=asker.reply_queue().name)

    (_, (properties, body)) = rabbit.drain(asker.reply_queue().name)
    assert properties.correlation_id == result.task_id
    assert properties.content_type == "application/json"
    assert properties.content_encoding == "utf-8"
    assert properties.delivery_mode == 1
    assert json.loads(body) == {
        "status": "SUCCESS",
        "result": 3,
        "traceback": None,
        "children": None,
        "date_done": result.date_done,
        "task_id": result.task_id,
    }


def test_what_nobody_holds_is_dropped_on_arrival(asker, worker):
    unheld, released, held = a_success("unheld"), a_success("released"), a_success("held")
    for task_id in (released.task_id, released.task_id, held.task_id):
        asker.hold(task_id)
    asker.release(released.task_id)
    asker.release(released.task_id)
    ears = Ears(asker)
    ears.listen(held.task_id)

    for result in (unheld, released, held):
        worker.store(result, reply_to=asker.reply_queue().name)

    assert ears.hear() == held
    asker.hold(unheld.task_id)
    asker.hold(released.task_id)
    assert asker.fetch(unheld.task_id) is None
    assert asker.fetch(released.task_id) is None


def test_a_result_held_twice_stays_when_one_lets_go(asker, worker):
    result = a_success()
    asker.hold(result.task_id)
    asker.hold(result.task_id)
    ears = Ears(asker)
    ears.listen(result.task_id)
    worker.store(result, reply_to=asker.reply_queue().name)
    ears.hear()

    asker.release(result.task_id)

    assert asker.fetch(result.task_id) == result
    asker.forget(result.task_id)
    assert asker.fetch(result.task_id) is None


def test_another_process_may_not_ask(asker, worker):
    result = a_success()
    asker.hold(result.task_id)

    for ask in (worker.fetch, lambda task_id: worker.subscribe(task_id, print)):
        with pytest.raises(ConfigurationError, match="only by the process that sent the task"):
            ask(result.task_id)


def test_a_result_expires(open_store, worker):
    asker, result = open_store(expires=0.3), a_success()
    asker.hold(result.task_id)
    ears = Ears(asker)
    ears.listen(result.task_id)
    worker.store(result, reply_to=asker.reply_queue().name)
    ears.hear()

    wait_until(lambda: asker.fetch(result.task_id) is None, "the result to expire")


def test_without_a_reply_queue_nothing_is_sent(open_store):
    result = a_success()

    def outlet():
        raise AssertionError("nobody asked for this result")

    RpcBackend(BackendOptions("rpc://"), broker=None, outlet=outlet).store(result)


def test_a_queue_that_is_gone_is_no_failure(worker):
    worker.store(a_success(), reply_to="taskq.reply.nobody")


def test_a_refused_publish_is_an_error_that_says_whose(worker):
    result = a_success()

    class Refusing:
        def publish(self, message, route, done, **options):
            done(PublishRefused("the broker said no"))

    backend = RpcBackend(BackendOptions("rpc://"), broker=None, outlet=Refusing)
    with pytest.raises(BackendUnavailable) as told:
        backend.store(result, reply_to="somebody")

    assert f"cannot store the result of task {result.task_id}" in str(told.value)
    assert "the broker said no" in str(told.value)


def test_a_broker_without_a_word_is_an_error(worker):
    class Silent:
        def publish(self, message, route, done, **options):
            pass

    backend = RpcBackend(BackendOptions("rpc://", timeout=0.1), broker=None, outlet=Silent)
    with pytest.raises(BackendUnavailable):
        backend.store(a_success(), reply_to="somebody")


def test_messages_that_are_no_results_are_passed_over(asker, worker, rabbit):
    result, broken = a_success("after"), str(uuid.uuid4())
    asker.hold(result.task_id)
    asker.hold(broken)
    ears = Ears(asker)
    ears.listen(broken)
    ears.listen(result.task_id)
    queue = asker.reply_queue().name

    with rabbit.channel() as channel:
        channel.basic_publish("", queue, b"neither of")
        properties = Properties(content_type="application/json", correlation_id=broken)
        worker._outlet().send(Message.of(properties, b"{broken"), Route("", queue))
    worker.store(result, reply_to=queue)

    assert ears.hear().state == "FAILURE"
    assert ears.hear() == result


def test_replies_are_heard_after_the_broker_was_restarted(own_rabbit, open_store):
    asker, worker = open_store(own_rabbit.url), open_store(own_rabbit.url, timeout=30.0)
    before, after = a_success("before"), a_success("after")
    ears = Ears(asker)
    for result in (before, after):
        asker.hold(result.task_id)
        ears.listen(result.task_id)
    worker.store(before, reply_to=asker.reply_queue().name)
    assert ears.hear() == before

    own_rabbit.node.kill()
    own_rabbit.node.start()
    wait_until(lambda: _stored(worker, after, asker.reply_queue().name), "the broker to be back")

    assert ears.hear() == after


def _stored(worker, result, queue):
    with suppress(BackendUnavailable):
        worker.store(result, reply_to=queue)
        return True
    return False


def test_a_forked_child_has_a_queue_of_its_own(asker, worker):
    result = a_success("parent's")
    asker.hold(result.task_id)
    ears = Ears(asker)
    ears.listen(result.task_id)
    queue = asker.reply_queue().name

    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert asker.reply_queue().name != queue
            with suppress(ConfigurationError):
                asker.fetch(result.task_id)
                raise AssertionError("the child reads its parent's results")
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    worker.store(result, reply_to=queue)

    assert status == 0
    assert ears.hear() == result


def test_closing_twice_ends_the_thread(open_store):
    before = set(threading.enumerate())
    backend = open_store()
    backend.hold("id")
    backend.subscribe("id", print)

    backend.close()
    backend.close()

    assert not [
        thread for thread in set(threading.enumerate()) - before if thread.name == "taskq-results"
    ]
