"""The result store goes away and comes back while results are stored and awaited."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.arena import COUNT, PATIENCE, SCALE, Account, MakeArena, Tally
from tests.support.postgres import PostgresServer
from tests.support.rabbit import Rabbit
from tests.support.redis_server import RedisServer
from tests.support.site import Site


@pytest.mark.parametrize("store", ["own_redis", "own_postgres"])
def test_every_result_arrives_when_the_store_is_stopped_and_killed(
    store: str, request: pytest.FixtureRequest, arena_on: MakeArena, rabbit: Rabbit, tally: Tally
) -> None:
    server: RedisServer | PostgresServer = request.getfixturevalue(store)
    url = server.url if store == "own_redis" else f"db+{server.url}"
    arena = arena_on(Site(rabbit.url))
    worker = arena.worker(TASKQ_RESULT_BACKEND=url)
    app = arena.site.app(result_backend=url)
    results = [app.send_task("tasks.work", args=(0.003,), queue="q1") for _ in range(COUNT)]
    with ThreadPoolExecutor(1) as waiter:
        got = waiter.submit(lambda: [each.get(timeout=PATIENCE) for each in results])

        faults = 2 * SCALE
        for fault in range(1, faults + 1):
            arena.done(COUNT // 2 + fault * COUNT // 2 // (faults + 1))
            if fault % 2:
                server.kill()
            else:
                server.stop()
            server.start()

        assert got.result() == [None] * COUNT
    assert 0 == worker.stop()
    assert {each.id for each in results} == set(arena.ledger.ids())
    # A result that is on its way when the store goes is stored again, not its task run again.
    assert 0 == arena.ledger.repeats()
    tally(Account(sent=COUNT, done=len(arena.ledger.ids())))
