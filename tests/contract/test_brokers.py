"""Every broker keeps the contract of `taskq.broker.base`."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from taskq.broker.amqp import AmqpBroker
from taskq.broker.base import BrokerOptions
from taskq.broker.memory import MemoryBroker
from taskq.broker.sqlite import SqliteBroker
from taskq.testing.broker_contract import BrokerContract, OpenBroker


class TestMemory(BrokerContract):
    cannot = dict.fromkeys(
        ["test_an_outlet_survives_a_fork"],
        "memory:// is one process's memory: a forked child has a copy of its own",
    )

    @pytest.fixture
    def open_broker(self) -> OpenBroker:
        options = BrokerOptions((f"memory://{uuid.uuid4().hex}",))
        return lambda: MemoryBroker(options)


class TestSqlite(BrokerContract):
    @pytest.fixture
    def open_broker(self, tmp_path: Path) -> OpenBroker:
        options = BrokerOptions(("sqlite:///.taskq/taskq.db",), root=str(tmp_path))
        return lambda: SqliteBroker(options)


class TestAmqp(BrokerContract):
    @pytest.fixture
    def open_broker(self, rabbit: Any) -> OpenBroker:
        options = BrokerOptions((rabbit.url,))
        return lambda: AmqpBroker(options)
