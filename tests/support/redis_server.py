"""Private Redis servers, with a password and with data that survives a restart."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import redis

from tests.support.ports import free_port
from tests.support.program import find_program, leashed
from tests.support.wait import wait_until


class RedisServer:
    """A Redis server of our own on a loopback port.

    Made stopped.  `kill` is SIGKILL, `stop` lets it shut down, `start` brings it back with its
    data; `close` ends it for good.  *more* settings are those of redis.conf.
    """

    def __init__(self, more: Mapping[str, str] | None = None) -> None:
        self._program = find_program("redis-server", "redis-server")
        self.folder = Path(tempfile.mkdtemp(prefix="taskq-redis-"))
        self.port = free_port()
        self.password = "open-sesame"
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        self._more = more or {}
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process, to stop and to continue it by signals."""
        assert self._server is not None
        return self._server.pid

    def start(self) -> None:
        """Start the server and return once it answers; nothing to do if it runs."""
        if self._server is not None:
            return
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "requirepass": self.password,
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            **self._more,
        }
        with (self.folder / "output").open("ab") as output:
            self._server = subprocess.Popen(
                leashed(
                    self._program,
                    *(word for name in settings for word in (f"--{name}", settings[name])),
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._answers, f"redis-server on port {self.port} to start")

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self.folder / "output").read_text()[-4000:]
        with redis.Redis.from_url(self.url, socket_timeout=5) as client, suppress(redis.RedisError):
            return bool(client.ping())
        return False

    def stop(self) -> None:
        """Let the server shut down in order, and wait for its end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server without a word, and wait until it is gone."""
        self._end(signal.SIGKILL)

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
