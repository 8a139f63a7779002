"""The states a task's result goes through, with Celery's names and order of precedence.

They are plain strings, because they are read from stores that other programs write.  Any other
upper-case word is a custom state that a task set with `update_state`.
"""

PENDING = "PENDING"
RECEIVED = "RECEIVED"
STARTED = "STARTED"
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
REVOKED = "REVOKED"
REJECTED = "REJECTED"
RETRY = "RETRY"
IGNORED = "IGNORED"

#: A task in one of these will not change any more.
READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED})
#: The result of these is an exception.
EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})
#: `get()` raises the exception of these.
PROPAGATE_STATES = frozenset({FAILURE, REVOKED})

#: High to low; None stands for every custom state.
_PRECEDENCE: tuple[str | None, ...] = (
    SUCCESS, FAILURE, None, REVOKED, STARTED, RECEIVED, REJECTED, RETRY, PENDING,
)  # fmt: skip


def precedence(state: str) -> int:
    """The rank of *state*: 0 wins over everything, larger numbers give way."""
    return _PRECEDENCE.index(state if state in _PRECEDENCE else None)
