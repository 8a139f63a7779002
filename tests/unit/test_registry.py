"""Names of tasks: how they are made, and what happens when two want the same."""

import subprocess
import sys

import pytest

from taskq.client.registry import Registry
from taskq.client.task import Task
from taskq.errors import TaskAlreadyRegistered, TaskNotRegistered


def one():
    return 1


def two():
    return 2


def test_a_task_is_found_by_its_name():
    registry = Registry()
    task = Task(one)
    registry.register(task)

    assert task.name == f"{__name__}.one"
    assert registry[task.name] is task
    assert list(registry) == [task.name]


def test_a_name_that_nobody_has_names_the_closest():
    registry = Registry()
    registry.register(Task(one, name="proj.tasks.add"))

    with pytest.raises(TaskNotRegistered) as caught:
        registry["proj.tasks.ad"]

    assert "no task is called 'proj.tasks.ad'" in str(caught.value)
    assert "did you mean 'proj.tasks.add'" in str(caught.value)
    assert isinstance(caught.value, KeyError)


def test_two_functions_cannot_have_one_name():
    registry = Registry()
    registry.register(Task(one, name="same"))

    with pytest.raises(TaskAlreadyRegistered) as caught:
        registry.register(Task(two, name="same"))

    assert f"{__name__}:one" in str(caught.value)
    assert f"{__name__}:two" in str(caught.value)


def test_a_function_that_was_imported_twice_is_the_same_and_the_later_stays():
    registry = Registry()
    first, second = Task(one), Task(one)
    registry.register(first)
    registry.register(second)

    assert registry[first.name] is second


_PROGRAM = """
from taskq import TaskQ
app = TaskQ("proj", broker="memory://")

@app.task
def add(x, y):
    return x + y

if __name__ == "__main__":
    import importlib, sys
    print(add.name)
    module = importlib.import_module(sys.argv[1])
    app._make({}, module.add.__wrapped__)
    print(*app.registry)
"""


def test_a_program_has_the_name_of_its_file(tmp_path):
    (tmp_path / "script.py").write_text(_PROGRAM)

    ran = subprocess.run(
        [sys.executable, "script.py", "script"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout.split() == ["script.add", "script.add"]


def test_a_module_run_by_name_has_that_name(tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "jobs.py").write_text(_PROGRAM)

    ran = subprocess.run(
        [sys.executable, "-m", "pkg.jobs", "pkg.jobs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout.split() == ["pkg.jobs.add", "pkg.jobs.add"]
