"""Opening a database through SQLAlchemy so that no call waits without bound.

What is kept there belongs to the result store, and to the store of beat.
"""

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from taskq.errors import ConfigurationError
from taskq.url import masked

try:
    import sqlalchemy as sa
    from sqlalchemy import exc
except ImportError as missing:
    raise ConfigurationError("a db+... URL needs SQLAlchemy: pip install 'taskq[sql]'") from missing

__all__ = ["exc", "open_engine", "sa"]


def open_engine(
    address: str, *, root: str, timeout: float, setting: str, autocommit: bool = True
) -> sa.Engine:
    """The engine for the URL behind `db+`, each of whose waits lasts *timeout* seconds at most.

    Relative SQLite paths start from *root*.  With *autocommit* each statement is a transaction of
    its own.  ConfigurationError, naming the *setting*, for a URL that cannot be used.
    """
    shown = masked(address)
    try:
        url = sa.make_url(address.removeprefix("db+"))
        if url.drivername in ("postgresql", "postgres") and find_spec("psycopg"):
            url = url.set(drivername="postgresql+psycopg")
        settings: dict[str, Any] = {"pool_timeout": timeout}
        if url.get_backend_name() == "sqlite":
            url = url.set(database=str(Path(root, url.database or "")))
            settings = {"poolclass": sa.NullPool}  # SQLite's connections do not bear a fork
        waits = _waits(url.get_driver_name(), timeout)
        return sa.create_engine(
            url,
            isolation_level="AUTOCOMMIT" if autocommit else None,
            hide_parameters=True,
            connect_args={name: wait for name, wait in waits.items() if name not in url.query},
            **settings,
        )
    except exc.ArgumentError as error:
        raise ConfigurationError(f"{setting} {shown!r}: {masked(str(error))}") from error
    except ImportError as error:
        raise ConfigurationError(
            f"{setting} {shown!r} needs a driver that is not installed: {error}"
        ) from error


def _waits(driver: str, timeout: float) -> dict[str, Any]:
    """How *driver* is told to wait at most *timeout* seconds; others wait as their URL says."""
    seconds, ms = max(1, math.ceil(timeout)), round(timeout * 1000)
    match driver:
        case "psycopg" | "psycopg2":
            return {
                "connect_timeout": seconds,
                "tcp_user_timeout": ms,
                "options": f"-c statement_timeout={ms}",
            }
        case "pymysql" | "mysqldb":
            return {"connect_timeout": seconds, "read_timeout": seconds, "write_timeout": seconds}
        case "pysqlite":
            return {"timeout": timeout}
    return {}
