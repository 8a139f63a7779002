"""Python values to bytes and back: json and msgpack, compression, and an allow-list of both.

To be written: see the contract below.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Encoded:
    """Bytes with the labels AMQP wants: *content_type* and *content_encoding*."""

    body: bytes
    content_type: str
    content_encoding: str


def dumps(value: Any, serializer: str = "json") -> Encoded:
    """*value* as bytes; EncodeError names the path of what would not come back equal."""
    raise NotImplementedError


def loads(body: bytes, content_type: str | None, content_encoding: str | None, accept: Iterable[str]) -> Any:
    """The value in *body*; ContentDisallowed or MessageMalformed, never another exception.

    *accept* lists serializer names or MIME types.
    """
    raise NotImplementedError


def compress(body: bytes, method: str) -> tuple[bytes, str]:
    """*body* compressed by *method* (gzip, ...) and the value of the `compression` header."""
    raise NotImplementedError


def decompress(body: bytes, method: str, limit: int) -> bytes:
    """The uncompressed *body*; MessageMalformed if it is not that, or larger than *limit* bytes."""
    raise NotImplementedError
