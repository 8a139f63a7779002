"""Waiting for a result that begins while its store is away goes on until the store is back."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from taskq import AsyncResult, BackendUnavailable, TaskQ
from taskq.backends.base import Backend, OnReady
from taskq.testing.backend_contract import a_success
from tests.support.wait import wait_until

#: How long whatever must happen may take, in seconds.
BOUND = 60.0


class Store(NamedTuple):
    """A result store that can go away; *settings* lead an app to it."""

    settings: dict[str, str]
    leave: Callable[[], object]
    come_back: Callable[[], object]


def _a_server(server: Any, url: str) -> Store:
    broker = f"memory://{uuid.uuid4().hex}"
    return Store({"broker_url": broker, "result_backend": url}, server.stop, server.start)


def _a_file(folder: Path) -> Store:
    # It cannot be opened as long as something that is no folder stands in its way.
    broker, url = f"memory://{uuid.uuid4().hex}", f"sqlite:///{folder}/results.db"
    return Store({"broker_url": broker, "result_backend": url}, folder.touch, folder.unlink)


@pytest.fixture(params=["redis", "postgresql", "sqlite", "db+sqlite", "rpc"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "redis":
            redis = request.getfixturevalue("own_redis")
            return _a_server(redis, redis.url)
        case "postgresql":
            postgres = request.getfixturevalue("own_postgres")
            return _a_server(postgres, f"db+{postgres.url}")
        case "rpc":
            rabbit = request.getfixturevalue("own_rabbit")
            settings = {"broker_url": rabbit.url, "result_backend": "rpc://"}
            return Store(settings, rabbit.node.kill, rabbit.node.start)
        case kind:
            made = _a_file(tmp_path / "in the way")
            url = made.settings["result_backend"]
            if kind == "db+sqlite":
                # SQLAlchemy makes no folder.
                folder = tmp_path / "in the way"
                made = made._replace(come_back=lambda: (folder.unlink(), folder.mkdir()))
                url = f"db+{url}"
            return made._replace(settings={**made.settings, "result_backend": url})


class Watched:
    """A backend that tells how often somebody has tried to begin to wait."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.attempts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def subscribe(
        self, task_id: str, on_ready: OnReady, *, fresh: bool = False
    ) -> Callable[[], None]:
        try:
            return self._backend.subscribe(task_id, on_ready, fresh=fresh)
        finally:
            self.attempts += 1


@pytest.fixture
def apps() -> Iterator[list[TaskQ]]:
    opened: list[TaskQ] = []
    yield opened
    for app in opened:
        app.close()


WAYS: dict[str, Callable[[AsyncResult[Any]], Any]] = {
    "get": lambda result: result.get(timeout=BOUND),
    "get with an interval": lambda result: result.get(timeout=BOUND, interval=0.05),
    "aget": lambda result: asyncio.run(result.aget(timeout=BOUND)),
}


def test_who_begins_to_wait_while_the_store_is_away_has_the_result_when_it_is_back(
    store: Store, apps: list[TaskQ]
) -> None:
    asker, worker = TaskQ("asker", **store.settings), TaskQ("worker", **store.settings)
    apps += [asker, worker]
    results = {way: asker.send_task("t") for way in WAYS}
    watched = Watched(asker.backend)
    asker._backend = watched  # type: ignore[assignment]
    replies = asker.backend.reply_queue()

    store.leave()
    with ThreadPoolExecutor(len(WAYS)) as threads:
        waiting = {way: threads.submit(WAYS[way], result) for way, result in results.items()}
        # The listener of replies mends its connection by itself: there one attempt is enough.
        enough = len(WAYS) if replies else 2 * len(WAYS)
        wait_until(lambda: watched.attempts >= enough, "attempts to wait")
        store.come_back()
        for way, result in results.items():
            success = a_success(way, result.id)
            wait_until(lambda success=success: _stored(worker, success, replies), "the store")

        assert {way: way for way in WAYS} == {
            way: got.result(BOUND) for way, got in waiting.items()
        }


def _stored(worker: TaskQ, success: Any, replies: Any) -> bool:
    try:
        worker.backend.store(success, reply_to=replies and replies.name)
    except BackendUnavailable:
        return False
    return True


@pytest.mark.parametrize("settings", [{}, {"result_store_retry": 0.2}], ids=["timeout", "none"])
def test_a_store_that_stays_away_is_an_error_that_says_so(
    settings: dict[str, float], tmp_path: Path, apps: list[TaskQ]
) -> None:
    store = _a_file(tmp_path / "in the way")
    app = TaskQ(**store.settings, **settings)
    apps.append(app)
    watched = Watched(app.backend)
    app._backend = watched  # type: ignore[assignment]
    store.leave()
    result = app.AsyncResult("i")
    timeout = None if settings else 0.2

    with pytest.raises(BackendUnavailable, match=r"result of task i in file .*results\.db"):
        result.get(timeout)
    tried = watched.attempts
    with pytest.raises(BackendUnavailable):
        asyncio.run(result.aget(timeout))
    again = watched.attempts - tried
    with pytest.raises(BackendUnavailable):
        result.get(timeout=0)
    with pytest.raises(BackendUnavailable):
        _ = result.state

    assert tried > 1
    assert again > 1
    assert watched.attempts == tried + again + 1
