"""Fixtures: the result stores that tests share, and those that a test may stop.

With TASKQ_TEST_REDIS_URL or TASKQ_TEST_SQL_URL set, the shared ones are those servers.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.postgres import PostgresServer
from tests.support.redis_server import RedisServer


class Given(NamedTuple):
    """A server that was running before the tests, and that they must leave running."""

    url: str


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer | Given]:
    """The session's Redis: its `url`."""
    if url := os.environ.get("TASKQ_TEST_REDIS_URL"):
        yield Given(url)
        return
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer | Given]:
    """The session's PostgreSQL: its `url`, which starts with `postgresql://`."""
    if url := os.environ.get("TASKQ_TEST_SQL_URL"):
        yield Given(url.removeprefix("db+"))
        return
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A running Redis that the test may stop, kill and start."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL that the test may stop, kill and start."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()
