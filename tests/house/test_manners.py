"""Manners of the whole tree: tests wait for events, and no file knows whose machine it was on."""

import ast
import re

from tests.house.source import ROOT, assert_none

#: Folders under which people keep their own files.
_PERSONAL = ("home", "root", "Users", "work")
_MACHINE_PATH = re.compile(rf"(?<![\w.])/({'|'.join(_PERSONAL)})/\w")

#: What nobody wrote: git's own, and what tools leave behind.
_SKIPPED = re.compile(r"\.git$|\.venv|\.taskq$|\.hypothesis$|\.\w+_cache$|dist$")


def test_tests_do_not_sleep():
    """Only tests/support may: it holds the one bounded wait, and tasks that take their time."""
    sleepers = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if ROOT / "tests/support" not in path.parents
        for line in _sleeps(ast.parse(path.read_text()))
    ]

    assert_none(sleepers)


def test_no_file_names_a_place_on_somebodys_machine():
    named = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _files()
        for number, line in enumerate(_text(path).splitlines(), start=1)
        if _MACHINE_PATH.search(line)
    ]

    assert_none(named)


def test_the_rules_can_be_broken():
    assert _sleeps(ast.parse("import time\ntime.sleep(1)")) == [2]
    assert _sleeps(ast.parse("from time import sleep\nsleep(1)")) == [1]
    assert _MACHINE_PATH.search("see /" + "home/ann/notes")
    assert not _MACHINE_PATH.search("https://example.org/" + "home/ann")


def _sleeps(tree):
    return [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep")
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "time"
            and any(alias.name == "sleep" for alias in node.names)
        )
    ]


def _files():
    for top in sorted(ROOT.iterdir()):
        if not _SKIPPED.match(top.name):
            paths = [top] if top.is_file() else sorted(top.rglob("*"))
            yield from (path for path in paths if path.is_file() and path.suffix != ".pyc")


def _text(path):
    """The text of a file, nothing of one that is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""
