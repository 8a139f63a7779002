"""Lifecycle events as log lines; the only file that words them.

Code says *what happened* with `event(name, ...)`; the table below says how it reads and how loud it
is.  With TASKQ_TEST_SIGNALS set to a descriptor number, every event is also written there as one
JSON line, so that a test can wait for the event itself instead of for time to pass.
"""

import json
import logging
import os
import sys
from typing import Any, Literal

logger = logging.getLogger("taskq")

_DEBUG, _INFO, _WARNING, _ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

#: event -> (level, sentence)
EVENTS: dict[str, tuple[int, str]] = {
    # brokers
    "embedded-broker": (
        _WARNING,
        "no broker configured: using {path} (one host only; set TASKQ_BROKER_URL for RabbitMQ)",
    ),
    "connected": (_INFO, "connected to {broker} as {role}"),
    "connection-lost": (_WARNING, "lost {broker} ({role}): {reason}; trying again in {delay:.1f}s"),
    "connection-failed": (
        _WARNING,
        "cannot reach {broker} ({role}): {reason}; trying again in {delay:.1f}s",
    ),
    "blocked": (_WARNING, "{broker} blocks publishing: {reason}"),
    "unblocked": (_INFO, "{broker} takes messages again"),
    "queue-foreign": (
        _WARNING,
        "queue {queue!r} exists with other arguments, used as it is: {reason}",
    ),
    "queue-gone": (_WARNING, "queue {queue!r} was deleted under its consumer; declaring it again"),
    "tls-unverified": (
        _WARNING,
        "the certificate of {server} is not verified: anybody in between may read and change what "
        "is sent; {remedy}",
    ),
    "priority-useless": (
        _WARNING,
        "priority given, but quorum queue {queue!r} on RabbitMQ {version} ignores it; set "
        "task_queue_max_priority for a classic queue (no replication, no delivery count)",
    ),
    "broadcast-refused": (
        _WARNING,
        "nothing can be told to who listens: exchange {exchange!r} cannot be had: {reason}",
    ),
    "node-name-taken": (
        _WARNING,
        "{node} cannot be seen or controlled: another program has its mailbox ({reason}); tasks go "
        "on, but give each node a name of its own (-n)",
    ),
    "log-unusable": (
        _WARNING,
        "the log {log!r} cannot be used, so workers do not learn what was decided before they "
        "came: {reason}",
    ),
    # worker
    "app-broken": (_ERROR, "the app {app} cannot be used: {why}"),
    "worker-ready": (_INFO, "{node} ready"),
    "worker-reloading": (_INFO, "{node} imports its app afresh"),
    "worker-reloaded": (
        _INFO,
        "{node} has new code, {tasks} tasks; children follow as they end",
    ),
    "reload-failed": (_ERROR, "the old code goes on, because the new cannot be used: {why}"),
    "worker-stopping": (_INFO, "{node} stopping: {how}"),
    "worker-stopped": (_INFO, "{node} stopped"),
    "intake-paused": (
        _INFO,
        "taking no more messages for now: those held are {held:,} bytes (worker_max_held_bytes)",
    ),
    "intake-resumed": (_INFO, "taking messages again"),
    "window-resized": (
        _DEBUG,
        "holding {window} messages of each queue from now on",
    ),
    "pool-resized": (_INFO, "there is work for {children} children: as many from now on"),
    "events-dropped": (
        _WARNING,
        "{count} events about tasks were not sent, as the broker took none in time; tasks go on",
    ),
    "child-started": (_DEBUG, "child {pid} started"),
    "child-ready": (_DEBUG, "child {pid} ready"),
    "child-died": (_ERROR, "child {child} died: {how}"),
    "child-late": (_ERROR, "child {pid} was not ready within {seconds:g}s; ending it"),
    "child-retired": (_INFO, "child {child} has done its share"),
    "children-broken": (
        _ERROR,
        "{count} children in a row ended before they were ready ({how}): giving up",
    ),
    "nursery-died": (_ERROR, "the process that forks children died: {how}; starting another"),
    # remote control
    "control-command": (_INFO, "told to {command} {arguments}"),
    "control-question": (_DEBUG, "asked for {command} {arguments}"),
    "control-refused": (_INFO, "the command {command} is not obeyed: {reason}"),
    "control-failed": (_ERROR, "the command {command} failed: {exception}"),
    "control-unfit": (_INFO, "a command for nodes like {pattern!r} is not obeyed: {reason}"),
    "control-unreadable": (_WARNING, "{count} commands cannot be read, the last: {reason}"),
    "control-dropped": (_WARNING, "{count} commands were dropped, as too many waited"),
    # tasks
    "task-received": (_INFO, "Task {name}[{id}] received"),
    "task-succeeded": (_INFO, "Task {name}[{id}] succeeded in {runtime:.6f}s: {result}"),
    "task-failed": (_ERROR, "Task {name}[{id}] raised unexpected: {exception}\n{traceback}"),
    "task-failed-expected": (_INFO, "Task {name}[{id}] raised expected: {exception}"),
    "task-retried": (_INFO, "Task {name}[{id}] retry in {delay}s: {reason}"),
    "task-rejected": (_WARNING, "Task {name}[{id}] rejected: {reason}"),
    "task-ignored": (_INFO, "Task {name}[{id}] ignored"),
    "task-revoked": (_INFO, "Task {name}[{id}] revoked: {reason}"),
    "task-claimed": (
        _INFO,
        "Task {name}[{id}] takes long: a fresh message takes over",
    ),
    "task-timed-out": (_ERROR, "Task {name}[{id}] took longer than {seconds:g}s: ending its child"),
    "task-dead-lettered": (_ERROR, "Task {name}[{id}] moved to {queue}: {reason}"),
    "task-lost": (_ERROR, "Task {name}[{id}] lost its process ({how}); crash {crashes} of {limit}"),
    "message-malformed": (_ERROR, "message from {queue} moved to {dead}: {reason}"),
    "result-lost": (_ERROR, "the result of {name}[{id}] could not be stored: {reason}"),
    # beat
    "beat-ready": (_INFO, "{node} ready: {entries} entries, changes kept in {store}"),
    "beat-leading": (_INFO, "{node} leads (number {epoch}); the schedule was sent up to {through}"),
    "beat-lost": (_WARNING, "{node} leads no more: {reason}"),
    "beat-died": (_ERROR, "the beat of this worker ended: {how}; another follows in {delay:g}s"),
    "beat-stopped": (_INFO, "{node} stopped"),
    "beat-store-away": (_WARNING, "the schedule's changes cannot be read: {reason}"),
    "beat-store-local": (
        _WARNING,
        "the last leader was on {host}, whose added entries are not known here: set beat_store to "
        "a database or to Redis",
    ),
    "schedule-changed": (_INFO, "the schedule was changed: {entries} entries now"),
    "entry-broken": (_ERROR, "the entry {entry!r} is not sent: {reason}"),
    "due-sent": (_INFO, "Task {name}[{id}] sent as it is due"),
    "due-skipped": (_INFO, "Task {name}[{id}] not sent: the run {last} goes on"),
    "due-failed": (_ERROR, "Task {name}[{id}] is due and cannot be sent: {reason}"),
    "due-late": (_WARNING, "Task {name}[{id}] is due and not sent yet: {reason}"),
    "hook-failed": (_ERROR, "{hook} hook {function} failed: {exception}"),
}

#: See `limit`; what it is until somebody knows better is Celery's figure.
_longest = 1024

_signals: int | None = (
    int(os.environ["TASKQ_TEST_SIGNALS"]) if "TASKQ_TEST_SIGNALS" in os.environ else None
)


def event(name: str, /, **fields: Any) -> None:
    """Log the event *name* (a key of EVENTS) in its words, with its *fields*."""
    level, sentence = EVENTS[name]
    if logger.isEnabledFor(level):
        logger.log(level, sentence.format(**fields), extra={"event": name, "fields": fields})
    if _signals is not None:
        line = json.dumps({"event": name, "pid": os.getpid(), **fields}, default=str)
        os.write(_signals, line.encode()[:4000] + b"\n")


def limit(longest: int) -> None:
    """From now on `brief` leaves *longest* characters; the setting repr_max_length."""
    global _longest
    _longest = longest


def brief(text: str) -> str:
    """*text*, which may quote a task's arguments, as far as the log may show it."""
    return text if len(text) <= _longest else f"{text[:_longest]}..."


def inherited() -> list[int]:
    """The descriptors that a process started by this one needs to go on reporting events."""
    return [] if _signals is None else [_signals]


def audible(name: str) -> bool:
    """Whether anybody would notice the event *name*: lets hot paths skip making its fields."""
    return _signals is not None or logger.isEnabledFor(EVENTS[name][0])


class _Lines(logging.Formatter):
    """`[time level process] text`, coloured by level on a terminal."""

    _COLOURS = {_DEBUG: "\x1b[2m", _WARNING: "\x1b[33m", _ERROR: "\x1b[31m"}  # noqa: RUF012

    def __init__(self, *, colour: bool) -> None:
        super().__init__("[%(asctime)s %(levelname)s %(process)d] %(message)s")
        self.default_msec_format = "%s.%03d"
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        tint = self._COLOURS.get(record.levelno) if self._colour else None
        return f"{tint}{line}\x1b[0m" if tint else line


class _JsonLines(logging.Formatter):
    """One JSON object a line: time, level, process, text, and the event with its fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname,
            "process": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        if hasattr(record, "event"):
            entry["event"] = record.event
            entry |= {
                key: value for key, value in record.__dict__["fields"].items() if key not in entry
            }
        return json.dumps(entry, default=str)


def reopen() -> None:
    """In a forked child: write to the same log through a descriptor of its own."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()  # it opens the file again, to append, at its next line


def configure(
    level: str = "info", file: str | None = None, style: Literal["plain", "json"] = "plain"
) -> None:
    """Send the process's log to *file* (re-opened when it was renamed), or to standard error.

    Replaces the handlers of the root logger; ValueError for an unknown *level*.
    """
    handler: logging.Handler
    if file:
        from logging.handlers import WatchedFileHandler

        handler = WatchedFileHandler(file)
    else:
        handler = logging.StreamHandler(sys.stderr)
    colour = file is None and sys.stderr.isatty() and "NO_COLOR" not in os.environ
    handler.setFormatter(_JsonLines() if style == "json" else _Lines(colour=colour))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # pika narrates its connection's life; taskq says the same in its own words.
    logging.getLogger("pika").setLevel(max(logging.CRITICAL, root.level))
