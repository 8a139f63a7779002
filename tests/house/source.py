"""The project's source as the house rules see it: modules, their imports, their classes."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Import:
    """One name brought in: *module* by its full name, *lazy* if inside a function."""

    module: str
    line: int
    lazy: bool


@dataclass(frozen=True)
class Module:
    """One source file: *name* is `worker.slate` for taskq/worker/slate.py, `` for taskq itself."""

    name: str
    path: Path
    tree: ast.Module
    imports: tuple[Import, ...]

    def at(self, line: int) -> str:
        """Where a rule is broken, for a person to click on."""
        return f"{self.path.relative_to(ROOT)}:{line}"


@cache
def modules() -> dict[str, Module]:
    """Every module of taskq by its name."""
    paths = {_name(path): path for path in sorted((ROOT / "taskq").rglob("*.py"))}
    found = {}
    for name, path in paths.items():
        tree = ast.parse(path.read_text())
        imports = tuple(imports_of(tree, submodules=paths.keys()))
        found[name] = Module(name, path, tree, imports)
    return found


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT / "taskq").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(
    tree: ast.AST, submodules: Iterator[str] = (), lazy: bool = False
) -> Iterator[Import]:
    """All imports under *tree*, those in functions and for type checkers too.

    `from taskq.wire import table` brings in the module `taskq.wire.table` if that is one of the
    *submodules*, else a name out of `taskq.wire`.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, lazy)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            for alias in node.names:
                full = f"{origin}.{alias.name}"
                is_module = full.removeprefix("taskq.") in submodules
                yield Import(full if is_module else origin, node.lineno, lazy)
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_of(node, submodules, lazy or is_function)


def assert_none(broken: Iterable[str]) -> None:
    """Fail with the whole list of *broken* places, if there are any."""
    listed = "\n".join(broken)
    assert not listed, f"\n{listed}"
