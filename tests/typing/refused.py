"""Mistakes that a type checker must see: each line with a comment `E:` names the error's code."""

from typing import Any

from taskq import Task, TaskQ, hooks, shared_task

app = TaskQ("proj")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(bind=True)
def fetch(self: Task[Any, Any], url: str) -> bytes:
    return url.encode()


@shared_task
async def later(x: int) -> int:
    return x


add.delay("x")  # E: arg-type
add.delay()  # E: call-arg
add.delay(1, 2, 3)  # E: call-arg
add.delay(1, z=2)  # E: call-arg
add.s("x")  # E: arg-type
add("x")  # E: arg-type
fetch.delay(fetch, "http://")  # E: call-arg, arg-type
later.delay("x")  # E: arg-type
text: str = add.delay(1).get()  # E: assignment
add.apply_async((1,), qeue="q")  # E: call-arg
add.apply_async((1,), countdown="soon")  # E: arg-type
app.send_task("t", priority="high")  # E: arg-type
app.send_task(add)  # E: arg-type


@app.task(max_retrys=3)  # E: call-overload, untyped-decorator
def misspelt() -> None: ...


def too_simple(error: Exception) -> float:
    return 1.0


@app.task(retry_when=too_simple)  # E: arg-type
def impatient() -> None: ...


@hooks.task_failure  # E: arg-type
def too_narrow(*, exception: ValueError, **_: Any) -> None: ...


@hooks.task_success  # E: arg-type
def too_few(*, task_id: str) -> None: ...


async def main() -> None:
    await add.adelay("x")  # E: arg-type
