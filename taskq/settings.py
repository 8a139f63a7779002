"""An app's settings: Celery's lower-case names, their kinds, and where values come from.

What a setting *does* belongs to the room that reads it, and checking its value to `kinds`.  A later
source wins over an earlier one:

1. `[tool.taskq]` in the project's pyproject.toml,
2. `config_from_object`,
3. environment variables `TASKQ_<NAME>` (lists and mappings as JSON),
4. code: the arguments of `TaskQ(...)`, `conf.update(...)`, `conf.name = value`.

The table of waits.  No call waits without one of these bounds, but for `AsyncResult.get()` without
a timeout, which waits until the result is there.  All are seconds.

==========================  ======  ============================================================
broker_connection_timeout        5  one attempt to connect
broker_heartbeat                30  a silent peer is given up after about twice this
broker_blocked_timeout          30  a broker that blocks publishing (an alarm) is given up
declare_timeout                 10  declaring a queue or an exchange
publish_timeout                 10  from handing a message over to its confirm, retries included
result_backend_timeout           5  one operation of the result store
result_store_retry              60  trying to store a result while the store is away
worker_child_start_timeout      30  from forking a child to its first word
worker_shutdown_timeout       none  from TERM to stopping what still runs; set it to bound TERM
worker_soft_shutdown_timeout     0  from QUIT to stopping what still runs
kill_wait                      0.1  from SIGTERM to SIGKILL of a child
beat_lease                      10  until a silent leader of the schedule is replaced
==========================  ======  ============================================================
"""

import importlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from taskq import kinds, log, schedules, url
from taskq.backends.base import BackendOptions
from taskq.broker.base import BrokerOptions
from taskq.errors import ConfigurationError
from taskq.foreign import FOREIGN, INSTEAD, RENAMED, modern
from taskq.kinds import After, Before, Limits
from taskq.project import project_root, project_table
from taskq.rate import parse_rate
from taskq.wire.task import MAX_REPR

#: Sources of values, weakest first.
_PROJECT, _OBJECT, _ENVIRONMENT, _CODE = 1, 2, 3, 4

_DAY = 86_400.0

#: Variables that start with TASKQ_ and are no settings.
_OTHER_VARIABLES = frozenset({"TASKQ_APP", "TASKQ_MANAGEMENT_URL", "TASKQ_REQUIRE_BROKER"})

#: Embedded databases that this process has announced in its log.
_announced: set[str] = set()


def _names(value: object) -> object:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


def _zone(name: str | None) -> str | None:
    if name is not None:
        schedules.zone_named(name)
    return name


def _rate(rate: str | float | None) -> str | float | None:
    parse_rate(rate)
    return rate


def _schedule(entries: dict[str, Any]) -> dict[str, Any]:
    """As they are, so that more can be put in; read only to find what is wrong."""
    for name, entry in entries.items():
        try:
            schedules.read_entry(name, entry)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
    return entries


def _seconds(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value


PositiveInt = Annotated[int, Limits(gt=0)]
NonNegativeInt = Annotated[int, Limits(ge=0)]
NonNegativeFloat = Annotated[float, Limits(ge=0)]
Seconds = Annotated[float, Limits(gt=0), Before(_seconds)]
Priority = Annotated[int, Limits(ge=0, le=255)]
#: Names in order; a text holds one, or several with commas between.
Names = Annotated[tuple[str, ...], Before(_names)]
Serializer = Literal["json", "msgpack"]


class PublishRetry(NamedTuple):
    """How a refused publish is spaced out inside `publish_timeout`, with Celery's names."""

    max_retries: NonNegativeInt | None = 3
    interval_start: NonNegativeFloat = 0.0
    interval_step: NonNegativeFloat = 0.2
    interval_max: NonNegativeFloat = 1.0

    def pauses(self) -> Iterator[float]:
        """Seconds to wait before each further attempt."""
        pause, count = self.interval_start, 0
        while self.max_retries is None or count < self.max_retries:
            yield min(pause, self.interval_max)
            pause += self.interval_step
            count += 1


class Settings:
    """The settings of one app, read and written as attributes or items.

    A value is checked when it is set; ConfigurationError for an unknown name (with the one that
    was probably meant) or a value of the wrong kind.  `changes` counts how often anything changed.
    """

    # -- the app -----------------------------------------------------------------------------

    #: Modules that a worker imports, so that their tasks are registered.
    imports: Names = ()
    #: More of them.
    include: Names = ()
    #: IANA name of the zone of schedules, and of an `eta` without zone; None is UTC.
    timezone: Annotated[str | None, After(_zone)] = None
    #: Serialisers (or MIME types) that are decoded; anything else is refused.
    accept_content: Names = ("json", "msgpack")

    # -- broker ------------------------------------------------------------------------------

    #: amqp://, amqps://, sqlite:/// or memory://; several for fail-over, as a list or with `;`
    #: between.  None is the embedded one: `.taskq/taskq.db` under the project's root.
    broker_url: str | tuple[str, ...] | None = None
    broker_connection_timeout: Seconds = 5.0
    broker_heartbeat: Seconds = 30.0
    broker_blocked_timeout: Seconds = 30.0
    #: True, or a mapping with `ca_certs`, `certfile`, `keyfile`, `cert_reqs`, `server_hostname`.
    broker_use_ssl: bool | dict[str, Any] = False
    declare_timeout: Seconds = 10.0
    publish_timeout: Seconds = 10.0

    # -- queues ------------------------------------------------------------------------------

    task_default_queue: Annotated[str, Limits(min_length=1)] = "default"
    #: Put before every queue's name on the broker, so that environments can share one.
    queue_prefix: str = ""
    #: Names, or mappings with `name`, `exchange`, `exchange_type`, `routing_key`, `arguments`,
    #: `max_priority`; or one mapping from names to such mappings.
    task_queues: tuple[str | dict[str, Any], ...] | dict[str, dict[str, Any] | None] | None = None
    #: A mapping (names, globs, compiled patterns), a function, `"module.function"`, or a list.
    task_routes: Any = None
    #: Whether a queue that task_queues does not list is made when it is first used.
    task_create_missing_queues: bool = True
    #: Makes every queue a classic one with priorities from 0 (lowest) to this.
    task_queue_max_priority: Annotated[int, Limits(ge=1, le=255)] | None = None
    #: How long a dead-letter queue keeps a message, and how many.
    dead_letter_ttl: Seconds = 7 * _DAY
    dead_letter_max_length: PositiveInt = 1_000_000

    # -- tasks: sending ----------------------------------------------------------------------

    task_serializer: Serializer = "json"
    #: gzip, bzip2 or lzma.
    task_compression: str | None = None
    task_default_priority: Priority | None = None
    #: Tell monitors of each task that was sent.
    task_send_sent_event: bool = False
    #: Bytes; a larger body is refused where it is sent, and where it is received.
    task_max_payload: PositiveInt = 16 * 1024 * 1024
    task_publish_retry_policy: PublishRetry = PublishRetry()
    #: Characters of arguments and results in logs and message headers, which have little room.
    repr_max_length: Annotated[int, Limits(ge=16, le=4096)] = MAX_REPR
    #: Run tasks in the caller instead of sending them (calls by name are sent all the same).
    task_always_eager: bool = False
    task_eager_propagates: bool = False
    task_store_eager_result: bool = False

    # -- tasks: running ----------------------------------------------------------------------

    #: Acknowledge when the task is done (unlike Celery, by default), not when it starts.
    task_acks_late: bool = True
    #: Count a task that failed or timed out as dealt with; otherwise a failed one is dead-lettered
    #: in any case, and one that timed out goes back to its queue.
    task_acks_on_failure_or_timeout: bool = True
    #: Run a task again when its process died (unlike Celery, by default), up to `max_crashes`.
    task_reject_on_worker_lost: bool = True
    max_crashes: PositiveInt = 3
    #: RabbitMQ's consumer_timeout: what runs for half of it is claimed anew, not to run twice.
    broker_consumer_timeout: Seconds = 1800.0
    #: A message that the broker has delivered this often is dead-lettered.
    max_deliveries: PositiveInt = 50
    task_ignore_result: bool = False
    task_store_errors_even_if_ignored: bool = False
    task_track_started: bool = False
    #: Seconds after which a task is killed, or told by SoftTimeLimitExceeded; None or 0: never.
    task_time_limit: NonNegativeFloat | None = None
    task_soft_time_limit: NonNegativeFloat | None = None
    #: How often each worker may begin a task that has no `rate_limit` of its own: "10/s", "100/m",
    #: "5/h".
    task_default_rate_limit: Annotated[str | float | None, After(_rate)] = None

    # -- results -----------------------------------------------------------------------------

    #: rpc://, redis://, db+postgresql://, sqlite:///, memory://, disabled://.  None goes with the
    #: broker: rpc on AMQP, the same file on SQLite.
    result_backend: str | None = None
    #: Seconds or a timedelta; None or 0 keeps results for ever.
    result_expires: Annotated[NonNegativeFloat, Before(_seconds)] | None = _DAY
    result_serializer: Serializer = "json"
    #: As `accept_content`, for results; None: the same.
    result_accept_content: Names | None = None
    result_backend_transport_options: dict[str, Any] = {}  # noqa: RUF012
    result_backend_timeout: Seconds = 5.0
    result_store_retry: NonNegativeFloat = 60.0

    # -- the worker --------------------------------------------------------------------------

    #: How many children; None: one for each processor.
    worker_concurrency: PositiveInt | None = None
    worker_pool: Literal["prefork", "solo"] = "prefork"
    #: Messages held of each queue: this times the children; 0: as many as tasks are short.
    worker_prefetch_multiplier: NonNegativeInt = 0
    #: Bytes of bodies above which no more messages are taken.
    worker_max_held_bytes: PositiveInt = 256 * 1024 * 1024
    worker_max_tasks_per_child: PositiveInt | None = None
    #: KiB of resident memory.
    worker_max_memory_per_child: PositiveInt | None = None
    worker_child_start_timeout: Seconds = 30.0
    #: Let no task wait for its `rate_limit`.
    worker_disable_rate_limits: bool = False
    #: Hear commands of operators: inspect, control, Flower.
    worker_enable_remote_control: bool = True
    #: Tell monitors what becomes of tasks, as -E does.
    worker_send_task_events: bool = False
    #: Seconds between two events by which a worker tells monitors that it lives; 0: none.
    worker_heartbeat: NonNegativeFloat = 2.0
    worker_shutdown_timeout: Seconds | None = None
    worker_soft_shutdown_timeout: NonNegativeFloat = 0.0
    kill_wait: NonNegativeFloat = 0.1

    # -- the schedule ------------------------------------------------------------------------

    #: Entries by name, each a mapping with `task`, `schedule` and more.
    beat_schedule: Annotated[dict[str, Any], After(_schedule)] = {}  # noqa: RUF012

    #: Where changes of the schedule are kept: sqlite:///, db+postgresql://, redis://.  None: the
    #: embedded broker's file.
    beat_store: str | None = None
    #: A leader that says nothing for so long has been replaced.
    beat_lease: Annotated[float, Limits(ge=2), Before(_seconds)] = 10.0
    #: Who says which beat leads: RabbitMQ ("broker"), or beat_store.
    beat_leader: Literal["broker", "store"] = "broker"

    # -- what taskq always does: accepted because Celery's users set them ----------------------

    enable_utc: Literal[True] = True
    task_protocol: Literal[2] = 2
    task_publish_retry: Literal[True] = True
    broker_connection_retry: Literal[True] = True
    broker_connection_retry_on_startup: Literal[True] = True

    if TYPE_CHECKING:  # no settings, which all annotations here are
        #: How often settings were changed; what is derived from them is made anew when it grew.
        changes: int
        _ranks: dict[str, int]

    def __init__(self, **settings: Any) -> None:
        # Each app may fill its own mappings.
        own = {name: dict(value) for name, value in DEFAULTS.items() if isinstance(value, dict)}
        self.__dict__.update(own, changes=0, _ranks={})
        self._apply(project_table(), _PROJECT, "[tool.taskq] in pyproject.toml")
        self._apply(_from_environment(os.environ), _ENVIRONMENT, "the environment")
        self._apply(settings, _CODE, "TaskQ(...)")

    # -- reading and writing -------------------------------------------------------------------

    def update(self, *mappings: Mapping[str, Any], **settings: Any) -> None:
        """Set several at once; all or, if one is wrong, none."""
        merged: dict[str, Any] = {}
        for mapping in mappings:
            merged |= mapping
        self._apply(merged | settings, _CODE, "conf.update(...)")

    def load(self, source: object) -> None:
        """Take settings from a mapping, an object's lower-case attributes, or a module's name.

        ConfigurationError when there is no such module; an error inside it is left as it is.
        """
        if isinstance(source, str):
            source = _import(source)
        if isinstance(source, Mapping):
            found = dict(source)
        else:
            found = {name: getattr(source, name) for name in dir(source) if _is_meant(name)}
        where = getattr(source, "__name__", None) or type(source).__name__
        self._apply(found, _OBJECT, f"config_from_object ({where})")

    def as_dict(self) -> dict[str, Any]:
        """All settings by name, as plain values."""
        policy = self.task_publish_retry_policy._asdict()
        return dict(self) | {"task_publish_retry_policy": policy}

    def __setattr__(self, name: str, value: Any) -> None:
        self._apply({name: value}, _CODE, f"conf.{name}")

    def __getitem__(self, name: str) -> Any:
        if name not in DEFAULTS:
            raise _unknown(name, "conf[...]")
        return getattr(self, name)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def __contains__(self, name: object) -> bool:
        return name in DEFAULTS

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """All settings, each with its value."""
        return ((name, getattr(self, name)) for name in DEFAULTS)

    def __repr__(self) -> str:
        values = (f"{name}={getattr(self, name)!r}" for name in self._ranks)
        return url.masked(f"Settings({', '.join(values)})")

    def _apply(self, values: Mapping[str, Any], rank: int, where: str) -> None:
        for name in values:
            if name not in DEFAULTS:
                raise _unknown(name, where)
        checked, wrong = {}, []
        for name, kind in _KINDS.items():
            if name in values and self._ranks.get(name, 0) <= rank:
                try:
                    checked[name] = kinds.checked(name, kind, values[name])
                except kinds.WrongValue as error:
                    wrong.append(str(error))
        if wrong:
            raise ConfigurationError(f"{where}: {'; '.join(wrong)}")
        self.__dict__.update(checked, changes=self.changes + 1)
        self._ranks.update(dict.fromkeys(checked, rank))

    # -- what others are told ------------------------------------------------------------------

    def broker_options(self) -> BrokerOptions:
        """What the broker is told.

        With no `broker_url` that is the embedded broker, said once in the log; with
        TASKQ_REQUIRE_BROKER=1 in the environment it is a ConfigurationError.
        """
        urls = url.split(self.broker_url or ())
        if not urls:
            urls = (_embedded(),)
            _announce(urls[0])
        tls = self.broker_use_ssl
        return BrokerOptions(
            urls=urls,
            heartbeat=self.broker_heartbeat,
            connect_timeout=self.broker_connection_timeout,
            declare_timeout=self.declare_timeout,
            publish_timeout=self.publish_timeout,
            blocked_timeout=self.broker_blocked_timeout,
            dead_letter_max_length=self.dead_letter_max_length,
            dead_letter_ttl=self.dead_letter_ttl,
            result_expires=self.result_expires or _DAY,
            ssl=tls if isinstance(tls, dict) else {"enabled": True} if tls else {},
            root=project_root(),
        )

    def backend_options(self) -> BackendOptions:
        """What the result store is told; without `result_backend`, that of the broker's kind."""
        chosen = self.result_backend
        if chosen is None:
            broker = (*url.split(self.broker_url or ()), "")[0] or _embedded()
            chosen = "rpc://" if url.scheme(broker) in ("amqp", "amqps") else broker
        return BackendOptions(
            url=chosen,
            expires=self.result_expires or None,
            serializer=self.result_serializer,
            accept=self.result_accept_content or self.accept_content,
            timeout=self.result_backend_timeout,
            extra=dict(self.result_backend_transport_options),
            root=project_root(),
        )


_KINDS: Mapping[str, Any] = Settings.__annotations__
#: All settings, with the values that they have when nobody sets them.
DEFAULTS: Mapping[str, Any] = {name: vars(Settings)[name] for name in _KINDS}


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of *known* that *name* was probably meant to be."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(known), 1, cutoff)), None)


def _embedded() -> str:
    if os.environ.get("TASKQ_REQUIRE_BROKER", "0") not in ("", "0"):
        raise ConfigurationError(
            "no broker is configured and TASKQ_REQUIRE_BROKER is set: set broker_url or "
            "TASKQ_BROKER_URL"
        )
    return f"sqlite:///{os.path.join(project_root(), '.taskq', 'taskq.db')}"


def _announce(embedded: str) -> None:
    if embedded not in _announced:
        _announced.add(embedded)
        log.event("embedded-broker", path=embedded.removeprefix("sqlite:///"))


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, text in environment.items():
        name = variable.removeprefix("TASKQ_").lower()
        if name == variable.lower() or variable in _OTHER_VARIABLES:
            continue
        if name in DEFAULTS:
            found[name] = _read_variable(variable, text)
        elif name in FOREIGN:
            raise _unknown(name, f"the environment variable {variable}")
        elif near := modern(name.upper(), DEFAULTS) or closest(name, DEFAULTS, 0.8):
            raise ConfigurationError(
                f"the environment variable {variable} is no setting of taskq; "
                f"did you mean TASKQ_{near.upper()}?"
            )
        # Anything else is somebody else's: Kubernetes makes TASKQ_PORT for a service "taskq".
    return found


def _read_variable(variable: str, text: str) -> Any:
    """Lists, mappings and null are JSON; numbers and booleans are left to pydantic."""
    if text.lstrip()[:1] not in ("[", "{") and text.strip() != "null":
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(
            f"the environment variable {variable} is no valid JSON: {error}"
        ) from None


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name + ".").startswith(error.name + "."):
            raise ConfigurationError(f"config_from_object: there is no module {name!r}") from error
        raise


def _is_meant(name: str) -> bool:
    """Whether an attribute called *name* is a setting, or was probably meant to be one."""
    if name in DEFAULTS or name in FOREIGN:
        return True
    if name.isupper():
        return modern(name, DEFAULTS) is not None
    return not name.startswith("_") and closest(name, DEFAULTS, 0.85) is not None


def _unknown(name: str, where: str) -> ConfigurationError:
    if name in FOREIGN:
        hint = INSTEAD.get(name, "remove it")
        return ConfigurationError(f"{where}: taskq has no setting {name!r} of Celery; {hint}")
    if (now := modern(name.upper(), DEFAULTS)) and (name.isupper() or name.upper() in RENAMED):
        hint = f"; {INSTEAD.get(now, 'which taskq does not have')}" if now in FOREIGN else ""
        return ConfigurationError(f"{where}: the setting {name!r} is called {now!r} now{hint}")
    near = closest(name.lower(), DEFAULTS)
    meant = f"; did you mean {near!r}?" if near else ""
    return ConfigurationError(f"{where}: unknown setting {name!r}{meant}")
