"""The tables of the embedded broker: every statement that reads or changes them.

A message is a row, and `state` says where it stands::

                 due passes                take
    WAITING ------------------> READY -------------> HELD --- ack ---> (deleted)
       ^                        ^   ^                  |
       '-- publish with due     |   '------------------'
                    publish ----'      requeue, close, death of the owner,
                                       dead letter (in the queue beside)

A row's id is the moment when it was written, in microseconds since the epoch, or just above the
last one: ids only grow, whatever the clock does, and tell how old a message is.

A held row names its `owner`, and so does every settlement: one by somebody who lost the message
changes nothing.  When statements are run, and in which transaction, is decided in `sqlite`.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from taskq import clock
from taskq.broker import exchange
from taskq.broker.base import Done, Queue, Route
from taskq.broker.exchange import Binding
from taskq.broker.sqlite_owner import NOBODY
from taskq.broker.topology import DEAD
from taskq.errors import ConfigurationError, Undeliverable
from taskq.wire.message import Message

#: Messages made ready in one transaction when their time has come, lest other writers wait long.
_SLICE = 1000

# 0 and 1 take no bytes in a record, and the owner always four: taking overwrites a row in place.
_READY, _HELD, _WAITING = 0, 1, 2

SCHEMA = f"""
create table if not exists binding (
    exchange text, type text, routing_key text, queue text,
    primary key (exchange, routing_key, queue)
) without rowid;
create table if not exists message (
    id integer primary key,
    queue text not null,
    rank integer not null,
    state integer not null,
    owner integer not null default {NOBODY},
    tries integer not null default 0,
    again integer not null default 0,
    due real,
    expires real,
    exchange text not null,
    routing_key text not null,
    properties blob not null,
    body blob not null
);
create index if not exists message_ready on message (queue, rank) where state = {_READY};
create index if not exists message_held on message (owner) where state = {_HELD};
create index if not exists message_waiting on message (due) where state = {_WAITING};
create index if not exists message_expires on message (expires) where expires is not null;
"""

BIND = "insert or ignore into binding values (?, ?, ?, ?)"
_BOUND = "select exchange, type, routing_key, queue from binding where exchange = ?"
_BOUND_BY = f"{_BOUND} and routing_key = ?"

_COLUMNS = "queue, rank, state, due, expires, exchange, routing_key, properties, body"
#: SQLite gives each row the id above the last one, which makes the first one's that of all.
_INSERT = f"insert into message ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
#: The row, then now in microseconds.
_INSERT_FIRST = f"""
insert into message ({_COLUMNS}, id)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, max(?, (select coalesce(max(id), 0) + 1 from message)))
"""
#: (owner, queue, how many); the rows come in no order, but sort into theirs.
TAKE = f"""
update message set state = {_HELD}, owner = ? where id in (
    select id from message where queue = ? and state = {_READY} order by rank, id limit ?
) returning rank, id, again, tries, exchange, routing_key, properties, body
"""

# Settlements: (id, owner), or (owner) for all that it holds.
_BACK = f"state = {_READY}, owner = {NOBODY}, again = 1"
ACK = "delete from message where id = ? and owner = ?"
REQUEUE = f"update message set {_BACK}, tries = tries + 1 where id = ? and owner = ?"
GIVE_BACK = f"update message set {_BACK} where state = {_HELD} and owner = ?"
BURY = f"update message set {_BACK}, tries = tries + 1 where state = {_HELD} and owner = ?"
#: (id, owner, dead-letter queue, when it expires there)
DEAD_LETTER = f"""
update message set state = {_READY}, owner = {NOBODY}, again = 0, tries = 0,
    expires = given.expires, queue = given.dead, exchange = '', routing_key = given.dead
from (select ? as id, ? as owner, ? as dead, ? as expires) as given
where message.id = given.id and message.owner = given.owner
"""

#: (now)
PROMOTE = f"""
update message set state = {_READY} where id in (
    select id from message where state = {_WAITING} and due <= ? order by due limit {_SLICE}
)
"""
_OVER = f"expires <= ? and state <> {_HELD}"
#: (now); what lived out its time among dead letters is gone.
VANISH = f"delete from message where {_OVER} and queue glob '*{DEAD}'"
#: (when it expires there, now); anything else is one from now on.  Returns the queues it is in.
EXPIRE = f"""
update message set state = {_READY}, again = 0, tries = 0, due = null, expires = ?,
    queue = queue || '{DEAD}', exchange = '', routing_key = queue || '{DEAD}' where {_OVER}
returning queue
"""
#: (queue, how many may stay); the head of the queue goes.
_SHORTEN = f"""
delete from message where id in (
    select id from message where queue = ? and state = {_READY}
    order by rank desc, id desc limit -1 offset ?
)
"""
ANY_EXPIRED = f"select 1 from message where {_OVER} limit 1"

ANY_READY = f"select 1 from message where queue = ? and state = {_READY} limit 1"
EARLIEST = f"select due from message where state = {_WAITING} order by due limit 1"
OWNERS = f"select distinct owner from message where state = {_HELD}"
#: (queue, now); the owners of what is held, and how much that is
HELD = f"""
select owner, count(*) from message
where queue = ? and state = {_HELD} and (expires is null or expires > ?) group by owner
"""
#: (queue, now); ready is also what nobody was there to promote or to bury, and not what should be
#: gone.
COUNT = f"""
with given (queue, now) as (select ?, ?)
select (select count(*) from message where queue = given.queue and state = {_READY})
    - (select count(*) from message where queue = given.queue and state = {_READY}
        and expires <= given.now)
    + (select count(*) from message where queue = given.queue and state = {_WAITING}
        and due <= given.now and (expires is null or expires > given.now))
    + (select count(*) from message where queue || '{DEAD}' = given.queue and state <> {_HELD}
        and expires <= given.now)
from given
"""
#: Of (queue, now), by parameters of these names.
EXISTS = """
select exists (select 1 from binding where queue = :queue)
    or exists (select 1 from message where queue = :queue)
"""
DELAYED = f"""
select count(*) from message
where state = {_WAITING} and due > :now and (:queue is null or queue = :queue)
"""
#: When the oldest of what is ready was sent or became due: seconds, null if there is nothing.
OLDEST = f"""
select min(max(id / 1e6, coalesce(due, 0))) from message where queue = :queue and (
    state = {_READY} or (state = {_WAITING} and due <= :now)
) and (expires is null or expires > :now)
"""
PURGE = f"""
delete from message
where queue = :queue and (state = {_READY} or (state = {_WAITING} and due <= :now))
"""
#: What waits for its time stays: it may be that the queue is there again by then.
DELETE = (
    "delete from binding where queue = :queue",
    f"delete from message where queue = :queue and state <> {_WAITING}",
)


#: A row as INSERT wants it, and as TAKE returns it.
Made = tuple[str, int, int, float | None, float | None, str, str, bytes, bytes]
Taken = tuple[int, int, int, int, str, str, bytes, bytes]


class Send(NamedTuple):
    """One call of `publish`."""

    message: Message
    route: Route
    due: float | None
    mandatory: bool
    done: Done


class Postmaster:
    """Turns sends into rows; remembers the queues it met, to ask the file less.  Thread-safe.

    No queue of dead letters grows beyond *longest* while it inserts.
    """

    def __init__(self, longest: int) -> None:
        #: (exchange, routing key, queue) of bindings that are in the file; it only grows.
        self._known: set[tuple[str, str, str]] = set()
        self._longest = longest
        #: How many more dead letters a queue may get before somebody looks how long it is.
        self._unwatched: dict[str, int] = {}

    def rows(self, db: sqlite3.Connection, send: Send) -> list[Made]:
        """What INSERT needs for each queue that gets the message; raises Undeliverable.

        What the route declares is declared in the transaction of *db*; `learn` once it has ended.
        """
        message, route, due, mandatory, _ = send
        for queue in route.declare:
            if (queue.exchange, queue.routing_key, queue.name) not in self._known:
                db.executemany(BIND, _bindings(queue))
        rank, lifetime = exchange.rank_and_lifetime(message.raw)
        expires = None if lifetime is None else (due or clock.wall()) + lifetime
        state = _READY if due is None else _WAITING
        rest = (state, due, expires, route.exchange, route.routing_key, message.raw, message.body)
        return [(queue, rank, *rest) for queue in self._targets(db, route, mandatory)]

    def learn(self, route: Route) -> None:
        """Remember what *route* declared, now that it is committed."""
        for queue in route.declare:
            binding = (queue.exchange, queue.routing_key, queue.name)
            if binding not in self._known:
                self._known |= {binding, ("", queue.name, queue.name)}

    def insert(self, db: sqlite3.Connection, made: Sequence[Made]) -> None:
        """Write the rows *made*, in the transaction of *db*."""
        if made:
            db.execute(_INSERT_FIRST, (*made[0], int(clock.wall() * 1e6)))
        if len(made) > 1:
            db.executemany(_INSERT, made[1:])
        if dead := [row[0] for row in made if row[0].endswith(DEAD)]:
            self.bound(db, dead)

    def bound(self, db: sqlite3.Connection, dead: Iterable[str]) -> None:
        """Drop the oldest of too many dead letters: each of the queues *dead* just got one more.

        To look is to count them all, so it is done once for each percent of the longest length.
        """
        for queue, more in Counter(dead).items():
            left = self._unwatched.get(queue, 0) - more
            if left < 0:
                db.execute(_SHORTEN, (queue, self._longest))
                left = self._longest // 100
            self._unwatched[queue] = left

    def _targets(self, db: sqlite3.Connection, route: Route, mandatory: bool) -> Sequence[str]:
        key = route.routing_key
        if route.exchange:
            bound = db.execute(_BOUND, (route.exchange,))
        elif ("", key, key) in self._known:
            return (key,)
        else:
            bound = db.execute(_BOUND_BY, ("", key))
        return exchange.targets(map(Binding._make, bound), route, mandatory=mandatory)


def _bindings(queue: Queue) -> list[Binding]:
    try:
        return exchange.bindings(queue)
    except ConfigurationError as error:
        raise Undeliverable(f"not queued: {error}") from error
