"""Finding the app that a command is about: by its name, by settings, or by looking around.

Importing what is found runs the user's code; nothing else here does.
"""

import importlib
import os
import sys
import tomllib
from pathlib import Path
from types import ModuleType

from taskq.app import TaskQ
from taskq.errors import ConfigurationError


def find_app(name: str | None = None, folder: str = ".") -> TaskQ:
    """The app called *name* (`package.module`, `package.module:attribute`), imported from *folder*.

    Without a name: TASKQ_APP, then `app` in `[tool.taskq]` of pyproject.toml, then the one TaskQ
    instance in app.py, tasks.py or <package>/app.py of the folder.  ConfigurationError when none or
    several are found; an exception of the imported code comes through as it is.
    """
    root = Path(folder).resolve()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    named = name or os.environ.get("TASKQ_APP") or _configured(root)
    return _by_name(named) if named else _look_around(root)


def _by_name(name: str) -> TaskQ:
    module_name, _, attribute = name.partition(":")
    if attribute:
        found = getattr(importlib.import_module(module_name), attribute, None)
        if isinstance(found, TaskQ):
            return found
        raise ConfigurationError(f"{name!r} is not a TaskQ app: it is {found!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # `package.module.attribute` without the colon
        parent, _, attribute = module_name.rpartition(".")
        if error.name != module_name or not parent:
            raise
        return _by_name(f"{parent}:{attribute}")
    apps = _apps_in(module)
    if not apps and (Path(module.__file__ or "").name == "__init__.py"):
        return _by_name(f"{module_name}.app")
    return _only(apps, [f"module {module_name}"])


def _configured(root: Path) -> str | None:
    file = root / "pyproject.toml"
    if not file.is_file():
        return None
    try:
        settings = tomllib.loads(file.read_text()).get("tool", {}).get("taskq", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error
    app = settings.get("app")
    return app if isinstance(app, str) else None


def _look_around(root: Path) -> TaskQ:
    names = [name for name in ("app", "tasks") if (root / f"{name}.py").is_file()]
    names += sorted(
        f"{file.parent.name}.app"
        for file in root.glob("*/app.py")
        if (file.parent / "__init__.py").is_file()
    )
    apps: list[TaskQ] = []
    for name in names:
        apps += [app for app in _apps_in(importlib.import_module(name)) if app not in apps]
    places = [f"{root}/{place}" for place in ("app.py", "tasks.py", "<package>/app.py")]
    return _only(apps, ["-A", "TASKQ_APP", f"[tool.taskq] app in {root}/pyproject.toml", *places])


def _apps_in(module: ModuleType) -> list[TaskQ]:
    preferred = getattr(module, "app", None)
    if isinstance(preferred, TaskQ):
        return [preferred]
    apps: list[TaskQ] = []
    for value in vars(module).values():
        if isinstance(value, TaskQ) and value not in apps:
            apps.append(value)
    return apps


def _only(apps: list[TaskQ], places: list[str]) -> TaskQ:
    if len(apps) == 1:
        return apps[0]
    looked = "".join(f"\n  - {place}" for place in places)
    if not apps:
        raise ConfigurationError(
            f"no TaskQ app was found; looked at:{looked}\nName it: taskq worker -A module:attribute"
        )
    names = ", ".join(repr(app.main) for app in apps)
    raise ConfigurationError(
        f"several TaskQ apps were found ({names}); looked at:{looked}\n"
        "Say which: taskq worker -A module:attribute"
    )
