"""Free loopback ports for the servers that tests start."""

import random
import socket

#: Below the range from which systems take the port of an outgoing connection: a client that tries
#: again while a server is down must not be given the server's own port, and so call itself.
_RANGE = range(20_000, 32_000)

#: For each port given away the UDP port of the same number, which no server here wants: as long as
#: this process lives it keeps other test runs from choosing the port, too.
_claims: list[socket.socket] = []


def free_port() -> int:
    """A TCP port on 127.0.0.1 that is nobody else's, neither this run's nor another's."""
    while True:
        port = random.choice(_RANGE)
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port
