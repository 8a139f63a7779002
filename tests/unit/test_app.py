"""The app: what it holds, shared tasks, modules, and what importing it costs."""

import subprocess
import sys
import threading
import weakref

import pytest

import taskq
from taskq import (
    ConfigurationError,
    TaskAlreadyRegistered,
    TaskNotRegistered,
    TaskQ,
    shared_task,
)
from taskq import (
    app as app_module,
)
from taskq.client import base
from taskq.testing import eager_app, memory_app, sent, wait_until


@pytest.fixture(autouse=True)
def shared(monkeypatch):
    """No test leaves shared tasks or a default app behind."""
    monkeypatch.setattr(app_module, "_shared", [])
    monkeypatch.setattr(app_module, "_apps", weakref.WeakSet())
    monkeypatch.setattr(base, "_default", None)


def test_arguments_are_settings():
    app = TaskQ("proj", broker="memory://", backend="disabled://", include=["a"], queue_prefix="p")

    assert app.main == "proj"
    assert app.conf.broker_url == "memory://"
    assert app.conf.result_backend == "disabled://"
    assert app.conf.include == ("a",)
    assert app.conf.queue_prefix == "p"


def test_a_wrong_setting_is_refused_where_the_app_is_made():
    with pytest.raises(ConfigurationError, match=r"TaskQ\(\.\.\.\): unknown setting 'borker_url'"):
        TaskQ(borker_url="memory://")


def test_two_functions_of_one_name_are_an_error():
    app = memory_app()

    @app.task(name="same")
    def one():
        pass

    with pytest.raises(TaskAlreadyRegistered):

        @app.task(name="same")
        def two():
            pass


def test_what_is_no_task_is_refused():
    app = memory_app()

    with pytest.raises(TypeError, match="made of a function"):
        app.task(5)
    with pytest.raises(ConfigurationError, match="derived from"):
        app.task(base=dict)(lambda: None)


def test_a_change_of_settings_is_a_change_of_routes():
    app = memory_app()
    app.conf.task_routes = {"t": "first"}
    before = app.router.said("t", (), {}, {})
    app.conf.task_routes = {"t": "second"}

    assert before == {"queue": "first"}
    assert app.router.said("t", (), {}, {}) == {"queue": "second"}
    assert app.router is app.router


# -- shared tasks ----------------------------------------------------------------------------------


def test_a_shared_task_belongs_to_every_app_earlier_or_later():
    early = memory_app()

    @shared_task(name="shared")
    def work():
        return 1

    late = memory_app()

    assert early.registry["shared"].app is early
    assert late.registry["shared"].app is late


def test_a_shared_task_is_called_with_the_app_made_last_in_any_thread():
    @shared_task(bind=True, name="shared")
    def work(self):
        return self.app

    with pytest.raises(ConfigurationError, match="shared task shared needs an app"):
        work.delay()

    eager_app()
    last = eager_app()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(work.delay().get()))
    thread.start()
    thread.join()

    assert seen == [last]


def test_a_shared_task_in_a_registry_runs_for_that_app():
    @shared_task(bind=True, name="shared")
    def work(self):
        return self.app

    first = memory_app()
    memory_app()

    assert first.registry["shared"].apply().get() is first


def test_two_shared_functions_of_one_name_are_an_error():
    @shared_task(name="same")
    def one():
        pass

    memory_app()
    with pytest.raises(TaskAlreadyRegistered):

        @shared_task(name="same")
        def two():
            pass


# -- modules ---------------------------------------------------------------------------------------


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Packages `shop_<test>` with tasks, `bare_<test>` without, `broken_<test>` with a mistake."""
    bodies = {
        "shop_pkg/tasks.py": "from taskq import shared_task\n@shared_task\ndef sell(): pass\n",
        "bare_pkg/__init__.py": "",
        "broken_pkg/tasks.py": "import nothing_of_this_name\n",
    }
    for path, body in bodies.items():
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [
        name for name in sys.modules if name.split(".")[0] in {b.split("/")[0] for b in bodies}
    ]:
        del sys.modules[name]


def test_modules_are_imported_when_asked_and_not_before(packages):
    app = memory_app(include=["shop_pkg.tasks"])

    assert "shop_pkg.tasks" not in sys.modules
    app.import_modules()
    assert "shop_pkg.tasks.sell" in app.registry


def test_autodiscovery_finds_the_modules_that_there_are(packages):
    app = memory_app()
    app.autodiscover_tasks(["shop_pkg", "bare_pkg"])
    app.autodiscover_tasks(lambda: ["bare_pkg"], related_name="jobs")
    app.import_modules()

    assert list(app.registry) == ["shop_pkg.tasks.sell"]


def test_a_mistake_inside_a_discovered_module_is_not_hidden(packages):
    app = memory_app()
    app.autodiscover_tasks(["broken_pkg"])

    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        app.import_modules()


# -- calls that need no worker ---------------------------------------------------------------------


def test_an_unregistered_task_in_a_signature_cannot_run_in_place():
    app = eager_app()

    with pytest.raises(TaskNotRegistered):
        app.send_many([app.signature("unknown")])


def test_what_was_sent_is_recorded_for_its_app_only():
    app, other = memory_app(), memory_app()

    @app.task(name="t")
    def work(x, y=0):
        pass

    with sent(app) as record:
        result = work.apply_async((1,), {"y": 2}, queue="q", headers={"h": "v"})
        other.send_task("elsewhere")
        app.send_task("plain")
    work.delay(3)

    first, second = record
    assert (first.name, first.args, first.kwargs, first.queue) == ("t", (1,), {"y": 2}, "q")
    assert (first.headers, first.id) == ({"h": "v"}, result.id)
    assert (second.name, second.queue) == ("plain", "default")


def test_waiting_has_a_bound():
    with pytest.raises(AssertionError, match="for rain; last answer: 0"):
        wait_until(lambda: 0, "rain", timeout=0)
    assert wait_until(lambda: 5) == 5


# -- the package -----------------------------------------------------------------------------------


def test_importing_taskq_imports_no_driver():
    """A producer's process loads what its URL needs, when it needs it, and never the worker."""
    code = (
        "import sys; from taskq import TaskQ; TaskQ('x', broker='amqp://').conf.timezone;"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " ('pika', 'redis', 'sqlalchemy', 'sqlite3', 'click')"
        " or m.startswith(('taskq.worker', 'taskq.cli.', 'taskq.testing', 'taskq.backends.r'))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"


def test_every_public_name_is_there():
    for name in taskq.__all__:
        assert getattr(taskq, name) is not None
    assert taskq.__version__.count(".") == 2
    with pytest.raises(AttributeError):
        _ = taskq.nothing
