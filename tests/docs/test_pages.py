"""What README and docs show is run as it stands, in a folder of its own for each page.

Blocks run in their order: `sh` by a shell, `python` as a program, and a block that begins with a
file's name in a comment becomes that file.  What is printed must be what a comment behind the
`print` says.  A shell block with `taskq worker` in it goes on until the end of the page; exported
variables stay.  Addresses of servers on localhost lead to the tests' own.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, README, ROOT, Block, blocks, links
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until

#: Seconds that one block may take.
BOUND = 60

RABBITMQ = "amqp://guest:guest@localhost//"
REDIS = "redis://localhost/0"

RUNNABLE = ("python", "sh")
WITH_CODE = [
    page for page in PAGES if any(b.language in RUNNABLE for b in blocks(page.read_text()))
]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


class Reader:
    """Somebody who does what a page says, step by step, in *folder*."""

    def __init__(self, folder: Path, servers: dict[str, str]) -> None:
        self._folder = folder
        self._servers = servers
        self._running: list[subprocess.Popen[bytes]] = []
        ours = {key: value for key, value in os.environ.items() if not key.startswith("TASKQ_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{ours['PATH']}"
        self._env = ours | {"PATH": path}

    def follow(self, block: Block) -> None:
        """Do what *block* says."""
        text = block.text
        for address, own in self._servers.items():
            text = text.replace(address, own)
        if block.file:
            file = self._folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        elif block.language == "sh" and "taskq worker" in text:
            self._start(text)
        elif block.language == "sh":
            self._run("sh", "-ec", text)
            self._env |= dict(re.findall(r"^export (\w+)=(\S+)$", text, re.MULTILINE))
        elif block.language == "python":
            printed = self._run(sys.executable, "-c", text)
            expected = re.findall(r"^ *print\(.*\)  # (.*)$", text, re.MULTILINE)
            assert expected == printed.splitlines()

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}\n{self._logs()}"
        return done.stdout

    def _start(self, command: str) -> None:
        log = self._folder / f"shell-{len(self._running)}.log"
        with log.open("wb") as output:
            shell = subprocess.Popen(
                ["sh", "-ec", f"exec env {command.strip()}"],
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._running.append(shell)
        wait_until(lambda: " ready" in log.read_text() or shell.poll() is not None, command)
        assert shell.poll() is None, log.read_text()

    def _logs(self) -> str:
        return "\n".join(log.read_text() for log in sorted(self._folder.glob("shell-*.log")))

    def leave(self) -> None:
        """Stop what goes on; it must obey."""
        try:
            for shell in self._running:
                shell.send_signal(signal.SIGTERM)
            codes = [shell.wait(timeout=BOUND) for shell in self._running]
        finally:
            for shell in self._running:
                shell.kill()
                shell.wait()
        assert all(code == 0 for code in codes), self._logs()


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The addresses on the page of this test, and those of our own servers in their place."""
    text = request.getfixturevalue("page").read_text()
    own: dict[str, str] = {}
    redis = RedisServer() if REDIS in text else None
    try:
        if RABBITMQ in text:
            own[RABBITMQ] = request.getfixturevalue("rabbit").url
        if redis is not None:
            redis.start()
            own[REDIS] = redis.url
        yield own
    finally:
        if redis is not None:
            redis.close()


@pytest.mark.parametrize("page", WITH_CODE, ids=_name)
def test_what_a_page_shows_works(page: Path, tmp_path: Path, servers: dict[str, str]) -> None:
    reader = Reader(tmp_path, servers)
    try:
        for block in blocks(page.read_text()):
            if not block.shown:
                reader.follow(block)
    finally:
        reader.leave()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = [
        target for _, target in links(page.read_text()) if not (page.parent / target).exists()
    ]

    assert [] == broken


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_test_that_is_named_exists(page: Path) -> None:
    """A link to a promise's test carries the test's name."""
    missing = [
        f"{target}: {words}"
        for words, target in links(page.read_text())
        if words.startswith("test_")
        if not re.search(rf"def {words}\(", (page.parent / target).read_text())
    ]

    assert [] == missing


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

    named = re.findall(r"(?:^|`)make ([\w-]+)", page.read_text(), re.MULTILINE)

    assert set() == set(named) - set(targets)


def test_the_readme_shows_code_within_its_first_screen() -> None:
    first = README.read_text().splitlines().index("```python") + 1

    assert first <= 25


def test_the_page_about_the_inside_can_be_read_at_one_sitting() -> None:
    assert len((ROOT / "docs/internals.md").read_text().splitlines()) < 80


def test_a_page_that_says_something_wrong_is_found(tmp_path: Path) -> None:
    reader = Reader(tmp_path, {})
    wrong, right = blocks("```python\nprint(1 + 1)  # 3\n```\n```python\nprint(1 + 1)  # 2\n```\n")

    reader.follow(right)

    with pytest.raises(AssertionError):
        reader.follow(wrong)
    with pytest.raises(AssertionError):
        reader.follow(Block("sh", "grep nothing /dev/null", shown=False))
