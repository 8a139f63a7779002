"""What a shell completes after `taskq`: commands, options, tasks and queues of the app."""

import subprocess
from pathlib import Path

import pytest

from tests.support.process import APP
from tests.support.shell import Shell

#: An app that says something when it is imported, with two queues of its own.
TALKATIVE = """
from taskq import TaskQ
print("hello")
app = TaskQ("shop", task_queues=["mails", "reports"])

@app.task(queue="mornings")
def water(): ...
"""


def completed(folder: Path, *words: str) -> list[str]:
    """What bash is offered for the last of *words*."""
    shell = Shell(
        "memory://",
        folder,
        _TASKQ_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(["taskq", *words]),
        COMP_CWORD=str(len(words)),
    )
    offered = shell.run()
    assert "" == offered.stderr
    return [line.removeprefix("plain,") for line in offered.stdout.splitlines() if line]


def test_commands_are_completed() -> None:
    assert ["inspect"] == completed(APP, "ins")
    assert ["resume", "revoke", "revoke_by_stamped_headers"] == completed(APP, "control", "re")
    assert ["--countdown"] == completed(APP, "call", "--coun")


def test_tasks_and_queues_are_those_of_the_app(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(TALKATIVE)

    assert ["app.water"] == completed(tmp_path, "call", "''")
    assert ["mails", "mornings"] == completed(tmp_path, "control", "pause", "m")
    assert ["reports"] == completed(tmp_path, "call", "--queue", "rep")


@pytest.mark.parametrize("source", ["", "1 / 0", "import sys; sys.exit('no')"])
def test_without_an_app_nothing_is_offered_and_nothing_said(tmp_path: Path, source: str) -> None:
    (tmp_path / "app.py").write_text(source)

    assert [] == completed(tmp_path, "control", "rate_limit", "t")
    assert [] == completed(tmp_path, "nothing-such", "x")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_asks_taskq(tmp_path: Path, shell: str) -> None:
    script = Shell("memory://", tmp_path).run("completion", shell).stdout

    assert f"_TASKQ_COMPLETE={shell}_complete" in script


def test_bash_understands_the_script(tmp_path: Path) -> None:
    script = Shell("memory://", tmp_path).run("completion", "bash").stdout

    subprocess.run(["bash", "-ec", f"{script}\ncomplete -p taskq"], check=True, timeout=30)
