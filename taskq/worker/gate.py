"""May this delivery run now?  Decided from its headers alone, before any body is opened.

The gate knows the tasks of this worker, what operators have decided, and how often each task may
begin.  Pure: the time is passed in.  What is done about an answer is the dispatcher's business.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from taskq.broker.base import Delivery
from taskq.control.memory import Remembered
from taskq.rate import parse_rate
from taskq.wire.headers import TaskHeaders
from taskq.worker.ledger import Job
from taskq.worker.outcome import Policy
from taskq.worker.rates import Bucket

#: A delivery that is early by no more than this is held; an earlier one goes back to the broker's
#: ladder of delays, whose steps are this long (seconds).
LONGEST_HOLD = 1 / 16


@dataclass(frozen=True, slots=True)
class Run:
    """Hand it to a child."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep it until *until*, seconds since the epoch."""

    until: float


@dataclass(frozen=True, slots=True)
class Delay:
    """Give it back to the broker until *until*, seconds since the epoch."""

    until: float


@dataclass(frozen=True, slots=True)
class Revoked:
    """An operator revoked it: it ends as REVOKED."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Its queue is paused: it goes back there."""


@dataclass(frozen=True, slots=True)
class Expired:
    """Its `expires` has passed: it ends as REVOKED."""


@dataclass(frozen=True, slots=True)
class Unregistered:
    """No task of its name is registered in this worker."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The broker delivered it too often: something keeps taking whole workers down."""


Verdict = Run | Hold | Delay | Revoked | Paused | Expired | Unregistered | Exhausted

_RUN = Run()


class Gate:
    """Judges deliveries by the *policies* of this worker's tasks and by what is *remembered*.

    A message is delivered *max_deliveries* times at most.  Without *limit_rates* no task waits for
    its rate.
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        remembered: Remembered,
        *,
        max_deliveries: int,
        limit_rates: bool = True,
    ) -> None:
        #: The tasks of this worker, with the time limits that operators chose.
        self.policies: Mapping[str, Policy] = {}
        self._remembered = remembered
        self._max_deliveries = max_deliveries
        self._limit_rates = limit_rates
        #: Task name -> tokens, where there is a limit.
        self._buckets: dict[str, Bucket] = {}
        #: Whether any message may be kept from running by what is remembered.
        self._is_strict = False
        self.learn(policies)

    def learn(self, policies: Mapping[str, Policy]) -> None:
        """From now on these are the tasks and their policies."""
        self._own = policies
        self.refresh()

    def refresh(self) -> None:
        """Follow what is remembered, which has changed."""
        known = self._remembered
        self._is_strict = bool(known.revoked or known.revoked_headers or known.paused)
        self.policies = dict(self._own)
        for name in self._own.keys() & known.time_limits.keys():
            hard, soft = known.time_limits[name]
            self.policies[name] = replace(self._own[name], time_limit=hard, soft_time_limit=soft)
        buckets = self._buckets
        self._buckets = {}
        for name, policy in self._own.items() if self._limit_rates else ():
            rate = parse_rate(known.rate_limits.get(name, policy.rate_limit))
            if rate is not None:
                same = name in buckets and buckets[name].rate == rate
                self._buckets[name] = buckets[name] if same else Bucket(rate)

    def judge(self, headers: TaskHeaders, delivery: Delivery, now: float) -> Verdict:
        """What to do with *delivery* at *now*, seconds since the epoch."""
        if self._is_strict and (barred := self._barred(headers, delivery)) is not None:
            return barred
        if headers.task not in self.policies:
            return Unregistered()
        if delivery.count >= self._max_deliveries:
            return Exhausted()
        if headers.expires is not None and headers.expires <= now:
            return Expired()
        start = now
        if headers.eta is not None and headers.eta > now:
            start = headers.eta
            if start - now > LONGEST_HOLD:
                return Delay(start)
        if self._buckets and (bucket := self._buckets.get(headers.task)) is not None:
            token = bucket.take(start, now + LONGEST_HOLD)
            if token is None:
                return Delay(bucket.come_back(now))
            start = token
        return Hold(start) if start > now else _RUN

    def bars(self, job: Job) -> Revoked | Paused | None:
        """What operators decided that keeps *job* from running; None if nothing does."""
        if not self._is_strict or job.headers is None:
            return None
        return self._barred(job.headers, job.delivery)

    def _barred(self, headers: TaskHeaders, delivery: Delivery) -> Revoked | Paused | None:
        known = self._remembered
        # Its headers are decoded only where they matter.
        stamps = delivery.message.headers.get("stamps") if known.revoked_headers else None
        if known.is_revoked(headers.id, stamps if isinstance(stamps, Mapping) else None):
            return Revoked()
        return Paused() if delivery.queue in known.paused else None
