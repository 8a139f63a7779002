"""Broker and backend URLs as text: telling them apart, splitting lists, hiding passwords.

What the parts of a URL mean belongs to the adapter whose scheme it is.
"""

import re
from collections.abc import Sequence

_SECRET = re.compile(r"(?<=://)([^/@\s]*?):([^/\s]*)@")
#: Drivers of stores also take it behind the question mark: `?password=...`, `&ssl_password=...`.
_PARAMETER = re.compile(
    r"([?&]\w*(?:password|passwd|pwd|secret|token)\w*=)[^&#\s'\"]+", re.IGNORECASE
)


def masked(text: str) -> str:
    """*text* with the password of every URL in it replaced by `***`.

    Works on whole sentences too, so that a driver's error message can be passed through it.
    """
    return _PARAMETER.sub(r"\1***", _SECRET.sub(r"\1:***@", text))


def scheme(url: str) -> str:
    """The part before `://` in lower case (`db+postgresql`, `amqp`), or all of a bare word."""
    return url.split(":", 1)[0].lower()


def split(urls: str | Sequence[str]) -> tuple[str, ...]:
    """The URLs of a fail-over list: a sequence, or one string with `;` between, as in Celery."""
    items = urls.split(";") if isinstance(urls, str) else urls
    return tuple(item.strip() for item in items if item.strip())
