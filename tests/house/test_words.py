"""What things are called, and that each module says what it is for."""

import ast
import re

from tests.house.source import assert_none, modules

#: Words that name a drawer and not a thing.
BANNED = {
    *("Abstract", "Base", "Blueprint", "Common", "Data", "Helper", "Helpers", "Info", "Manager"),
    *("Mixin", "Step", "Strategy", "Util", "Utils"),
}


def test_every_module_says_what_it_is_for():
    """Six words at least: fewer only repeat the file's name."""
    silent = [
        module.at(1)
        for module in modules().values()
        if len(_first_sentence(ast.get_docstring(module.tree) or "").split()) < 6
    ]

    assert_none(silent)


def test_a_class_is_named_after_what_it_stands_for():
    vague = [
        f"{module.at(node.lineno)}: {node.name}"
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        if _words(node.name) & BANNED or node.name == "Handler"
    ]

    assert_none(vague)


def test_the_rules_can_be_broken():
    assert _first_sentence("Two words.  And then\na lot more of them.") == "Two words."
    assert _words("_ConnectionManager") & BANNED
    assert _words("BaseTask") & BANNED
    assert not _words("Database") & BANNED


def _first_sentence(docstring):
    return re.split(r"(?<=\.)\s", docstring, maxsplit=1)[0]


def _words(name):
    return set(re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", name))
