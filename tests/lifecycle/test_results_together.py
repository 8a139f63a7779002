"""Results of short tasks, which a child stores together: what its death means for them."""

import pytest

from taskq.errors import WorkerLostError
from tests.support.ledger import Ledger, assert_conserved
from tests.support.process import APP, StartWorker
from tests.support.rabbit import Rabbit
from tests.support.redis_server import RedisServer
from tests.support.site import Site


def test_who_stores_results_together_is_not_to_blame_for_each_others_deaths(
    rabbit: Rabbit, redis_server: RedisServer, worker_process: StartWorker, ledger: Ledger
) -> None:
    site = Site(rabbit.url)
    env = {**site.env, "TASKQ_RESULT_BACKEND": redis_server.url}
    app = site.app(result_backend=redis_server.url)
    try:
        good = [app.send_task("tasks.act", args=("ok", n), queue="q1") for n in range(400)]
        poison = app.send_task("tasks.act", args=("kill",), queue="q1")
        good += [app.send_task("tasks.act", args=("ok", n), queue="q1") for n in range(400, 600)]
        worker = worker_process(APP, "-Q", "q1", "-c", "1", env=env)

        assert list(range(600)) == [each.get(timeout=60) for each in good]
        with pytest.raises(WorkerLostError):
            poison.get(timeout=60)
        assert 0 == worker.stop()
    finally:
        app.close()

    lost = [event["id"] for event in worker.events if event["event"] == "task-lost"]
    assert [poison.id] * 3 == lost
    (dead,) = site.take("q1.dead", 1)
    sent = [each.id for each in good] + [poison.id]
    assert_conserved(sent, ledger, dead=[dead.headers["id"]])
