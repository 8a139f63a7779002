"""Free loopback ports for the servers that tests start."""

import random
import socket

#: Below the range from which systems take the port of an outgoing connection: a client that tries
#: again while a server is down must not be given the server's own port, and so call itself.
_RANGE = range(20_000, 32_000)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listened on a moment ago."""
    while True:
        port = random.choice(_RANGE)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
