"""A TCP proxy that a test can cut, stall, slow and half-close, to play the network's part."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.support.rabbit import Rabbit

Answer = TypeVar("Answer")

#: Closing with this option sends a reset, and throws away what was not yet sent.
_LINGER_NOT = struct.pack("ii", 1, 0)

#: So much is read at once: small enough that a slow connection trickles instead of jerking.
_PIECE = 4096


class Proxy:
    """Stands between clients and the server of *url*, on a port of its own and in a thread.

    Every call has taken effect when it returns.  Bytes on their way are lost by `drop` and `cut`,
    and kept by `stall`, `deafen` and `mute`.
    """

    #: How many connections were taken so far.
    taken = 0
    #: Whether something from the server is held back from its client.
    holding = False

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._rate: float | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._answering = asyncio.Event()
        self._answering.set()
        self._asking = asyncio.Event()
        self._asking.set()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.mend()
        credentials, at, _ = parts.netloc.rpartition("@")
        #: The server's URL, by way of this proxy.
        self.url = urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def drop(self) -> None:
        """Reset all connections; new ones are taken at once."""
        self._do(self._drop())

    def cut(self) -> None:
        """Reset all connections and refuse new ones until `mend`."""
        self._do(self._cut())

    def mend(self) -> None:
        """Take connections again."""
        self._do(self._listen())

    def stall(self) -> None:
        """Carry no byte until `resume`; connections stay open, new ones too."""
        self._do(self._call(self._flowing.clear))

    def deafen(self) -> None:
        """Carry nothing to clients until `resume`, while what they write still arrives."""
        self._do(self._call(self._answering.clear))

    def mute(self) -> None:
        """Carry nothing to the server until `resume`, while what it writes arrives."""
        self._do(self._call(self._asking.clear))

    def resume(self) -> None:
        """Carry bytes again, those that were held back first."""
        self._do(self._resume())

    def slow(self, bytes_per_second: float | None) -> None:
        """Carry no more than this in each direction of each connection; None for no limit."""
        self._rate = bytes_per_second

    def half_close(self) -> None:
        """Let all clients read the end of the stream, while what they write still arrives."""
        self._do(self._half_close())

    def close(self) -> None:
        """Cut, and end the thread.  Idempotent."""
        if self._thread.is_alive():
            self._do(self._cut())
            self._do(self._cancel_all())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    # -- on the proxy's own thread -----------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _call(self, change: Callable[[], None]) -> None:
        change()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._drop()

    async def _drop(self) -> None:
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock.fileno() >= 0:  # the other end may have closed it a moment ago
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            writer.transport.abort()
        self._writers.clear()
        await asyncio.sleep(0)  # abort closes the sockets in the loop's next turn

    async def _resume(self) -> None:
        self._flowing.set()
        self._answering.set()
        self._asking.set()
        self.holding = False

    async def _half_close(self) -> None:
        for writer in self._clients & self._writers:
            writer.write_eof()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # closed transports release their sockets in the loop's next turn

    async def _carry(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Join one client to the server until both directions have ended."""
        self.taken += 1
        self._writers.add(client)
        self._clients.add(client)
        writers = [client]
        try:
            from_server, server = await asyncio.open_connection(*self._target)
            writers.append(server)
            self._writers.add(server)
            await asyncio.gather(self._pump(reader, server), self._pump(from_server, client))
        except OSError:
            pass  # the server is away, or the connection was dropped
        finally:
            for writer in writers:
                writer.close()
                self._writers.discard(writer)
            self._clients.discard(client)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_PIECE):
            await self._flowing.wait()
            if writer in self._clients:
                self.holding = not self._answering.is_set()
                await self._answering.wait()
            else:
                await self._asking.wait()
            if self._rate:
                await asyncio.sleep(len(data) / self._rate)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


@pytest.fixture
def rabbit_through_proxy(rabbit: Rabbit) -> Iterator[Proxy]:
    """A proxy before the vhost of `rabbit`: connect to its `url`."""
    with Proxy(rabbit.url) as proxy:
        yield proxy
