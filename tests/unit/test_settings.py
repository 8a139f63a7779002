"""Where settings come from, which of them win, and what the errors say."""

import json
import logging
import types
from datetime import timedelta

import pytest

from taskq import settings
from taskq.errors import ConfigurationError
from taskq.project import project_app, project_root
from taskq.settings import Settings


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Every test stands in an empty project, and no variable reaches it."""
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    for name in ("TASKQ_BROKER_URL", "TASKQ_RESULT_BACKEND", "TASKQ_REQUIRE_BROKER", "TASKQ_APP"):
        monkeypatch.delenv(name, raising=False)


def error_of(**given):
    with pytest.raises(ConfigurationError) as caught:
        Settings(**given)
    return str(caught.value)


# -- names -----------------------------------------------------------------------------------------


def test_a_misspelt_name_names_the_right_one():
    assert "did you mean 'worker_concurrency'" in error_of(worker_concurency=2)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CELERY_TASK_SERIALIZER", "task_serializer"),
        ("BROKER_URL", "broker_url"),
        ("CELERYD_CONCURRENCY", "worker_concurrency"),
        ("CELERY_ALWAYS_EAGER", "task_always_eager"),
        ("CELERY_DEFAULT_QUEUE", "task_default_queue"),
        ("CELERY_RESULT_BACKEND", "result_backend"),
        ("CELERY_TASK_RESULT_EXPIRES", "result_expires"),
        ("CELERYD_TASK_TIME_LIMIT", "task_time_limit"),
        ("CELERY_MESSAGE_COMPRESSION", "task_compression"),
        ("CELERY_ROUTES", "task_routes"),
        ("CELERYD_PREFETCH_MULTIPLIER", "worker_prefetch_multiplier"),
        ("CELERY_TIMEZONE", "timezone"),
        ("TASK_ACKS_LATE", "task_acks_late"),
    ],
)
def test_an_old_upper_case_name_is_an_error_that_names_the_new_one(old, new):
    assert f"{old!r} is called {new!r} now" in error_of(**{old: None})


def test_a_setting_of_celery_that_taskq_has_not_is_refused_with_the_way_out():
    text = error_of(broker_pool_limit=10)

    assert "no setting 'broker_pool_limit' of Celery" in text
    assert "one publishing connection" in text


def test_what_taskq_always_does_may_be_said_but_not_denied():
    assert Settings(enable_utc=True, task_protocol=2, broker_connection_retry=True)
    assert "task_protocol" in error_of(task_protocol=1)


def test_items_and_attributes_are_the_same_settings():
    conf = Settings()
    conf["task_default_queue"] = "q"

    assert conf.task_default_queue == "q"
    assert conf["task_default_queue"] == "q"
    assert "task_default_queue" in conf
    assert "nonsense" not in conf
    with pytest.raises(ConfigurationError, match="did you mean 'task_default_queue'"):
        conf["task_default_qeue"]


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"task_serializer": "pickle"},
        {"worker_concurrency": 0},
        {"publish_timeout": 0},
        {"broker_heartbeat": "soon"},
        {"timezone": "Mars/Olympus"},
        {"task_queue_max_priority": 256},
        {"task_publish_retry_policy": {"max_retrys": 3}},
        {"task_default_queue": ""},
    ],
)
def test_a_wrong_value_is_refused_when_it_is_set(wrong):
    (name,) = wrong

    assert name in error_of(**wrong)


def test_an_assignment_is_checked_like_everything_else():
    conf = Settings()

    with pytest.raises(ConfigurationError, match="task_serializer"):
        conf.task_serializer = "pickle"
    with pytest.raises(ConfigurationError, match="did you mean 'task_serializer'"):
        conf.task_serialiser = "json"
    assert conf.task_serializer == "json"


def test_an_update_with_one_mistake_changes_nothing():
    conf = Settings()

    with pytest.raises(ConfigurationError):
        conf.update({"task_default_queue": "q"}, worker_concurrency=-1)

    assert conf.task_default_queue == "default"


def test_update_takes_mappings_and_keywords():
    conf = Settings()
    conf.update({"task_default_queue": "a", "worker_concurrency": 3}, task_default_queue="b")

    assert (conf.task_default_queue, conf.worker_concurrency) == ("b", 3)


def test_a_password_in_a_wrong_value_is_not_shown():
    assert "secret" not in error_of(result_expires="amqp://me:secret@host//")


def test_nor_is_one_where_the_settings_are_printed():
    conf = Settings(broker_url="amqp://me:secret@host//", publish_timeout=3)

    assert repr(conf) == "Settings(broker_url='amqp://me:***@host//', publish_timeout=3.0)"


def test_all_that_is_wrong_is_said_at_once():
    text = error_of(publish_timeout="soon", task_queues=["a", 5])

    assert "publish_timeout = 'soon': Input should be a valid number" in text
    assert "task_queues.tuple[union[str,dict[str,any]], ...].1.str = 5" in text


def test_texts_lists_and_numbers_become_what_a_setting_is():
    conf = Settings(publish_timeout="5", task_acks_late="no", include=["a"], kill_wait=1)

    assert (conf.publish_timeout, conf.task_acks_late, conf.include) == (5.0, False, ("a",))
    assert isinstance(conf.kill_wait, float)


def test_durations_may_be_timedeltas():
    assert Settings(result_expires=timedelta(hours=1)).result_expires == 3600


# -- where they come from --------------------------------------------------------------------------


def test_the_environment_is_read_and_checked(monkeypatch):
    monkeypatch.setenv("TASKQ_WORKER_CONCURRENCY", "7")
    monkeypatch.setenv("TASKQ_TASK_ACKS_LATE", "false")
    monkeypatch.setenv("TASKQ_TASK_QUEUES", json.dumps({"a": {"max_priority": 3}, "b": None}))
    monkeypatch.setenv("TASKQ_INCLUDE", "one.tasks, two.tasks")
    monkeypatch.setenv("TASKQ_RESULT_EXPIRES", "null")
    conf = Settings()

    assert conf.worker_concurrency == 7
    assert conf.task_acks_late is False
    assert conf.task_queues == {"a": {"max_priority": 3}, "b": None}
    assert conf.include == ("one.tasks", "two.tasks")
    assert conf.result_expires is None


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("TASKQ_WORKER_CONCURRENCY", "many", "worker_concurrency"),
        ("TASKQ_TASK_QUEUES", '["a"', "TASKQ_TASK_QUEUES is no valid JSON"),
        ("TASKQ_WORKER_CONCURENCY", "1", "did you mean TASKQ_WORKER_CONCURRENCY"),
        ("TASKQ_BROKER", "x", "did you mean TASKQ_BROKER_URL"),
        ("TASKQ_CELERYD_CONCURRENCY", "1", "did you mean TASKQ_WORKER_CONCURRENCY"),
        ("TASKQ_WORKER_STATE_DB", "x", "no setting 'worker_state_db'"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch, variable, text, words):
    monkeypatch.setenv(variable, text)

    assert words in error_of()


@pytest.mark.parametrize(
    "variable",
    [
        "TASKQ_PORT",
        "TASKQ_SERVICE_HOST",
        "TASKQ_PORT_5672_TCP_ADDR",
        "TASKQ_TEST_AMQP_URL",
        "TASKQ_APP",
        "TASKQ_REQUIRE_BROKER",
    ],
)
def test_variables_that_are_no_settings_are_left_alone(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")

    assert Settings(broker_url="memory://")


def test_pyproject_is_read_from_the_projects_root(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text(
        '[tool.taskq]\napp = "proj.app"\ntask_default_queue = "from-file"\nworker_concurrency = 3\n'
    )
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")

    assert project_root() == str(tmp_path)
    assert project_app() == "proj.app"
    assert Settings().task_default_queue == "from-file"


def test_a_mistake_in_pyproject_says_where_it_is(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.taskq]\ntask_qeues = []\n")

    assert error_of().startswith("[tool.taskq] in pyproject.toml: unknown setting 'task_qeues'")


def test_code_wins_over_environment_over_object_over_project(tmp_path, monkeypatch):
    names = ["task_default_queue", "queue_prefix", "task_serializer", "timezone"]
    project = {
        name: {"task_serializer": "msgpack", "timezone": "UTC"}.get(name, "p") for name in names
    }
    lines = [f'{name} = "{value}"' for name, value in project.items()]
    (tmp_path / "pyproject.toml").write_text("[tool.taskq]\n" + "\n".join(lines))
    monkeypatch.setenv("TASKQ_QUEUE_PREFIX", "environment")
    monkeypatch.setenv("TASKQ_TASK_DEFAULT_QUEUE", "environment")

    conf = Settings(task_default_queue="code")
    conf.load({"task_default_queue": "object", "queue_prefix": "object", "task_serializer": "json"})

    assert conf.task_default_queue == "code"
    assert conf.queue_prefix == "environment"
    assert conf.task_serializer == "json"
    assert conf.timezone == "UTC"


def test_an_object_gives_its_settings_and_keeps_the_rest(monkeypatch):
    module = types.ModuleType("celeryconfig")
    module.task_default_queue = "q"
    module.some_helper = lambda: None
    module.SOME_CONSTANT = 1
    conf = Settings()
    conf.load(module)

    assert conf.task_default_queue == "q"


def test_an_object_with_an_old_name_is_refused():
    conf = Settings()

    with pytest.raises(ConfigurationError, match="'CELERY_RESULT_BACKEND' is called"):
        conf.load(types.SimpleNamespace(CELERY_RESULT_BACKEND="rpc://"))


def test_a_misspelt_setting_in_an_object_is_refused():
    conf = Settings()

    with pytest.raises(ConfigurationError, match="did you mean 'task_serializer'"):
        conf.load(types.SimpleNamespace(task_serialiser="json", tasks_by_hand=1))


def test_a_module_may_be_named(tmp_path, monkeypatch):
    (tmp_path / "conf_by_name.py").write_text("worker_concurrency = 9\nimport os\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    conf = Settings()
    conf.load("conf_by_name")

    assert conf.worker_concurrency == 9
    with pytest.raises(ConfigurationError, match="no module 'conf_by_nam'"):
        conf.load("conf_by_nam")


def test_an_error_inside_a_settings_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "conf_broken.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        Settings().load("conf_broken")


# -- what others are told --------------------------------------------------------------------------


def test_several_brokers_are_a_list_or_one_text():
    listed = Settings(broker_url=["amqp://a", "amqp://b"]).broker_options()
    joined = Settings(broker_url="amqp://a;amqp://b").broker_options()

    assert listed.urls == joined.urls == ("amqp://a", "amqp://b")


def test_waits_reach_the_broker():
    options = Settings(
        broker_url="amqp://", broker_heartbeat=7, broker_connection_timeout=2, publish_timeout=3
    ).broker_options()

    assert (options.heartbeat, options.connect_timeout, options.publish_timeout) == (7, 2, 3)


@pytest.mark.parametrize(
    ("broker", "backend"),
    [
        ("amqp://guest@localhost//", "rpc://"),
        ("amqps://host;amqps://other", "rpc://"),
        ("sqlite:///jobs.db", "sqlite:///jobs.db"),
        ("memory://", "memory://"),
    ],
)
def test_results_go_with_the_broker_unless_said_otherwise(broker, backend):
    assert Settings(broker_url=broker).backend_options().url == backend
    assert Settings(broker_url=broker, result_backend="disabled://").backend_options().url == (
        "disabled://"
    )


def test_no_broker_means_the_embedded_one_said_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(settings, "_announced", set())
    with caplog.at_level(logging.WARNING, logger="taskq"):
        options = Settings().broker_options()
        Settings().broker_options()

    path = str(tmp_path / ".taskq" / "taskq.db")
    assert options.urls == (f"sqlite:///{path}",)
    assert Settings().backend_options().url == f"sqlite:///{path}"
    assert [path in record.getMessage() for record in caplog.records] == [True]
    assert "TASKQ_BROKER_URL" in caplog.text


def test_the_embedded_broker_can_be_forbidden(monkeypatch):
    monkeypatch.setenv("TASKQ_REQUIRE_BROKER", "1")

    with pytest.raises(ConfigurationError, match="TASKQ_BROKER_URL"):
        Settings().broker_options()
    assert Settings(broker_url="memory://").broker_options().urls == ("memory://",)


def test_the_retry_policy_spaces_attempts():
    policy = Settings(
        task_publish_retry_policy={"max_retries": 4, "interval_step": 0.4, "interval_max": 1}
    ).task_publish_retry_policy

    assert list(policy.pauses()) == pytest.approx([0, 0.4, 0.8, 1.0])
    assert policy == Settings(task_publish_retry_policy=policy).task_publish_retry_policy
    assert "instance of PublishRetry" in error_of(task_publish_retry_policy=3)


def test_all_settings_are_there_as_plain_values():
    conf = Settings(publish_timeout=3)

    assert dict(conf)["publish_timeout"] == conf.as_dict()["publish_timeout"] == 3
    assert conf.as_dict().keys() == settings.DEFAULTS.keys()
    assert conf.as_dict()["task_publish_retry_policy"]["max_retries"] == 3


def test_an_app_may_fill_its_own_mappings():
    conf = Settings()
    conf.beat_schedule["x"] = {"task": "t", "schedule": 3}

    assert conf["beat_schedule"] == {"x": {"task": "t", "schedule": 3}}
    assert Settings().beat_schedule == {}


def test_changes_are_counted():
    conf = Settings()
    before = conf.changes
    conf.task_default_queue = "q"

    assert conf.changes > before
