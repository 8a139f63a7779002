"""Two tasks that fail at first, and how they are tried again."""

from typing import Any

from taskq import TaskQ

app = TaskQ("retry")


@app.task(
    bind=True,
    autoretry_for=(ConnectionError,),
    max_retries=5,
    retry_backoff=0.1,  # seconds; twice as long each time
    retry_jitter=False,
)
def fetch(self: Any, page: str) -> str:
    """Tried again by itself after each ConnectionError."""
    if self.request.retries < 3:
        raise ConnectionError("the line is busy")
    return f"{page} after {self.request.retries} retries"


@app.task(bind=True, max_retries=2)
def pay(self: Any, amount: int) -> None:
    """Decides for itself when it is worth another try."""
    try:
        raise ConnectionError(f"the bank does not answer about {amount}")
    except ConnectionError as error:
        raise self.retry(exc=error, countdown=0.1) from error
