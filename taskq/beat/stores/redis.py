"""A schedule's changes in a few keys of Redis, for any number of hosts.

::

    taskq-beat:<schedule>:entries   hash: name -> JSON of entry, enabled, since
    taskq-beat:<schedule>:runs      hash: name -> JSON of the last run
    taskq-beat:<schedule>:changes   how often the first was changed
    taskq-beat:<schedule>:mark      hash: epoch, pulse, note of the beat that leads
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from taskq.beat.base import Mark, Row, Run, StoreOptions, entry_to_text, read_row
from taskq.errors import BackendUnavailable
from taskq.redisclient import explain, open_client, redis
from taskq.schedules import Entry
from taskq.url import masked

#: KEYS: the mark.  ARGV: epoch and pulse that must stand there ("" for the latter: any), and what
#: replaces them: epoch, pulse, note.
_REPLACE = """
local epoch = redis.call('HGET', KEYS[1], 'epoch') or '0'
local pulse = redis.call('HGET', KEYS[1], 'pulse') or '0'
if epoch ~= ARGV[1] or (ARGV[2] ~= '' and pulse ~= ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'pulse', ARGV[4], 'note', ARGV[5])
return 1
"""
#: KEYS: entries, changes.  ARGV: name, "1" or "0", since.
_ENABLE = """
local text = redis.call('HGET', KEYS[1], ARGV[1])
local row = text and cjson.decode(text) or {}
row['enabled'] = ARGV[2] == '1'
row['since'] = ARGV[3]
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(row))
redis.call('INCR', KEYS[2])
"""


class RedisStore:
    """The keys of one Redis database."""

    shared = True

    def __init__(self, options: StoreOptions) -> None:
        self.url = masked(options.url.partition("?")[0])
        self._redis = open_client(options.url, timeout=options.timeout, setting="beat_store")
        key = f"taskq-beat:{options.schedule}"
        self._entries, self._runs = f"{key}:entries", f"{key}:runs"
        self._changes, self._mark = f"{key}:changes", f"{key}:mark"
        self._replace = self._redis.register_script(_REPLACE)
        self._enable = self._redis.register_script(_ENABLE)

    def attend(self) -> None:
        """Any number of hosts may use it."""

    def rows(self) -> list[Row]:
        with self._reporting():
            entries = _texts(self._redis.hgetall(self._entries))
            runs = _texts(self._redis.hgetall(self._runs))
        rows = []
        for name in sorted({*entries, *runs}):
            said = json.loads(entries.get(name, "{}"))
            since = said.get("since")
            row = read_row(
                name,
                said.get("entry"),
                said.get("enabled"),
                None if since is None else float(since),
                Run(*json.loads(runs[name])) if name in runs else None,
            )
            rows.append(row)
        return [row for row in rows if row is not None]

    def changes(self) -> int:
        with self._reporting():
            return int(self._redis.get(self._changes) or 0)

    def put(self, entry: Entry, since: float) -> None:
        # As text, because a number passes through Lua, which shortens it.
        text = json.dumps({"entry": entry_to_text(entry), "since": repr(since)})
        with self._reporting(), self._redis.pipeline() as together:
            together.hset(self._entries, entry.name, text)
            together.incr(self._changes)
            together.execute()

    def remove(self, name: str) -> bool:
        with self._reporting(), self._redis.pipeline() as together:
            together.hget(self._entries, name)
            together.hdel(self._entries, name)
            together.hdel(self._runs, name)
            together.incr(self._changes)
            there = together.execute()[0]
        return there is not None and json.loads(there).get("entry") is not None

    def enable(self, name: str, enabled: bool, since: float) -> None:
        with self._reporting():
            given = [name, "1" if enabled else "0", repr(since)]
            self._enable(keys=[self._entries, self._changes], args=given)

    def note(self, runs: Mapping[str, Run], *, by_hand: bool = False) -> None:
        with self._reporting(), self._redis.pipeline() as together:
            known = self._redis.hmget(self._runs, list(runs)) if runs else []
            texts: dict[Any, Any] = {
                name: json.dumps(run)
                for (name, run), text in zip(runs.items(), known, strict=True)
                if text is None or Run(*json.loads(text)).sent <= run.sent
            }
            if texts:
                together.hset(self._runs, mapping=texts)
            if by_hand:
                together.incr(self._changes)
            together.execute()

    def mark(self) -> Mark | None:
        with self._reporting():
            found = _texts(self._redis.hgetall(self._mark))
        return Mark(int(found["epoch"]), int(found["pulse"]), found["note"]) if found else None

    def take(self, seen: Mark | None, mark: Mark) -> bool:
        epoch, pulse = (seen.epoch, seen.pulse) if seen else (0, 0)
        with self._reporting():
            return bool(self._replace(keys=[self._mark], args=[epoch, pulse, *mark]))

    def keep(self, mark: Mark) -> bool:
        with self._reporting():
            return bool(self._replace(keys=[self._mark], args=[mark.epoch, "", *mark]))

    def close(self) -> None:
        self._redis.close()

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            reason = explain(error) or str(error)
            raise BackendUnavailable(
                masked(f"the beat store {self.url} cannot be used: {reason}")
            ) from error


def _texts(found: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in found.items()}
