"""Reading results: the caller gets what a worker stored, and every wait has its bound."""

import asyncio
import gc
import threading
import uuid

import pytest

import taskq
from taskq import AsyncResult, clock, states
from taskq.client.context import Request, running
from taskq.wire.headers import read_headers
from taskq.wire.result import Result, exception_to_wire
from tests.support.site import Site


@pytest.fixture(params=["memory", "sqlite"])
def site(request, tmp_path):
    """Brokers whose results any app can store."""
    urls = {
        "memory": f"memory://{uuid.uuid4().hex}",
        "sqlite": f"sqlite:///{tmp_path}/taskq.db",
    }
    site = Site(urls[request.param])
    yield site
    for app in site.apps:
        app.close()


@pytest.fixture
def app(site):
    return site.app()


def finish(app, task_id, value=None, state=states.SUCCESS, traceback=None):
    """What a worker does when a task is done."""
    app.backend.store(Result(task_id, state, value, traceback, clock.utc().isoformat()))


def fail(app, task_id, error, traceback="Traceback: there"):
    finish(app, task_id, exception_to_wire(error), states.FAILURE, traceback)


def test_a_result_is_waited_for(site, app):
    result = app.send_task("t")
    worker = site.app()
    thread = threading.Thread(target=finish, args=(worker, result.id, [1, {"a": 2}]))

    assert (result.state, result.ready(), result.result) == ("PENDING", False, None)
    assert not result.exists()
    thread.start()
    assert result.get(timeout=30) == [1, {"a": 2}]
    thread.join()
    assert (result.state, result.ready(), result.successful()) == ("SUCCESS", True, True)
    assert result.date_done.utcoffset() is not None
    assert result.result == result.info == [1, {"a": 2}]
    assert result.status == "SUCCESS"


def test_a_result_is_waited_for_in_an_event_loop(site, app):
    async def main():
        results = [await app.asend_task("t") for _ in range(5)]
        waiting = asyncio.gather(*(result.aget(timeout=30) for result in results))
        for number, result in enumerate(results):
            await asyncio.to_thread(finish, app, result.id, number)
        return await waiting, await results[0].aget()

    assert asyncio.run(main()) == ([0, 1, 2, 3, 4], 0)


def test_a_failure_is_raised_as_what_it_was_with_the_workers_traceback(site, app):
    result = app.send_task("t")
    fail(app, result.id, KeyError("k", 5), "Traceback (most recent call last):\n  in worker")

    with pytest.raises(KeyError) as caught:
        result.get(timeout=30)

    assert caught.value.args == ("k", 5)
    assert any("in worker" in note for note in caught.value.__notes__)
    assert result.failed()
    assert "in worker" in result.traceback
    assert isinstance(result.result, KeyError)
    assert isinstance(result.get(propagate=False), KeyError)
    with pytest.raises(KeyError) as again:
        asyncio.run(result.aget())
    assert len(again.value.__notes__) == 1


def test_a_wait_ends_with_taskqs_own_timeout(app):
    result = app.send_task("proj.slow")

    with pytest.raises(taskq.TimeoutError, match=r"no result of proj\.slow\[.*\] within 0\.05 s"):
        result.get(timeout=0.05)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.05, interval=0.01)
    with pytest.raises(taskq.TimeoutError):
        asyncio.run(result.aget(timeout=0.05))
    assert issubclass(taskq.TimeoutError, TimeoutError)


def test_a_result_that_is_there_needs_no_waiting(app):
    result = app.send_task("t")
    finish(app, result.id, 5)

    assert result.get(timeout=0) == 5
    assert app.AsyncResult(result.id).get(timeout=0, interval=0.1) == 5


def test_another_process_reads_it_by_id(site, app):
    result = app.send_task("t")
    finish(app, result.id, 5)

    other = site.app().AsyncResult(result.id)
    assert other.get(timeout=30) == 5
    assert other == result
    assert len({other, result}) == 1


def test_a_final_result_is_not_asked_for_again(app):
    result = app.send_task("t")
    finish(app, result.id, 5)
    assert result.ready()
    app.backend.forget(result.id)

    assert result.get(timeout=0) == 5


def test_what_is_forgotten_is_gone(app):
    result = app.send_task("t")
    finish(app, result.id, 5)
    assert result.get(timeout=30) == 5
    result.forget()

    assert not result.exists()
    assert result.state == "PENDING"


def test_a_task_can_say_how_far_it_is(app):
    @app.task(name="t", bind=True)
    def work(self):
        self.update_state(state="PROGRESS", meta={"done": 3})

    result = work.delay()
    with running(Request(task="t", id=result.id, called_directly=False)):
        work.invoke((), {})

    assert (result.state, result.info, result.ready()) == ("PROGRESS", {"done": 3}, False)
    with pytest.raises(ValueError, match="needs a state"):
        work.update_state(state="PROGRESS")


def test_a_task_may_not_wait_for_a_task_unless_it_insists(app):
    result = app.send_task("t")
    finish(app, result.id, 5)

    with running(Request(task="waiter", id="w", called_directly=False)):
        with pytest.raises(RuntimeError, match=r"task waiter\[w\] waits for the result of t\["):
            result.get(timeout=30)
        with pytest.raises(RuntimeError):
            asyncio.run(result.aget(timeout=30))
        assert result.get(timeout=30, disable_sync_subtasks=False) == 5
        assert result.get(timeout=30) == 5


def test_an_eager_result_can_be_stored_as_well(site, app):
    app.conf.update(task_always_eager=True, task_store_eager_result=True)

    @app.task(name="t")
    def work(x):
        return 2 * x

    result = work.delay(4)

    assert site.app().AsyncResult(result.id).get(timeout=30) == 8


def test_a_task_knows_the_type_of_its_results(app):
    @app.task
    def work() -> int:
        return 1

    assert work.AsyncResult("i") == AsyncResult("i", app)


# -- replies over the broker -----------------------------------------------------------------------


@pytest.fixture
def caller(rabbit):
    site = Site(rabbit.url)
    yield site.app()
    for app in site.apps:
        app.close()


def test_a_reply_comes_to_the_process_that_asked(rabbit, caller):
    result = caller.send_task("t")
    (message,) = Site(rabbit.url).take("default", 1)
    worker = Site(rabbit.url).app()
    try:
        reply_to = message.properties.reply_to
        worker.backend.store(
            Result(result.id, states.SUCCESS, 5, None, clock.utc().isoformat()), reply_to=reply_to
        )

        assert result.get(timeout=30) == 5
    finally:
        worker.close()


def test_who_wants_no_result_asks_for_no_reply(rabbit, caller):
    caller.send_task("t", ignore_result=True)
    (message,) = Site(rabbit.url).take("default", 1)

    assert message.properties.reply_to is None
    assert read_headers(message).ignore_result is True


def test_a_reply_is_kept_as_long_as_somebody_holds_the_result(rabbit, caller):
    result = caller.send_task("t")
    task_id = result.id
    assert result.state == "PENDING"
    del result
    gc.collect()

    with pytest.raises(taskq.TaskqError):
        caller.AsyncResult(task_id).get(timeout=5)
