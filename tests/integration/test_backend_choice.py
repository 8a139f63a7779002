"""Which store a URL opens, and what is said when it opens none."""

import pytest

from taskq.backends import open_backend
from taskq.backends.base import BackendOptions
from taskq.backends.memory import MemoryBackend
from taskq.errors import ConfigurationError
from taskq.testing.backend_contract import a_success


def opened(url, **options):
    return open_backend(BackendOptions(url, **options), broker=None, outlet=None)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://localhost:1/0", "RedisBackend"),
        ("rediss://localhost:1/0", "RedisBackend"),
        ("db+postgresql://localhost:1/x", "SqlBackend"),
        ("db+sqlite:///x.db", "SqlBackend"),
        ("sqlite:///x.db", "SqliteBackend"),
        ("memory://", "MemoryBackend"),
        ("disabled://", "DisabledBackend"),
        ("disabled", "DisabledBackend"),
        ("rpc://", "RpcBackend"),
    ],
)
def test_a_url_opens_its_store_and_connects_nowhere(url, kind, tmp_path):
    backend = opened(url, root=str(tmp_path))

    assert type(backend).__name__ == kind
    assert not list(tmp_path.iterdir())
    backend.close()


def test_an_unknown_scheme_is_told_with_those_that_exist_and_without_its_password():
    with pytest.raises(ConfigurationError) as told:
        opened("mongodb://user:hidden@host")

    assert "mongodb://user:***@host" in str(told.value)
    assert "rpc, redis, rediss, db, sqlite, memory, disabled" in str(told.value)


def test_a_disabled_store_takes_everything_and_answers_no_question():
    backend, result = opened("disabled://"), a_success()

    backend.store(result)
    backend.forget(result.task_id)

    with pytest.raises(ConfigurationError, match="result_backend is 'disabled://'"):
        backend.fetch(result.task_id)
    with pytest.raises(ConfigurationError, match="result_backend is 'disabled://'"):
        backend.subscribe(result.task_id, print)


def test_a_package_adds_a_store_by_an_entry_point(tmp_path, monkeypatch):
    package = tmp_path / "attic-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: attic\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[taskq.backends]\nattic = attic:open_attic\n")
    (tmp_path / "attic.py").write_text(
        "from taskq.backends.memory import MemoryBackend\n"
        "def open_attic(options):\n    return MemoryBackend(options)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    backend = opened("attic://box")

    assert isinstance(backend, MemoryBackend)
