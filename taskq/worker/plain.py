"""Values as JSON can have them, settings without their secrets: what a worker says of itself.

Pure.  Who asks, and who is told, is the business of `desk`.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from taskq.url import masked

#: Settings, and keys inside them, whose values nobody is told.
_SECRET = re.compile(r"passw|passphrase|pwd|secret|token|credential|api_?key", re.IGNORECASE)
_MASK = "***"


def plain(value: Any) -> Any:
    """*value* as JSON can have it; what it cannot is replaced by its repr."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else repr(value)
        case Mapping():
            return {str(key): plain(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(each) for each in value]
    return repr(value)


def disclosed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """*settings* as `plain` values, with all that looks like a password masked."""
    return {name: _disclosed(name, value) for name, value in settings.items()}


def _disclosed(name: str, value: Any) -> Any:
    if value and _SECRET.search(name):
        return _MASK
    match value:
        case Mapping():
            return {str(key): _disclosed(str(key), each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_disclosed("", each) for each in value]
    found = plain(value)
    return masked(found) if isinstance(found, str) else found
