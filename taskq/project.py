"""The project that a program belongs to: its root folder, and `[tool.taskq]` in its pyproject.toml.

What the settings in it mean is the business of `settings`.
"""

import os
from typing import Any

from taskq.errors import ConfigurationError


def project_root() -> str:
    """The nearest folder upwards that has a pyproject.toml or .git, else the working folder."""
    here = folder = os.getcwd()
    while not (_has(folder, "pyproject.toml") or _has(folder, ".git")):
        folder, below = os.path.dirname(folder), folder
        if folder == below:
            return here
    return folder


def project_table() -> dict[str, Any]:
    """The settings in `[tool.taskq]` of the project's pyproject.toml, without `app`."""
    return {name: value for name, value in _project_file().items() if name != "app"}


def project_app() -> str | None:
    """The `app` that `[tool.taskq]` of the project's pyproject.toml names."""
    app = _project_file().get("app")
    return str(app) if app is not None else None


def _project_file() -> dict[str, Any]:
    path = os.path.join(project_root(), "pyproject.toml")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return {}
    if "tool.taskq" not in text:  # parsing takes longer than looking
        return {}
    import tomllib

    try:
        tools = tomllib.loads(text).get("tool", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    return dict(tools.get("taskq", {}))


def _has(folder: str, name: str) -> bool:
    return os.path.exists(os.path.join(folder, name))
