"""AMQP field tables: encoding what taskq sends, decoding whatever arrives.

To be written: see the contract below.
"""

from collections.abc import Mapping
from typing import Any


def encode(values: Mapping[str, Any]) -> bytes:
    """*values* as a field table, its four length bytes included; ValueError if it cannot be."""
    raise NotImplementedError


def decode(raw: bytes, at: int = 0) -> tuple[dict[str, Any], int]:
    """The table at *at* in *raw* and the index behind it; ValueError for anything else."""
    raise NotImplementedError
