"""Uses of the public API that a type checker must accept, with the types it must see."""

from datetime import datetime, timedelta
from typing import Any, assert_type

from taskq import (
    AsyncResult,
    EagerResult,
    Signature,
    Task,
    TaskQ,
    clocked,
    crontab,
    hooks,
    schedule,
    shared_task,
)
from taskq.testing import eager_app, memory_app, sent, wait_until

app = TaskQ("proj", broker="memory://", include=["proj.tasks"], task_acks_late=False)
app.conf.worker_concurrency = 4
app.conf.update(task_default_queue="q")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(name="proj.scale", queue="slow", max_retries=None, autoretry_for=(OSError,))
def scale(factor: float, *, unit: str) -> dict[str, float]:
    return {unit: factor}


@app.task(bind=True, retry_backoff=True)
def fetch(self: Task[Any, Any], url: str) -> bytes:
    try:
        return url.encode()
    except OSError as error:
        raise self.retry(exc=error, countdown=self.request.retries * 2.0)


def patience(error: ConnectionError, attempt: int) -> float | None:
    return 2.0 * attempt


@app.task(retry_when=patience, autoretry_for=(ConnectionError,))
def patient() -> None: ...


class Slow(Task[Any, Any]):
    def retry_when(self, error: Exception, attempt: int) -> float | None:
        return None


@app.task(schedule=crontab(minute="*/15", hour=[8, 9], timezone="Europe/Berlin"))
def tidy() -> None: ...


@app.on_after_configure.connect
def add_tasks(sender: TaskQ, **_: Any) -> None:
    assert_type(sender.add_periodic_task(30.0, add.s(1), name="a", missed="skip"), str)
    assert_type(schedule(30, relative=True).is_due(datetime(2024, 1, 1)).is_due, bool)
    assert_type(clocked("2030-01-01").remaining_estimate(datetime(2024, 1, 1)), timedelta)


@app.task
async def gather(x: int) -> list[str]:
    return [str(x)]


@app.task(bind=True)
async def bound(self: Task[Any, Any], x: int) -> str:
    return f"{self.request.id} {x}"


@shared_task
def shared(x: str) -> str:
    return x


@shared_task(bind=True, pydantic=True)
def shared_bound(self: Task[Any, Any], x: str) -> str:
    return x


class Told(Task[Any, Any]):
    acks_late = True
    max_retries = 7
    throws = (KeyError,)

    def on_failure(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: str
    ) -> None:
        print(exc)


@app.task(base=Told)
def told() -> None: ...


class Double(Task[[int], int]):
    def run(self, x: int) -> int:
        return 2 * x


assert_type(add.delay(1, y=2), AsyncResult[int])
assert_type(add.delay(1).get(timeout=1), int)
assert_type(add(1, 2), int)
assert_type(add.apply((1,)), EagerResult[int])
assert_type(add.apply_async((1,), {"y": 2}, queue="q", countdown=1.5), AsyncResult[int])
assert_type(add.s(1), Signature)
assert_type(scale.delay(1.5, unit="m").get(), dict[str, float])
assert_type(fetch.delay("http://"), AsyncResult[bytes])
assert_type(gather.delay(1).get(), list[str])
assert_type(bound.delay(1).get(), str)
assert_type(shared.delay("x").get(), str)
assert_type(shared_bound.delay("x").get(), str)
assert_type(app.register_task(Double).delay(3).get(), int)
assert_type(app.send_many([add.s(1), app.signature("t", (1,))]), list[AsyncResult[Any]])
assert_type(app.send_task("t", (1,), {"k": 2}, headers={"a": "b"}), AsyncResult[Any])
told.delay()


async def main() -> None:
    result = await add.adelay(1, 2)
    assert_type(result, AsyncResult[int])
    assert_type(await result.aget(timeout=5), int)
    assert_type(await app.asend_task("t"), AsyncResult[Any])


@hooks.task_failure
def on_failure(*, task_id: str, exception: BaseException, **_: Any) -> None:
    print(task_id, exception)


@hooks.worker_process_init
def on_init(**_: Any) -> None: ...


def test() -> None:
    with sent(memory_app()) as record, eager_app() as eager:
        assert_type(record[0].name, str)
        assert_type(eager, TaskQ)
    assert_type(wait_until(lambda: 5), int)
