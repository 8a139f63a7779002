"""One fleet for all tests of this folder that leave it as it was, and what it needs."""

from collections.abc import Iterator

import pytest

from tests.interop.fleet import ALL, Fleet, Flower, node
from tests.support.process import _WORKERS
from tests.support.rabbit import RabbitNode
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until


@pytest.fixture(scope="package")
def managed_rabbit() -> Iterator[RabbitNode]:
    """A RabbitMQ with the management plugin."""
    node = RabbitNode(management=True)
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture(scope="package")
def whole_fleet(
    managed_rabbit: RabbitNode,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    """All its workers are ready."""
    fleet = Fleet(managed_rabbit, redis_server, tmp_path_factory.mktemp("fleet"))
    try:
        fleet.launch(*ALL)
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def fleet(whole_fleet: Fleet, request: pytest.FixtureRequest) -> Fleet:
    """The fleet; a test that steers it puts it back as it was."""
    request.node.stash[_WORKERS] = list(whole_fleet.members.values())
    return whole_fleet


@pytest.fixture(scope="package")
def flower(whole_fleet: Fleet) -> Iterator[Flower]:
    """Flower, which has heard of all workers, and they of it."""
    flower = Flower(whole_fleet)
    try:
        wait_until(
            lambda: {*ALL} <= {name for name, row in flower.workers().items() if row["status"]},
            "Flower to see all workers",
        )
        wait_until(
            lambda: all("already" in said for said in _enable_events(whole_fleet)),
            "Flower to have events about tasks enabled",
        )
        yield flower
    finally:
        flower.close()


def _enable_events(fleet: Fleet) -> list[str]:
    """What the workers say when events are to be enabled, which may be so already."""
    replies = fleet.theirs.control.enable_events([*map(node, ALL)], reply=True, timeout=20)
    return [str(said) for each in replies for said in each.values()]
