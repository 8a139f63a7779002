"""Private PostgreSQL servers, with a password and with data that survives a restart."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psycopg

from tests.support.ports import free_port
from tests.support.program import find_program, leashed
from tests.support.wait import wait_until

#: Where Debian keeps the programs of each version, the newest first.
_DEBIAN = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)


class PostgresServer:
    """A PostgreSQL server of our own on a loopback port.

    Made stopped.  `kill` is SIGQUIT, PostgreSQL's own word for "at once and without cleaning up",
    because its children outlive a SIGKILL for a moment; `stop` breaks off what runs and shuts down,
    `start` brings it back with its data, `close` ends it for good.
    """

    def __init__(self) -> None:
        self._initdb = find_program("initdb", "postgresql", *_DEBIAN)
        self._postgres = find_program("postgres", "postgresql", *_DEBIAN)
        self._user = _unprivileged()
        self.folder = Path(tempfile.mkdtemp(prefix="taskq-postgres-"))
        self.port = free_port()
        self.password = "open-sesame"
        self.url = f"postgresql://taskq:{self.password}@127.0.0.1:{self.port}/postgres"
        self._server: subprocess.Popen[bytes] | None = None
        self._fill_folder()

    def _fill_folder(self) -> None:
        password = self.folder / "password"
        password.write_text(self.password)
        if self._user is not None:
            for path in (self.folder, password):
                shutil.chown(path, self._user)
        subprocess.run(
            [
                *(self._initdb, "--pgdata", str(self.folder / "data"), "--username", "taskq"),
                *("--auth", "scram-sha-256", "--pwfile", str(password)),
                *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ],
            cwd=self.folder,
            user=self._user,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def start(self) -> None:
        """Start the server and return once it answers; nothing to do if it runs."""
        if self._server is not None:
            return
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",  # the machine does not die in these tests
        }
        with (self.folder / "output").open("ab") as output:
            self._server = subprocess.Popen(
                leashed(
                    self._postgres,
                    *("-D", str(self.folder / "data")),
                    *(word for name in settings for word in ("-c", f"{name}={settings[name]}")),
                ),
                cwd=self.folder,
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._answers, f"postgres on port {self.port} to start")

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self.folder / "output").read_text()[-4000:]
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=5):
            return True
        return False

    def stop(self) -> None:
        """Break off what runs, let the server shut down, and wait for its end."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the server at once, as a crash would, and wait until it is gone."""
        self._end(signal.SIGQUIT)

    def close(self) -> None:
        """End the server and remove its data.  Idempotent."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        if self._server is not None:
            self._server.send_signal(how)
            try:
                self._server.wait(timeout=30)
            finally:
                self._server.kill()
                self._server.wait()
                self._server = None


def _unprivileged() -> str | None:
    """Whom PostgreSQL runs as: None for ourselves, but root it refuses."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
