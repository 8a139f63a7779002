"""Results in Redis: readable by Celery, and true to their word while the server comes and goes."""

import json
import os
import signal
import uuid
import zlib
from dataclasses import replace

import pytest
import redis

from taskq import states
from taskq.backends.base import BackendOptions
from taskq.backends.redis import RedisBackend
from taskq.errors import BackendUnavailable, ConfigurationError
from taskq.testing.backend_contract import Ears, a_failure, a_success
from taskq.wire.result import Result
from tests.support.wait import wait_until


@pytest.fixture
def client(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def open_store(redis_server):
    opened = []

    def open_store(url=redis_server.url, **options):
        opened.append(RedisBackend(BackendOptions(url, **options)))
        return opened[-1]

    yield open_store
    for backend in opened:
        backend.close()


# -- Celery's form -------------------------------------------------------------------------------


def test_celery_finds_the_result_under_its_key(open_store, client):
    failure = replace(a_failure(), parent_id="P", group_id="G")

    open_store(expires=600).store(failure)

    key = f"celery-task-meta-{failure.task_id}"
    assert json.loads(client.get(key)) == {
        "status": "FAILURE",
        "result": {"exc_type": "ValueError", "exc_message": ["bad", 1], "exc_module": "builtins"},
        "traceback": failure.traceback,
        "children": [[["child", None], None]],
        "date_done": failure.date_done,
        "task_id": failure.task_id,
        "parent_id": "P",
        "group_id": "G",
    }
    assert 0 < client.ttl(key) <= 600


def test_celery_is_told_on_the_channel_of_the_key(open_store, client):
    result = a_success(3)
    key = f"celery-task-meta-{result.task_id}"
    with client.pubsub() as channel:
        channel.subscribe(key)
        assert channel.get_message(timeout=10)["type"] == "subscribe"

        open_store().store(result)

        told = channel.get_message(timeout=10)
    assert told["type"] == "message"
    assert told["channel"] == key.encode()
    assert told["data"] == client.get(key)


def test_what_celery_stored_is_heard_and_read(open_store, client):
    backend, task_id = open_store(), str(uuid.uuid4())
    key = f"celery-task-meta-{task_id}"
    by_celery = (
        '{"status": "SUCCESS", "result": 3, "traceback": null, "children": [], '
        f'"date_done": "2026-11-22T03:10:43.583645+00:00", "task_id": "{task_id}"}}'
    )
    ears = Ears(backend)
    ears.listen(task_id)

    with client.pipeline() as transaction:
        transaction.execute_command("SETEX", key, 60, by_celery)
        transaction.publish(key, by_celery)
        transaction.execute()

    expected = Result(
        task_id, "SUCCESS", 3, date_done="2026-11-22T03:10:43.583645+00:00", children=[]
    )
    assert ears.hear() == expected
    assert backend.fetch(task_id) == expected


def test_results_that_celery_compressed_are_read_and_final(open_store, client):
    backend, result = open_store(), a_success("x" * 1000)
    backend.store(result)
    key = f"celery-task-meta-{result.task_id}"
    packed = zlib.compress(client.get(key))
    client.set(key, b"\0celery-compressed\0application/x-gzip\0" + packed)

    backend.store(replace(result, state="FAILURE", value=None))

    assert backend.fetch(result.task_id) == result


@pytest.mark.parametrize(
    ("given", "prefix"), [("tenant", "tenant_"), ("tenant:", "tenant:"), ("a-", "a-")]
)
def test_the_global_prefix_stands_before_the_key(open_store, client, given, prefix):
    backend, result = open_store(extra={"global_keyprefix": given}), a_success(1)
    ears = Ears(backend)
    ears.listen(result.task_id)

    backend.store(result)

    assert client.exists(f"{prefix}celery-task-meta-{result.task_id}")
    assert ears.hear() == result


def test_results_are_kept_for_ever_without_expires(open_store, client):
    result = a_success()

    open_store(expires=None).store(result)

    assert client.ttl(f"celery-task-meta-{result.task_id}") == -1


def test_whoever_waits_for_what_cannot_be_read_is_told(open_store, client):
    backend, task_id = open_store(), str(uuid.uuid4())
    key = f"celery-task-meta-{task_id}"
    ears = Ears(backend)
    ears.listen(task_id)
    wait_until(lambda: client.pubsub_numsub(key)[0][1], "the subscription")

    client.publish(key, b"\x80\x04not ours")

    assert ears.hear().state == states.FAILURE


def test_channels_are_left_when_nobody_waits(open_store, client):
    backend, heard, given_up = open_store(), a_success(), a_success()
    ears = Ears(backend)
    ears.listen(heard.task_id)
    end = ears.listen(given_up.task_id)
    keys = [f"celery-task-meta-{result.task_id}" for result in (heard, given_up)]
    wait_until(lambda: all(n for _, n in client.pubsub_numsub(*keys)), "two subscriptions")

    backend.store(heard)
    ears.hear()
    end()

    wait_until(lambda: not any(n for _, n in client.pubsub_numsub(*keys)), "both to be left")


# -- a server that comes and goes ----------------------------------------------------------------


def test_a_pipeline_stores_all_although_redis_was_restarted(own_redis, open_store):
    backend = open_store(own_redis.url)
    pipeline, results = backend.pipeline(), [a_success(number) for number in range(9)]
    pipeline.store(results[0])
    pipeline.settle()

    for result in results[1:4]:
        pipeline.store(result)
    own_redis.kill()
    own_redis.start()
    for result in results[4:6]:  # the first of them finds out
        pipeline.store(result)
    pipeline.settle()
    for result in results[6:]:
        pipeline.store(result)
    pipeline.settle()

    assert results[1:] == [backend.fetch(result.task_id) for result in results[1:]]


def test_a_pipeline_says_that_redis_is_away_when_it_is_settled(own_redis, open_store):
    backend = open_store(own_redis.url, timeout=1.0)
    pipeline, result = backend.pipeline(), a_success("away")
    own_redis.stop()

    pipeline.store(result)
    with pytest.raises(BackendUnavailable, match=result.task_id):
        pipeline.settle()
    own_redis.start()
    pipeline.store(result)
    pipeline.settle()

    assert result == backend.fetch(result.task_id)


def test_a_subscriber_hears_although_redis_was_restarted(own_redis, open_store):
    backend, result = open_store(own_redis.url), a_success("after")
    ears = Ears(backend)
    ears.listen(result.task_id)

    own_redis.kill()
    own_redis.start()
    open_store(own_redis.url).store(result)

    assert ears.hear() == result


def test_a_result_stored_while_the_listener_was_cut_off_is_heard(own_redis, open_store):
    backend, result = open_store(own_redis.url), a_success("meanwhile")
    ears = Ears(backend)
    ears.listen(result.task_id)
    key = f"celery-task-meta-{result.task_id}"
    with redis.Redis.from_url(own_redis.url) as client:
        wait_until(lambda: client.pubsub_numsub(key)[0][1], "the subscription")

        # One transaction: the listener has no chance to be back before the result is there.
        with client.pipeline() as transaction:
            transaction.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            transaction.set(key, json.dumps({"status": "SUCCESS", "task_id": result.task_id}))
            transaction.execute()

    assert ears.hear().state == states.SUCCESS


def test_an_absent_redis_is_an_error_that_says_what_and_where(own_redis, open_store):
    backend, result = open_store(own_redis.url), a_success()
    backend.store(result)
    own_redis.stop()

    for ask in (backend.fetch, backend.forget, lambda task_id: backend.subscribe(task_id, print)):
        with pytest.raises(BackendUnavailable) as told:
            ask(result.task_id)
    with pytest.raises(BackendUnavailable) as told:
        backend.store(result)

    assert f"cannot store the result of task {result.task_id}" in str(told.value)
    assert f"redis://:***@127.0.0.1:{own_redis.port}/0" in str(told.value)
    assert own_redis.password not in str(told.value)
    own_redis.start()
    assert backend.fetch(result.task_id) == result


def test_a_redis_that_hangs_is_an_error(own_redis, open_store):
    backend, result = open_store(own_redis.url, timeout=0.2), a_success()
    backend.store(result)
    os.kill(own_redis.pid, signal.SIGSTOP)

    with pytest.raises(BackendUnavailable):
        backend.fetch(result.task_id)

    os.kill(own_redis.pid, signal.SIGCONT)
    wait_until(lambda: _works(backend, result), "redis to answer again")


def _works(backend, result):
    try:
        return backend.fetch(result.task_id) == result
    except BackendUnavailable:
        return False


def test_a_wrong_password_is_an_error_without_it(own_redis, open_store):
    backend = open_store(own_redis.url.replace(own_redis.password, "guessed"))

    with pytest.raises(BackendUnavailable) as told:
        backend.fetch("id")

    assert "guessed" not in str(told.value)


def test_a_password_in_the_query_is_not_shown():
    backend = RedisBackend(BackendOptions("redis://127.0.0.1:1/0?password=hidden", timeout=0.5))

    with pytest.raises(BackendUnavailable) as told:
        backend.fetch("id")

    assert "hidden" not in str(told.value)


def test_a_url_that_makes_no_sense_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="result_backend"):
        RedisBackend(BackendOptions("redis://localhost/0?socket_timeout=soon"))


def test_an_unready_state_may_follow_another_quickly(open_store):
    """Each store finds the value of the one before, which it then may replace."""
    backend, task_id = open_store(), str(uuid.uuid4())

    for number in range(50):
        backend.store(Result(task_id, "PROGRESS", {"done": number}))

    assert backend.fetch(task_id) == Result(task_id, "PROGRESS", {"done": 49})
