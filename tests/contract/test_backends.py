"""Every result store keeps the contract of `taskq.backends.base`."""

from pathlib import Path
from typing import Any

import pytest

from taskq.backends.base import Backend, BackendOptions
from taskq.backends.memory import MemoryBackend
from taskq.backends.redis import RedisBackend
from taskq.backends.sql import SqlBackend
from taskq.backends.sqlite import SqliteBackend
from taskq.testing.backend_contract import BackendContract, OpenStore


def opener(kind: type[Backend], url: str, **defaults: Any) -> OpenStore:
    def open_store(**changes: Any) -> Backend:
        return kind(BackendOptions(url, **(defaults | changes)))

    return open_store


class TestMemory(BackendContract):
    cannot = dict.fromkeys(
        [
            "test_a_forked_child_stores_and_its_parent_hears",
            "test_a_forked_child_can_wait_for_results",
        ],
        "memory:// is one process's memory: a forked child has a copy of its own",
    )

    @pytest.fixture
    def open_store(self, request: pytest.FixtureRequest) -> OpenStore:
        return opener(MemoryBackend, f"memory://{request.node.name}")


class TestSqlite(BackendContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return opener(SqliteBackend, "sqlite:///.taskq/taskq.db", root=str(tmp_path))


class TestRedis(BackendContract):
    @pytest.fixture
    def open_store(self, redis_server: Any) -> OpenStore:
        return opener(RedisBackend, redis_server.url)


class TestPostgres(BackendContract):
    @pytest.fixture
    def open_store(self, postgres: Any) -> OpenStore:
        return opener(SqlBackend, f"db+{postgres.url}", interval=0.05)


class TestSqliteThroughSqlAlchemy(BackendContract):
    """Nobody needs it, but it shows that the SQL is not PostgreSQL's alone."""

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return opener(SqlBackend, "db+sqlite:///results.db", root=str(tmp_path), interval=0.05)
