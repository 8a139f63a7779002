"""Tasks that are tried again, for workers started with TASKQ_INCLUDE=retries."""

import os
from typing import Any

from tasks import app, note

from taskq import Retry, hooks

ERRORS: dict[str, type[Exception]] = {
    "connection": ConnectionError,
    "file": FileNotFoundError,
    "value": ValueError,
}


@app.task(bind=True)
def again(self: Any, word: str, how: dict[str, Any] | None = None) -> list[Any]:
    """Asks for one retry, with the arguments of `retry` in *how*; where and how often it ran."""
    note(self.request.id, word)
    if how is not None:
        raise self.retry(**how)
    return [word, self.request.retries, self.request.delivery_info["queue"]]


@app.task(bind=True, max_retries=2, default_retry_delay=0)
def exhaust(self: Any, reason: str | None = None) -> None:
    """Asks for more retries than there are, because of *reason* if there is one."""
    note(self.request.id, "exhaust")
    raise self.retry(exc=LookupError(reason) if reason else None)


@app.task(max_retries=2, default_retry_delay=0)
def by_hand(task_id: str, reason: str | None = None) -> None:
    """As `exhaust`, by code that knows nothing of the task."""
    note(task_id, "by hand")
    raise Retry("not yet", exc=LookupError(reason) if reason else None)


@app.task(
    bind=True,
    autoretry_for=(OSError,),
    dont_autoretry_for=(FileNotFoundError,),
    retry_backoff=0.02,
    retry_backoff_max=0.05,
    retry_jitter=False,
    max_retries=4,
)
def flaky(self: Any, kind: str) -> None:
    """Always fails, with the exception that *kind* stands for."""
    note(self.request.id, kind)
    raise ERRORS[kind]("flaky")


def patience(error: Exception, attempt: int) -> Any:
    """How long to wait after *error*, which says so itself."""
    match str(error):
        case "twice":
            return attempt / 64 if attempt <= 2 else None
        case "nonsense":
            return "tomorrow"
    return None


@app.task(bind=True, retry_when=patience, max_retries=None)
def judged(self: Any, words: str) -> None:
    """Always fails, with *words*."""
    note(self.request.id, words)
    raise RuntimeError(words)


@app.task(bind=True)
def same(self: Any, before: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """What its first run knew of itself, and its second."""
    request = self.request
    names = (
        *("id", "root_id", "parent_id", "group", "group_index", "shadow", "headers", "expires"),
        *("timelimit", "reply_to", "correlation_id", "ignore_result", "serializer"),
    )
    now = {name: getattr(request, name) for name in names}
    now |= {name: request.delivery_info[name] for name in ("queue", "priority")}
    if before is None:
        raise self.retry(kwargs={"before": now}, countdown=0.05)
    return [before, now]


@app.task(bind=True, max_retries=1)
def broadcast(self: Any) -> None:
    """Runs twice wherever it was sent to; stands in the ledger with the queue it came from."""
    note(self.request.delivery_info["queue"], self.request.retries)
    if not self.request.retries:
        raise self.retry(countdown=0)


if "TASKQ_TEST_STATES" in os.environ:

    @hooks.before_publish
    def note_state(*, task_id: str, **_: Any) -> None:
        """Whatever a task sends: what is stored of it at that moment."""
        known = app.backend.fetch(task_id)
        note(task_id, known.state if known else "nothing")
