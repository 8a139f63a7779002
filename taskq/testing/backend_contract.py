"""The contract of `taskq.backends.base` as tests, for every store: ours and those of third parties.

Subclass BackendContract in a pytest module and say how the store is opened::

    class TestMyStore(BackendContract):
        @pytest.fixture
        def open_store(self):
            return lambda **options: MyStore(BackendOptions("my://host", **options))

What a store cannot do by its nature it names, with the reason, in `cannot`; those tests are
skipped, where everybody can see it.
"""

import os
import sys
import threading
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from queue import Empty, Queue
from typing import Any, ClassVar, NoReturn

import pytest

from taskq import clock, states
from taskq.backends.base import Backend
from taskq.testing import wait_until
from taskq.wire.result import Result, exception_to_wire

#: Opens one more Backend on the same store; takes the fields of BackendOptions to change.
OpenStore = Callable[..., Backend]

#: How long anything may take before a test fails, in seconds.
_BOUND = 20.0

_VALUES: dict[str, Any] = {
    "none": None,
    "boolean": True,
    "integer": -(2**53),
    "float": 0.1,
    "text": "naïve \N{SNOWMAN} \N{PILE OF POO} \0 end",
    "list": [1, [2, [3, []]]],
    "mapping": {"a": {"b": [None, False]}, "status": "SUCCESS", "": 0},
    "bytes": b"\0\xff\x80",
    "datetime": datetime(2031, 2, 3, 4, 5, 6, 789, tzinfo=timezone(timedelta(hours=2))),
    "date": date(2031, 2, 3),
    "time": time(4, 5, 6),
    "decimal": Decimal("1.10"),
    "uuid": uuid.UUID(int=5),
    "set": {1, 2},
}

_ODD_IDS = (
    "with space",
    "ünïcödé-\N{SNOWMAN}",
    "quote'\"`",
    "percent%s%(x)s",
    "colon:slash/back\\slash",
    "{braces}[brackets]*?",
    "semi;drop table result;--",
    "x" * 150,
)


def a_success(value: Any = None, task_id: str | None = None) -> Result:
    """A success as a worker would store it now."""
    return Result(
        task_id or str(uuid.uuid4()), states.SUCCESS, value, date_done=clock.utc().isoformat()
    )


def a_failure(task_id: str | None = None) -> Result:
    """A failure as a worker would store it now."""
    try:
        _fail()
    except ValueError as error:
        return Result(
            task_id or str(uuid.uuid4()),
            states.FAILURE,
            exception_to_wire(error),
            traceback=traceback.format_exc(),
            date_done=clock.utc().isoformat(),
            children=[[["child", None], None]],
        )


def _fail() -> NoReturn:
    raise ValueError("bad", 1)


class Ears:
    """Subscribes to results and collects what is heard."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._heard: Queue[Result] = Queue()

    def listen(self, task_id: str, *, fresh: bool = False) -> Callable[[], None]:
        """Subscribe to *task_id*; returns what ends it."""
        return self._backend.subscribe(task_id, self._heard.put, fresh=fresh)

    def hear(self) -> Result:
        """The next result; AssertionError if none comes."""
        try:
            return self._heard.get(timeout=_BOUND)
        except Empty:
            raise AssertionError("the subscriber heard nothing") from None

    def heard_nothing_more(self) -> bool:
        """Whether all that was heard has been looked at."""
        return self._heard.empty()


class BackendContract:
    """What every store must do; see the module for how to use it."""

    #: Test -> why this store cannot pass it.
    cannot: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """How to open the store; each call makes a Backend of its own."""
        raise NotImplementedError(f"{type(self).__name__} must define the fixture open_store")

    @pytest.fixture(autouse=True)
    def _skip_what_it_cannot(self, request: pytest.FixtureRequest) -> None:
        unknown = [name for name in self.cannot if not hasattr(self, name)]
        assert not unknown, f"{type(self).__name__}.cannot names no test: {unknown}"
        name = request.function.__name__
        if name in self.cannot:
            pytest.skip(self.cannot[name])

    @pytest.fixture
    def backend(self, open_store: OpenStore) -> Iterator[Backend]:
        """The store as the process sees it that runs tasks."""
        backend = open_store()
        yield backend
        backend.close()

    @pytest.fixture
    def other(self, open_store: OpenStore) -> Iterator[Backend]:
        """The same store as another process sees it."""
        backend = open_store()
        yield backend
        backend.close()

    # -- store and fetch ---------------------------------------------------------------------

    @pytest.mark.parametrize("serializer", ["json", "msgpack"])
    @pytest.mark.parametrize("kind", _VALUES)
    def test_a_success_is_fetched_equal(
        self, open_store: OpenStore, kind: str, serializer: str
    ) -> None:
        result = a_success(_VALUES[kind])
        writer, reader = open_store(serializer=serializer), open_store(serializer=serializer)

        writer.store(result)

        assert reader.fetch(result.task_id) == result
        writer.close()
        reader.close()

    def test_a_failure_is_fetched_with_its_exception_and_traceback(
        self, backend: Backend, other: Backend
    ) -> None:
        failure = a_failure()

        backend.store(failure)

        assert other.fetch(failure.task_id) == failure

    def test_a_traceback_with_any_characters_is_kept(
        self, backend: Backend, other: Backend
    ) -> None:
        failure = replace(a_failure(), traceback="ValueError: \0 \N{SNOWMAN} \x1b[31m\r\n")

        backend.store(failure)

        found = other.fetch(failure.task_id)
        assert found is not None
        assert found.traceback is not None
        assert "\N{SNOWMAN} \x1b[31m\r\n" in found.traceback

    def test_a_custom_state_is_fetched_with_its_meta(
        self, backend: Backend, other: Backend
    ) -> None:
        progress = Result(str(uuid.uuid4()), "PROGRESS", {"done": 3, "of": 7})

        backend.store(progress)

        assert other.fetch(progress.task_id) == progress

    def test_the_newest_state_replaces_the_older(self, backend: Backend, other: Backend) -> None:
        task_id = str(uuid.uuid4())
        done = a_success("done", task_id)

        for state in ("STARTED", "PROGRESS", "RETRY"):
            backend.store(Result(task_id, state, {"state": state}))
            assert other.fetch(task_id) == Result(task_id, state, {"state": state})
        backend.store(a_failure(task_id))
        other.store(done)

        assert backend.fetch(task_id) == done

    def test_an_unknown_id_is_none(self, backend: Backend) -> None:
        assert backend.fetch(str(uuid.uuid4())) is None

    @pytest.mark.parametrize("state", ["FAILURE", "REVOKED", "RETRY", "PROGRESS", "SUCCESS"])
    def test_success_is_final(self, backend: Backend, other: Backend, state: str) -> None:
        success = a_success("first")
        backend.store(success)

        other.store(replace(success, state=state, value={"late": True}))

        assert backend.fetch(success.task_id) == success

    def test_success_is_final_whoever_else_stores_at_the_same_time(
        self, backend: Backend, other: Backend
    ) -> None:
        success = a_success("the only one")
        late = [replace(success, state="PROGRESS", value=number) for number in range(20)]

        with ThreadPoolExecutor(4) as threads:
            jobs = [threads.submit(other.store, result) for result in late[:10]]
            jobs.append(threads.submit(backend.store, success))
            jobs += [threads.submit(other.store, result) for result in late[10:]]
        for job in jobs:
            job.result()

        assert backend.fetch(success.task_id) == success

    def test_a_forgotten_result_is_gone_and_can_be_stored_anew(
        self, backend: Backend, other: Backend
    ) -> None:
        result = a_success("old")
        backend.store(result)

        other.forget(result.task_id)
        other.forget(result.task_id)

        assert backend.fetch(result.task_id) is None
        backend.store(replace(result, value="new"))
        assert other.fetch(result.task_id) == replace(result, value="new")

    @pytest.mark.parametrize("task_id", _ODD_IDS)
    def test_ids_may_have_odd_characters(
        self, backend: Backend, other: Backend, task_id: str
    ) -> None:
        task_id += uuid.uuid4().hex[:5]
        ears = Ears(other)
        ears.listen(task_id)
        result = a_success("odd", task_id)

        backend.store(result)

        assert ears.hear() == result
        assert other.fetch(task_id) == result
        other.forget(task_id)
        assert backend.fetch(task_id) is None

    def test_a_result_of_a_mebibyte_is_fetched_and_heard(
        self, backend: Backend, other: Backend
    ) -> None:
        result = a_success("x" * 1024 * 1024)
        ears = Ears(other)
        ears.listen(result.task_id)

        backend.store(result)

        assert ears.hear() == result
        assert other.fetch(result.task_id) == result

    def test_results_of_many_threads_are_all_kept(self, backend: Backend, other: Backend) -> None:
        results = [a_success(number) for number in range(200)]

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(backend.store, results))

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(other.fetch, [each.task_id for each in results])) == results

    def test_a_result_is_gone_after_it_expired(self, open_store: OpenStore) -> None:
        backend, other = open_store(expires=1.0), open_store(expires=1.0)
        result = a_success("brief")

        backend.store(result)
        seen = other.fetch(result.task_id)
        wait_until(
            lambda: other.fetch(result.task_id) is None, "the result to expire", timeout=_BOUND
        )

        assert seen == result
        backend.store(replace(result, date_done=clock.utc().isoformat(), state="FAILURE"))
        found = other.fetch(result.task_id)
        assert found is not None
        assert found.state == "FAILURE"
        backend.close()
        other.close()

    @pytest.mark.parametrize("expires", [None, 0])
    def test_results_may_be_kept_for_ever(self, open_store: OpenStore, expires: int | None) -> None:
        backend, result = open_store(expires=expires), a_success("lasting")

        backend.store(result)

        assert backend.fetch(result.task_id) == result
        backend.close()

    # -- several on their way together ---------------------------------------------------------

    def test_what_went_into_a_pipeline_is_stored_when_it_is_settled(
        self, backend: Backend, other: Backend
    ) -> None:
        results = [a_success(number) for number in range(100)]
        pipeline = backend.pipeline()

        for first in range(0, 100, 25):
            for result in results[first : first + 25]:
                pipeline.store(result)
            pipeline.settle()
            assert [other.fetch(result.task_id) for result in results[: first + 25]] == results[
                : first + 25
            ]
        pipeline.settle()

    def test_success_is_final_for_a_pipeline_too(self, backend: Backend, other: Backend) -> None:
        kept, replaced = a_success("first"), a_failure()
        other.store(kept)
        other.store(replaced)
        last = a_success("last", replaced.task_id)

        pipeline = backend.pipeline()
        pipeline.store(replace(kept, state="FAILURE", value={"late": True}))
        pipeline.store(last)
        pipeline.settle()

        assert backend.fetch(kept.task_id) == kept
        assert backend.fetch(replaced.task_id) == last

    def test_who_waits_hears_what_went_into_a_pipeline(
        self, backend: Backend, other: Backend
    ) -> None:
        result = a_success("piped")
        ears = Ears(other)
        ears.listen(result.task_id)

        pipeline = backend.pipeline()
        pipeline.store(result)
        pipeline.settle()

        assert ears.hear() == result

    # -- waiting -----------------------------------------------------------------------------

    def test_who_subscribed_before_hears_the_result_once(
        self, backend: Backend, other: Backend
    ) -> None:
        first, second = a_success("first"), a_failure()
        ears = Ears(other)
        ears.listen(first.task_id)
        ears.listen(second.task_id)

        backend.store(first)
        assert ears.hear() == first
        backend.store(replace(first, value="again"))
        backend.store(second)

        assert ears.hear() == second
        assert ears.heard_nothing_more()

    def test_who_subscribes_afterwards_hears_the_result_too(
        self, backend: Backend, other: Backend
    ) -> None:
        result = a_success("early")
        backend.store(result)

        ears = Ears(other)
        ears.listen(result.task_id)

        assert ears.hear() == result

    def test_who_asks_right_after_sending_hears_also_what_came_before(
        self, backend: Backend, other: Backend
    ) -> None:
        ears = Ears(other)
        for _ in range(3):  # the first of them finds the store unheard of in this process
            result = a_success("at once")
            backend.store(result)

            ears.listen(result.task_id, fresh=True)

            assert ears.hear() == result

    def test_who_stores_hears_as_well(self, backend: Backend) -> None:
        result = a_success("mine")
        ears = Ears(backend)
        ears.listen(result.task_id)

        backend.store(result)

        assert ears.hear() == result

    def test_two_subscribers_both_hear(self, backend: Backend, other: Backend) -> None:
        result = a_success("shared")
        one, two = Ears(other), Ears(other)
        one.listen(result.task_id)
        two.listen(result.task_id)

        backend.store(result)

        assert one.hear() == result
        assert two.hear() == result

    def test_states_that_are_not_ready_wake_nobody(self, backend: Backend, other: Backend) -> None:
        task_id = str(uuid.uuid4())
        ears = Ears(other)
        ears.listen(task_id)
        done = a_success("done", task_id)

        for state in ("STARTED", "RETRY", "PROGRESS"):
            backend.store(Result(task_id, state))
        backend.store(done)

        assert ears.hear() == done
        assert ears.heard_nothing_more()

    def test_who_unsubscribed_hears_nothing(self, backend: Backend, other: Backend) -> None:
        result = a_success("unheard")
        deaf, ears = Ears(other), Ears(other)
        end = deaf.listen(result.task_id)
        ears.listen(result.task_id)

        end()
        end()
        backend.store(result)

        assert ears.hear() == result
        assert deaf.heard_nothing_more()

    def test_who_subscribes_again_hears(self, backend: Backend, other: Backend) -> None:
        result = a_success("second time")
        ears = Ears(other)

        for _ in range(3):
            ears.listen(result.task_id)()
        ears.listen(result.task_id)
        backend.store(result)

        assert ears.hear() == result

    def test_a_subscriber_that_raises_costs_no_other_its_result(
        self, backend: Backend, other: Backend
    ) -> None:
        result, later = a_success("one"), a_success("two")

        def stumble(_result: Result) -> None:
            raise RuntimeError("a mistake in a callback")

        other.subscribe(result.task_id, stumble)
        ears = Ears(other)
        ears.listen(result.task_id)
        ears.listen(later.task_id)

        backend.store(result)
        assert ears.hear() == result
        backend.store(later)

        assert ears.hear() == later

    def test_many_waiters_hear_results_of_many_threads(
        self, backend: Backend, other: Backend
    ) -> None:
        results = {result.task_id: result for result in (a_success(n) for n in range(200))}
        ears = Ears(other)

        with ThreadPoolExecutor(8) as threads:
            jobs: list[Future[Any]] = []
            for task_id, result in results.items():
                jobs.append(threads.submit(ears.listen, task_id))
                jobs.append(threads.submit(backend.store, result))
        for job in jobs:
            job.result()

        assert {result.task_id: result for result in (ears.hear() for _ in results)} == results

    # -- processes ---------------------------------------------------------------------------

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    def test_a_forked_child_stores_and_its_parent_hears(self, backend: Backend) -> None:
        before, after = a_success("parent"), a_success("child")
        ears = Ears(backend)
        ears.listen(after.task_id)
        backend.store(before)  # the child inherits connections that were used

        child = _fork(lambda: _store_in_child(backend, before, after))

        assert ears.hear() == after
        assert backend.fetch(after.task_id) == after
        assert _exit_code(child) == 0

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    def test_a_forked_child_can_wait_for_results(self, backend: Backend) -> None:
        theirs, ours, mine = a_success("asked"), a_success("told"), a_success("parent's own")
        ears = Ears(backend)
        ears.listen(theirs.task_id)
        ears.listen(mine.task_id)

        child = _fork(lambda: _wait_in_child(backend, theirs, ours))
        assert ears.hear() == theirs
        backend.store(ours)

        assert _exit_code(child) == 0
        backend.store(mine)
        assert ears.hear() == mine

    # -- the end -----------------------------------------------------------------------------

    def test_closing_twice_is_fine_and_ends_the_threads(self, open_store: OpenStore) -> None:
        before = set(threading.enumerate())
        backend = open_store()
        backend.subscribe(str(uuid.uuid4()), lambda _result: None)

        backend.close()
        backend.close()

        assert set(threading.enumerate()) <= before

    def test_a_shared_store_needs_no_reply_queue(self, backend: Backend) -> None:
        result = a_success("shared")
        backend.hold(result.task_id)
        backend.store(result, reply_to="nobody")
        backend.release(result.task_id)

        assert backend.reply_queue() is None
        assert backend.fetch(result.task_id) == result


def _fork(work: Callable[[], None]) -> int:
    with warnings.catch_warnings():
        # Forking beside threads is what is tried here; Python 3.12 and newer advise against it.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def _store_in_child(backend: Backend, before: Result, after: Result) -> None:
    assert backend.fetch(before.task_id) == before
    backend.store(after)
    backend.close()


def _wait_in_child(backend: Backend, theirs: Result, ours: Result) -> None:
    ears = Ears(backend)
    ears.listen(ours.task_id)
    backend.store(theirs)
    assert ears.hear() == ours
    assert ears.heard_nothing_more()
    backend.close()


def _exit_code(child: int) -> int:
    def ended() -> tuple[int, int] | None:
        pid, status = os.waitpid(child, os.WNOHANG)
        return (pid, status) if pid else None

    answer = wait_until(ended, f"child {child} to end", timeout=_BOUND)
    assert answer is not None
    return os.waitstatus_to_exitcode(answer[1])
