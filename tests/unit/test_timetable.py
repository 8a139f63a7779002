"""What an app has beat send, said in settings, at tasks and by calls; and mistakes found early."""

import json
import subprocess
import sys

import pytest

from taskq import ConfigurationError, Task, TaskQ, crontab, schedule
from taskq.testing import memory_app

CELERYS = {
    "add-every-30-seconds": {
        "task": "tasks.add",
        "schedule": 30.0,
        "args": (16, 16),
        "options": {"queue": "low"},
    },
    "add-every-monday-morning": {
        "task": "tasks.add",
        "schedule": crontab(hour=7, minute=30, day_of_week=1),
        "kwargs": {"x": 1},
    },
}


def error_of(function, *args, **kwargs):
    with pytest.raises(ConfigurationError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


# -- settings --------------------------------------------------------------------------------------


def test_celerys_mapping_is_taken_as_it_is():
    entries = memory_app(beat_schedule=CELERYS).schedule_entries()

    assert list(CELERYS) == list(entries)
    assert entries["add-every-30-seconds"].args == (16, 16)
    assert entries["add-every-monday-morning"].schedule == crontab(30, 7, 1)


def test_entries_may_be_put_into_the_setting_one_by_one():
    app, other = memory_app(), memory_app()
    app.conf.beat_schedule["late"] = {"task": "t", "schedule": 5}
    app.conf.beat_schedule.update(CELERYS)

    assert ["late", *CELERYS] == list(app.schedule_entries())
    assert {} == other.schedule_entries()


def test_a_variable_holds_entries_as_json(monkeypatch):
    given = {"report": {"task": "reports.make", "schedule": "30 7 * * 1"}}
    monkeypatch.setenv("TASKQ_BEAT_SCHEDULE", json.dumps(given))

    assert memory_app().schedule_entries()["report"].schedule == crontab(30, 7, 1)


def test_a_wrong_entry_is_named_where_the_setting_is_made():
    wrong = {"report": {"task": "reports.make", "schedule": "30 25 * * 1"}}

    said = error_of(TaskQ, beat_schedule=wrong)
    assert "TaskQ(...)" in said
    assert "the entry 'report' of the schedule: hour='25': 25 is not from 0 to 23" in said

    app = memory_app(beat_schedule=CELERYS)
    assert "the entry 'report'" in error_of(app.conf.update, beat_schedule=wrong)
    assert list(CELERYS) == list(app.schedule_entries())


def test_a_wrong_entry_that_was_put_in_later_is_named_when_it_is_read():
    app = memory_app()
    app.conf.beat_schedule["late"] = {"task": "t"}

    assert "the entry 'late' of the schedule: it has no 'schedule'" in error_of(
        app.schedule_entries
    )


def test_the_zone_of_the_app_is_that_of_its_entries():
    app = memory_app(beat_schedule=CELERYS, timezone="Asia/Tokyo")

    found = app.schedule_entries()["add-every-monday-morning"]
    assert found.schedule.timezone == "Asia/Tokyo"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task_id": "mine"}, "leave out the option 'task_id'"),
        ({"countdown": 5}, "leave out the option 'countdown'"),
        ({"qeue": "low"}, "there is no option 'qeue'; did you mean 'queue'?"),
    ],
)
def test_options_of_the_call_are_checked(options, said):
    app = memory_app(beat_schedule={"a": {"task": "t", "schedule": 5, "options": options}})

    assert f"the entry 'a' of the schedule: {said}" in error_of(app.schedule_entries)


def test_arguments_that_do_not_fit_a_task_of_the_app_are_found_before_they_are_sent():
    app = memory_app(beat_schedule={"a": {"task": "add", "schedule": 5, "args": [1]}})

    @app.task(name="add")
    def add(x, y):
        return x + y

    assert "the entry 'a' of the schedule: add(x, y): missing" in error_of(app.schedule_entries)


# -- tasks -----------------------------------------------------------------------------------------


def test_a_task_may_have_a_schedule_of_its_own():
    app = memory_app()

    @app.task(name="tidy", schedule="@daily")
    def tidy():
        pass

    @app.task(
        name="greet", schedule={"schedule": 30, "args": ["you"], "overlap": "skip"}, queue="low"
    )
    def greet(whom):
        pass

    @app.register_task
    class Report(Task):
        name = "report"
        schedule = crontab(0, 7)

        def run(self):
            pass

    entries = app.schedule_entries()

    assert ["tidy", "greet", "report"] == [each.task for each in entries.values()]
    assert entries["tidy"].schedule == crontab(0, 0)
    assert entries["greet"].schedule == schedule(30)
    assert entries["greet"].args == ("you",)
    assert entries["greet"].overlap == "skip"
    assert entries["report"].schedule == crontab(0, 7)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0 25 * * *", "hour='25'"),
        ({"schedule": 5, "overlop": "skip"}, "did you mean 'overlap'?"),
        (30, "missing a required argument: 'whom'"),
    ],
)
def test_a_wrong_schedule_is_an_error_where_the_task_is_made(given, said):
    app = memory_app()

    def greet(whom):
        pass

    assert said in error_of(app.task(name="greet", schedule=given), greet)


def test_a_task_and_a_setting_may_not_have_one_name():
    app = memory_app(beat_schedule={"tidy": {"task": "other", "schedule": 5}})

    @app.task(name="tidy", schedule=5)
    def tidy():
        pass

    assert "the entry 'tidy' of the schedule: there is another one" in error_of(
        app.schedule_entries
    )


# -- calls -----------------------------------------------------------------------------------------


@pytest.fixture
def app():
    app = memory_app()

    @app.task(name="add")
    def add(x, y=0):
        return x + y

    return app


def test_a_periodic_task_is_added_by_a_call(app):
    add = app.registry["add"]

    name = app.add_periodic_task(
        10.0, add.s(1), kwargs={"y": 2}, name="every 10", expires=5, queue="low", missed="skip"
    )

    found = app.schedule_entries()[name]
    assert name == "every 10"
    assert (found.task, found.args, found.kwargs) == ("add", (1,), {"y": 2})
    assert found.schedule == schedule(10)
    assert found.expires == 5
    assert found.options == {"queue": "low"}
    assert found.missed == "skip"


def test_without_a_name_it_is_named_by_its_call(app):
    add = app.registry["add"]

    assert "add(1, y=2)" == app.add_periodic_task(10.0, add.s(1, y=2))
    assert "add(5)" == app.add_periodic_task("@daily", add, (5,))
    assert "other()" == app.add_periodic_task("@daily", app.signature("other"))


def test_the_same_call_twice_is_one_entry_and_another_needs_another_name(app):
    add = app.registry["add"]
    app.add_periodic_task(10.0, add.s(1))
    app.add_periodic_task(10.0, add.s(1))

    assert "the entry 'add(1)' of the schedule: there is another one" in error_of(
        app.add_periodic_task, 20.0, add.s(1)
    )
    assert len(app.schedule_entries()) == 1


def test_a_wrong_call_is_an_error_where_it_is_made(app):
    add = app.registry["add"]

    assert "hour='25'" in error_of(app.add_periodic_task, "0 25 * * *", add.s(1))
    assert "missing a required argument" in error_of(app.add_periodic_task, 5, add)
    assert app.schedule_entries() == {}


def test_functions_are_called_once_before_the_schedule_is_read(app):
    called = []

    @app.on_after_configure.connect
    def setup(sender, **kwargs):
        called.append(sender)
        sender.add_periodic_task(10.0, sender.registry["add"].s(1), name="a")

    @app.on_after_configure.connect(weak=False)
    def more(sender, **kwargs):
        sender.add_periodic_task(10.0, sender.registry["add"].s(2), name="b")

    assert called == []
    assert list(app.schedule_entries()) == ["a", "b"]
    assert list(app.schedule_entries()) == ["a", "b"]
    assert called == [app]


def test_what_such_a_function_does_wrong_is_no_secret(app):
    @app.on_after_configure.connect
    def setup(sender, **kwargs):
        sender.add_periodic_task("never", sender.registry["add"])

    assert "the entry 'add()'" in error_of(app.schedule_entries)


# -- importing -------------------------------------------------------------------------------------


def test_a_program_without_a_schedule_imports_nothing_of_it():
    program = (
        "import sys, taskq\n"
        "taskq.TaskQ().task(lambda: None)\n"
        "assert 'taskq.schedules.cron' not in sys.modules\n"
        "from taskq import crontab, schedule, clocked\n"
        "from taskq.schedules import crontab as same\n"
        "assert same is crontab\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
