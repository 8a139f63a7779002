"""What RabbitMQ's management plugin tells of queues beyond AMQP, over HTTP, where it answers.

Its numbers are some seconds old.  Where it is away one knows less, and nothing else is different.
"""

import base64
import json
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from taskq.broker.fastpath import FastConnection
from taskq.errors import BrokerUnavailable, ConfigurationError
from taskq.url import masked

#: Seconds that one answer may take.
_TIMEOUT = 2.0

#: The usual ports of AMQP and of this plugin.
_AMQP_PORT, _PORT = 5672, 15672

#: An answer is no longer than this; nor is it ever nearly as long.
_LONGEST = 1024 * 1024


class Management:
    """The plugin at *url*, asked as the broker's own user unless the URL names one.

    Without a URL it is looked for at its usual port, but only beside AMQP's usual port without TLS,
    where the password travels no more openly than before; and whoever answers there must know the
    name of the broker's cluster.
    """

    def __init__(self, url: str | None) -> None:
        self._given = url
        if url is not None and urlsplit(url).scheme not in ("http", "https"):
            raise ConfigurationError("--management takes a URL: http://user:password@host:15672")
        self._looked = False
        self._connection: Any = None
        self._headers: dict[str, str] = {}

    def queue(self, broker: FastConnection, name: str) -> dict[str, Any]:
        """What it tells of the queue *name* where *broker* is connected to, as fields of `Stock`.

        BrokerUnavailable if it was given by its URL and does not answer.
        """
        if not self._looked:
            self._looked = True
            self._find(broker)
        if self._connection is None:
            return {}
        vhost = quote(broker.params.virtual_host, safe="")
        found = self._get(f"/api/queues/{vhost}/{quote(name, safe='')}")
        stats = found.get("message_stats")
        stats = stats if isinstance(stats, dict) else {}
        return {
            "type": found.get("type"),
            "unacked": found.get("messages_unacknowledged"),
            "oldest": found.get("head_message_timestamp"),
            "arriving": _rate(stats.get("publish_details")),
            "leaving": _rate(stats.get("ack_details")),
        }

    def close(self) -> None:
        """Release the connection.  Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _find(self, broker: FastConnection) -> None:
        import http.client

        params = broker.params
        if self._given is None and (params.port != _AMQP_PORT or params.ssl_options):
            return
        parts = urlsplit(self._given or f"http://{params.host}:{_PORT}")
        user = unquote(parts.username or params.credentials.username)
        password = unquote(parts.password or "") or params.credentials.password
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {login}"}
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = kind(parts.hostname or "localhost", parts.port, timeout=_TIMEOUT)
        cluster = (broker.server_properties or {}).get("cluster_name")
        told = self._get("/api/overview").get("cluster_name")
        if told != cluster:
            self._give_up(f"it belongs to another broker, {told!r} and not {cluster!r}")

    def _get(self, path: str) -> dict[str, Any]:
        import http.client

        try:
            self._connection.request("GET", path, headers=self._headers)
            response = self._connection.getresponse()
            body = response.read(_LONGEST)
            if response.status == http.client.NOT_FOUND:
                return {}
            if response.status != http.client.OK:
                self._give_up(f"{response.status} {response.reason}")
                return {}
            found = json.loads(body)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._give_up(str(error) or type(error).__name__)
            return {}
        return found if isinstance(found, dict) else {}

    def _give_up(self, reason: str) -> None:
        self.close()
        if self._given is not None:
            raise BrokerUnavailable(f"RabbitMQ's management at {masked(self._given)}: {reason}")


def _rate(details: object) -> float | None:
    rate = details.get("rate") if isinstance(details, dict) else None
    return float(rate) if isinstance(rate, int | float) else None
