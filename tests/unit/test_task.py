"""Tasks without a broker: their names and options, arguments, running in place, retries."""

import asyncio
import sys
import threading
from dataclasses import replace

import pytest
from pydantic import BaseModel

from taskq import (
    Ignore,
    InvalidArguments,
    MaxRetriesExceededError,
    Reject,
    Retry,
    Task,
    hooks,
)
from taskq.client.context import Request, current_request, running
from taskq.errors import ConfigurationError
from taskq.testing import eager_app, memory_app


@pytest.fixture
def app():
    with memory_app() as app:
        yield app


# -- options ---------------------------------------------------------------------------------------


def test_options_are_the_authors_or_else_the_settings(app):
    @app.task(acks_late=False, time_limit=7)
    def own():
        pass

    @app.task
    def plain():
        pass

    app.conf.task_acks_late = True
    app.conf.task_time_limit = 60
    app.conf.task_ignore_result = True

    assert (own.acks_late, own.time_limit, own.ignore_result) == (False, 7, True)
    assert (plain.acks_late, plain.time_limit) == (True, 60)


def test_none_leaves_an_option_to_the_settings(app):
    @app.task(acks_late=None, serializer=None, max_retries=None)
    def work():
        pass

    assert (work.acks_late, work.serializer, work.max_retries) == (True, "json", None)


def test_options_of_a_base_class_are_the_tasks(app):
    class Patient(Task):
        max_retries = 9
        queue = "slow"
        acks_late = False

    @app.task(base=Patient, max_retries=5)
    def work():
        pass

    assert isinstance(work, Patient)
    assert (work.max_retries, work.queue, work.acks_late) == (5, "slow", False)
    assert work.call_options["queue"] == "slow"


def test_an_unknown_option_names_the_one_that_was_meant(app):
    with pytest.raises(TypeError, match="'acks_latte'; did you mean 'acks_late'"):

        @app.task(acks_latte=True)
        def work():
            pass


def test_a_rate_limit_that_is_none_is_refused_where_it_is_written(app):
    with pytest.raises(ValueError, match="'5/d'"):

        @app.task(rate_limit="5/d")
        def work():
            pass

    with pytest.raises(ConfigurationError, match="5/d"):
        app.conf.task_default_rate_limit = "5/d"


def test_a_task_has_the_rate_limit_of_the_settings_until_it_has_its_own(app):
    @app.task
    def plain():
        pass

    @app.task(rate_limit=0)
    def free():
        pass

    app.conf.task_default_rate_limit = "10/s"

    assert (plain.rate_limit, free.rate_limit) == ("10/s", 0)


def test_a_task_is_its_function_when_called(app):
    @app.task
    def add(x, y=1):
        """Add."""
        return x + y

    assert add(2) == 3
    assert add.__doc__ == "Add."
    assert add.name == f"{__name__}.add"
    assert add.__wrapped__(1, 1) == 2


def test_a_class_with_run_is_a_task(app):
    class Double(Task):
        name = "double"

        def run(self, x):
            return (self.request.id is not None, 2 * x)

    task = app.register_task(Double)

    assert app.registry["double"] is task
    assert task.apply((4,)).get() == (True, 8)
    with pytest.raises(TypeError, match="no method `run`"):
        app.register_task(Task)


# -- arguments -------------------------------------------------------------------------------------


def test_arguments_are_checked_before_anything_is_sent(app):
    @app.task(name="proj.add")
    def add(x, y, *, z=0):
        pass

    for args, kwargs in [((1,), {}), ((1, 2, 3), {}), ((1, 2), {"w": 1}), ((1,), {"x": 1})]:
        with pytest.raises(TypeError, match=r"^proj\.add\(x, y, \*, z=0\): "):
            add.delay(*args, **kwargs)


def test_a_bound_tasks_own_argument_is_not_the_callers(app):
    @app.task(bind=True)
    def who(self, x):
        return self.name, x

    assert who.apply((1,)).get() == (who.name, 1)
    assert who(1) == (who.name, 1)
    with pytest.raises(TypeError):
        who.delay(who, 1)


def test_the_check_can_be_turned_off(app):
    @app.task(typing=False)
    def add(x, y):
        pass

    add.check((), {})


# -- running in place ------------------------------------------------------------------------------


def test_apply_runs_here_and_has_a_result(app):
    @app.task
    def add(x, y):
        return x + y

    result = add.apply((2, 3))

    assert (result.get(), result.state, result.result, result.ready()) == (5, "SUCCESS", 5, True)
    assert result.successful()
    assert not result.failed()
    assert result.date_done is not None


def test_a_failure_is_kept_or_raised(app):
    @app.task
    def fail():
        raise KeyError("k")

    result = fail.apply()

    assert (result.state, result.failed()) == ("FAILURE", True)
    assert "in fail" in result.traceback
    assert isinstance(result.get(propagate=False), KeyError)
    with pytest.raises(KeyError):
        result.get()
    with pytest.raises(KeyError):
        fail.apply(throw=True)


def test_the_request_of_a_run_says_what_runs(app):
    seen = []

    @app.task(bind=True)
    def look(self, x, y=None):
        seen.append(self.request)
        assert current_request() is self.request

    look.apply((1,), {"y": 2}, headers={"trace": "t1"}, priority=3)

    (request,) = seen
    assert request.args == (1,)
    assert request.kwargs == {"y": 2}
    assert request.headers == {"trace": "t1"}
    assert request.delivery_info["priority"] == 3
    assert (request.is_eager, request.called_directly) == (True, False)
    assert request.root_id == request.id
    assert current_request() is None


def test_a_task_in_a_task_knows_its_parent(app):
    seen = {}

    @app.task(bind=True)
    def inner(self):
        seen["inner"] = self.request

    @app.task(bind=True)
    def outer(self):
        inner.apply()
        seen["outer"] = self.request

    outer.apply()

    assert seen["inner"].parent_id == seen["outer"].id
    assert seen["inner"].root_id == seen["outer"].id
    assert seen["outer"].parent_id is None


def test_a_task_in_a_workers_task_may_run_in_place(app):
    @app.task
    def inner():
        return 5

    with running(Request(task="outer", id="o", called_directly=False)):
        assert inner.apply(throw=True).get() == 5


def test_a_direct_call_is_no_run(app):
    @app.task(bind=True)
    def look(self):
        return self.request.called_directly, self.request.id

    assert look() == (True, None)


def test_a_coroutine_runs_to_its_end(app):
    @app.task(bind=True)
    async def work(self, x):
        await asyncio.sleep(0)
        return self.request.id, x

    result = work.apply((3,))

    assert result.get() == (result.id, 3)


def test_a_coroutine_runs_to_its_end_inside_somebodys_event_loop(app):
    @app.task
    async def work():
        await asyncio.sleep(0)
        return threading.current_thread().name

    async def main():
        return work.apply().get()

    assert asyncio.run(main()) != threading.current_thread().name


def test_a_runner_is_used_if_there_is_one(app):
    @app.task
    async def which():
        return asyncio.get_running_loop()

    with asyncio.Runner() as runner:
        assert which.invoke((), {}, runner=runner) is runner.get_loop()


def test_ignore_and_reject_end_a_run_without_result(app):
    @app.task
    def ignore():
        raise Ignore

    @app.task
    def reject():
        raise Reject("bad")

    assert ignore.apply().state == "IGNORED"
    assert ignore.apply().get() is None
    assert reject.apply().state == "REJECTED"


def test_always_eager_runs_instead_of_sending():
    app = eager_app()

    @app.task
    def add(x, y):
        return x + y

    assert add.delay(1, 2).get() == 3
    assert add.apply_async((1,), {"y": 5}).get() == 6
    assert asyncio.run(add.adelay(1, 1)).get() == 2
    assert [result.get() for result in app.send_many([add.s(1, 1), add.s(2, 2)])] == [2, 4]


def test_an_eager_app_raises_where_the_task_is_called():
    app = eager_app()

    @app.task
    def fail():
        raise LookupError

    with pytest.raises(LookupError):
        fail.delay()


# -- retries ---------------------------------------------------------------------------------------


def test_a_task_is_tried_again_until_it_succeeds(app):
    tries = []

    @app.task(bind=True, max_retries=5)
    def flaky(self, x):
        tries.append((self.request.retries, self.request.id, x))
        if len(tries) < 3:
            raise self.retry(countdown=60)
        return "done"

    result = flaky.apply((7,))

    assert result.get() == "done"
    assert tries == [(0, result.id, 7), (1, result.id, 7), (2, result.id, 7)]


def test_retries_run_out_with_an_error_of_their_own(app):
    @app.task(bind=True, max_retries=2, name="t")
    def flaky(self):
        raise self.retry()

    result = flaky.apply()

    assert result.failed()
    with pytest.raises(MaxRetriesExceededError, match=rf"t\[{result.id}\] was tried 3 times"):
        result.get()


def test_retries_run_out_with_the_exception_that_was_given(app):
    @app.task(bind=True, max_retries=1)
    def flaky(self):
        try:
            raise ZeroDivisionError("really")
        except ZeroDivisionError as error:
            raise self.retry(exc=error)

    with pytest.raises(ZeroDivisionError, match="really"):
        flaky.apply().get()


def test_a_retry_may_change_the_arguments(app):
    @app.task(bind=True)
    def shrink(self, n):
        if n > 3:
            raise self.retry(args=(n - 1,))
        return n, self.request.retries

    assert shrink.apply((5,)).get() == (3, 2)


def test_no_limit_means_no_limit(app):
    @app.task(bind=True, max_retries=None)
    def stubborn(self):
        if self.request.retries < 50:
            raise self.retry()
        return self.request.retries

    assert stubborn.apply().get() == 50


def test_the_call_to_retry_may_set_the_limit(app):
    @app.task(bind=True, max_retries=None)
    def work(self):
        raise self.retry(max_retries=1)

    with pytest.raises(MaxRetriesExceededError):
        work.apply().get()


def _asked(task, *args, **request):
    """The Retry that a run of *task* asks for."""
    first = Request(task=task.name, id="i", args=args, called_directly=False)
    with running(replace(first, **request)), pytest.raises(Retry) as caught:
        task.invoke(args, {})
    return caught.value


def test_delays_come_from_the_call_or_the_options(app):
    @app.task(bind=True, default_retry_delay=11)
    def work(self, **how):
        raise self.retry(**how)

    assert _asked(work).when == 11

    @app.task(bind=True)
    def sooner(self):
        raise self.retry(countdown=0)

    assert _asked(sooner).when == 0


def test_autoretry_asks_again_for_the_exceptions_it_names(app):
    @app.task(autoretry_for=(OSError,), retry_backoff=2, retry_jitter=False, max_retries=3)
    def fetch():
        raise ConnectionError("gone")

    retry = _asked(fetch, retries=2)

    assert isinstance(retry.exc, ConnectionError)
    assert retry.when == 8


def test_autoretry_ends_with_the_exception_itself(app):
    tries = []

    @app.task(autoretry_for=(OSError,), max_retries=2)
    def fetch():
        tries.append(1)
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        fetch.apply().get()
    assert len(tries) == 3


def test_autoretry_leaves_other_exceptions_and_exceptions_to_it_alone(app):
    @app.task(autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,))
    def work(kind):
        raise kind

    for kind in (ValueError, FileNotFoundError):
        with pytest.raises(kind):
            work.invoke((kind,), {})


@pytest.mark.parametrize(
    "wrong", [{"retry_when": "soon"}, {"autoretry_for": OSError}, {"dont_autoretry_for": ["x"]}]
)
def test_what_says_nothing_of_retries_is_refused_where_the_task_is_defined(app, wrong):
    (option,) = wrong

    with pytest.raises(TypeError, match=f"^{option} is "):

        @app.task(**wrong)
        def work():
            pass


def test_a_function_of_the_tasks_says_when_it_is_tried_again(app):
    def when(error, attempt):
        return 4.0 * attempt if isinstance(error, OSError) else None

    @app.task(retry_when=when, retry_backoff=100)
    def fetch(error):
        raise error

    assert _asked(fetch, OSError("gone"), retries=1).when == 8
    with pytest.raises(LookupError):
        fetch.apply((LookupError(),)).get()


def test_a_retry_raised_by_hand_is_one_of_those_there_are(app):
    tries = []

    @app.task(max_retries=2, default_retry_delay=11)
    def work(when=None):
        tries.append(when)
        raise Retry("not yet", when=when)

    assert _asked(work).when == 11
    assert _asked(work, 5).when == 5
    tries.clear()
    with pytest.raises(MaxRetriesExceededError):
        work.apply().get()
    assert len(tries) == 3


def test_retries_that_ran_out_inside_are_not_begun_anew(app):
    tries = []

    @app.task(bind=True, autoretry_for=(Exception,), max_retries=None)
    def work(self):
        tries.append(1)
        raise self.retry(max_retries=1)

    with pytest.raises(MaxRetriesExceededError):
        work.apply().get()
    assert len(tries) == 2


def test_a_direct_call_cannot_be_retried(app):
    @app.task(bind=True)
    def work(self, exc):
        raise self.retry(exc=exc)

    with pytest.raises(LookupError):
        work(LookupError())
    with pytest.raises(Retry, match="called directly"):
        work(None)


# -- who is told -----------------------------------------------------------------------------------


def test_a_base_class_is_told_how_each_run_ended(app):
    told = []

    class Told(Task):
        def on_success(self, retval, task_id, args, kwargs):
            told.append(("success", retval, args))

        def on_failure(self, exc, task_id, args, kwargs, einfo):
            told.append(("failure", repr(exc), "Traceback" in einfo))

        def on_retry(self, exc, task_id, args, kwargs, einfo):
            told.append(("retry", repr(exc)))

        def after_return(self, status, retval, task_id, args, kwargs, einfo):
            told.append(("after", status))

    @app.task(base=Told, bind=True, max_retries=1)
    def work(self, how):
        if how == "ok":
            return 1
        if how == "retry":
            raise self.retry(exc=OSError())
        raise ValueError

    work.apply(("ok",))
    work.apply(("fail",))
    work.apply(("retry",))

    assert told == [
        ("success", 1, ("ok",)),
        ("after", "SUCCESS"),
        ("failure", "ValueError()", True),
        ("after", "FAILURE"),
        ("retry", "OSError()"),
        ("after", "RETRY"),
        ("failure", "OSError()", True),
        ("after", "FAILURE"),
    ]


def test_hooks_hear_of_a_run(app):
    heard = []

    def listen(name):
        def handler(*, task, task_id, **fields):
            heard.append((name, task.name, task_id, fields))

        return handler

    names = ["task_prerun", "task_success", "task_failure", "task_retry", "task_postrun"]
    handlers = {name: listen(name) for name in names}
    for name, handler in handlers.items():
        getattr(hooks, name)(handler)
    try:

        @app.task(name="t")
        def work():
            return 5

        result = work.apply()
    finally:
        for name, handler in handlers.items():
            getattr(hooks, name).disconnect(handler)

    assert [each[0] for each in heard] == ["task_prerun", "task_success", "task_postrun"]
    assert {each[1:3] for each in heard} == {("t", result.id)}
    assert heard[1][3]["result"] == 5
    assert heard[2][3]["state"] == "SUCCESS"


def test_what_is_told_cannot_change_how_a_run_ended(app, caplog):
    class Broken(Task):
        def on_success(self, *_):
            raise RuntimeError("in on_success")

    @app.task(base=Broken)
    def work():
        return 1

    assert work.apply().get() == 1
    assert "in on_success" in caplog.text


# -- pydantic --------------------------------------------------------------------------------------


class Line(BaseModel):
    price: float


class Order(BaseModel):
    id: int
    lines: list[Line] = []


class Receipt(BaseModel):
    total: float


@pytest.fixture
def pay(app):
    @app.task(pydantic=True, name="pay", bind=True, autoretry_for=(Exception,))
    def pay(self, order: Order, rate: float = 1.0) -> Receipt:
        assert isinstance(order, Order)
        return Receipt(total=rate * sum(line.price for line in order.lines))

    return pay


def test_arguments_and_result_are_converted_by_their_annotations(pay):
    order = {"id": "5", "lines": [{"price": "2.5"}]}

    assert pay.apply((order,), {"rate": "2"}).get() == {"total": 5.0}


def test_a_model_may_be_passed_as_it_is(pay):
    assert pay.apply((Order(id=1, lines=[Line(price=3)]),)).get() == {"total": 3.0}
    assert pay.outgoing((Order(id=1),), {"k": [Line(price=3)]}) == (
        [{"id": 1, "lines": []}],
        {"k": [{"price": 3.0}]},
    )


def test_arguments_are_plain_data_where_nobody_imported_pydantic(pay, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic.main", None)

    assert pay.outgoing(({"id": 1},), {"k": ("a", (2,))}) == ([{"id": 1}], {"k": ["a", [2]]})


def test_arguments_that_do_not_fit_name_the_field_and_are_not_retried(pay):
    result = pay.apply(({"id": 1, "lines": [{"price": "much"}]},))

    with pytest.raises(InvalidArguments, match=r"pay .*: order\.lines\.0\.price: .*number"):
        result.get()
    with pytest.raises(InvalidArguments, match=r"order\.id"):
        pay.apply((), {"order": {"id": "x"}}).get()


def test_a_result_that_does_not_fit_fails_and_is_not_retried(app):
    runs = []

    @app.task(pydantic=True, name="t", autoretry_for=(Exception,))
    def wrong(x: int) -> list[int]:
        runs.append(1)
        return {"no": "list"}

    with pytest.raises(InvalidArguments, match="the result of t"):
        wrong.apply((1,)).get()
    assert len(runs) == 1


def test_a_validation_error_in_the_function_itself_is_its_own(app):
    @app.task(pydantic=True)
    def work(x: int):
        Line(price="much")

    assert not isinstance(work.apply((1,)).result, InvalidArguments)


def test_a_coroutine_with_pydantic_is_validated_too(app):
    @app.task(pydantic=True)
    async def work(x: int) -> Receipt:
        return {"total": x}

    assert work.apply(("4",)).get() == {"total": 4.0}
