"""Opening a Redis client so that no call waits without bound, and TLS mistakes are said at once.

What is kept there belongs to the result store, and to the store of beat.
"""

from typing import Any

from taskq import tls
from taskq.errors import ConfigurationError
from taskq.url import masked

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as missing:
    raise ConfigurationError(
        "a redis:// URL needs redis-py: pip install 'taskq[redis]'"
    ) from missing

__all__ = ["explain", "open_client", "redis"]

#: What the URL calls the authority's certificate, and our own.
_AUTHORITY, _CERTIFICATE = "ssl_ca_certs in the URL", "ssl_certfile and ssl_keyfile in the URL"


def open_client(url: str, *, timeout: float, setting: str) -> "redis.Redis[bytes]":
    """A client of *url*, each of whose operations takes *timeout* seconds at most.

    ConfigurationError, naming the *setting*, for a URL that cannot be used.
    """
    shown = masked(url.partition("?")[0])
    settings: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # A connection that sat through a restart of the server is replaced, once.
        "retry": Retry(NoBackoff(), 1, (redis.ConnectionError,)),
        "retry_on_error": [redis.ConnectionError],
        "protocol": 2,
    }
    try:
        client: redis.Redis[bytes] = redis.Redis.from_url(url, **settings)
        _check(client.connection_pool, shown, setting)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{setting} {shown!r}: {error}") from error
    return client


def explain(error: redis.RedisError) -> str | None:
    """What *error* means, if it is one of TLS."""
    return tls.explain(error, authority=_AUTHORITY, certificate=_CERTIFICATE)


def _check(pool: Any, shown: str, setting: str) -> None:
    """Find fault with options now that redis-py would find when it connects."""
    given: dict[str, Any] = pool.connection_kwargs
    if issubclass(pool.connection_class, redis.SSLConnection):
        verify = tls.verifies(given.get("ssl_cert_reqs", "required"), "ssl_cert_reqs")
        given["ssl_cert_reqs"] = "required" if verify else "none"  # it knows fewer words
        tls.context(
            *(given.get(name) for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")),
            verify=verify,
            password=given.get("ssl_password"),
        )
        if not (verify and given.get("ssl_check_hostname", True)):
            tls.announce_unverified(shown, f"name its authority by {_AUTHORITY}")
    elif meaningless := [name for name in given if name.startswith("ssl_")]:
        raise ConfigurationError(
            f"{setting} {shown!r} is not encrypted, so {meaningless[0]!r} means "
            "nothing there; use rediss://"
        )
    pool.connection_class(**given)
