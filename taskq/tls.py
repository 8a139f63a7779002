"""Trust in servers that are reached by TLS: whom to trust, and what to do when trust is refused.

How a connection is made is the business of the adapters; they differ in what they call things.
"""

import ssl

from taskq.errors import ConfigurationError
from taskq.log import event
from taskq.url import masked

#: Names for verification in Python, Celery, redis-py and RabbitMQ's URLs.  For a client "optional"
#: is no weaker than "required": servers always show a certificate.
_VERIFIED = ("required", "optional", "cert_required", "cert_optional", "verify_peer")
_UNVERIFIED = ("none", "cert_none", "verify_none")

#: OpenSSL's codes for a certificate that is in order and names another host, or another address.
_OTHER_NAMES = (62, 64)

#: Servers that this process has warned of, and whether another one does that for it.
_announced: set[str] = set()
_silent = False


def verifies(option: object, name: str) -> bool:
    """Whether the value *option* of the option *name* asks for verification.

    ConfigurationError for a value that does not say.
    """
    if isinstance(option, bool | ssl.VerifyMode):
        return bool(option)
    word = str(option).lower()
    if word in _VERIFIED or word in _UNVERIFIED:
        return word in _VERIFIED
    raise ConfigurationError(f"{name} = {option!r}: use 'required' or 'none'")


def context(
    authority: str | None,
    certificate: str | None,
    key: str | None,
    *,
    verify: bool,
    password: str | None = None,
) -> ssl.SSLContext:
    """What a client needs to speak TLS; ConfigurationError for files of no use.

    Without the file *authority* the system's authorities are trusted; *certificate* and *key*,
    which *password* may protect, say who the client is.
    """
    try:
        made = ssl.create_default_context(cafile=authority)
        if certificate:
            # Without any password OpenSSL would ask the terminal for one.
            made.load_cert_chain(certificate, key, password or "")
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(filter(None, (authority, certificate, key)))
        raise ConfigurationError(f"the TLS files {files} cannot be used: {error}") from None
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def be_silent() -> None:
    """Warn of nothing in this process: another one knows the same servers, and does."""
    global _silent
    _silent = True


def announce_unverified(server: str, remedy: str) -> None:
    """Warn, once in a process, that anybody in between may pose as *server* (a URL)."""
    if not _silent and server not in _announced:
        _announced.add(server)
        event("tls-unverified", server=masked(server), remedy=remedy)


def explain(error: BaseException | None, *, authority: str, certificate: str) -> str | None:
    """What went wrong with TLS and what to do, if that is what led to *error*; else None.

    *authority* and *certificate* are what the user calls these options.
    """
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    own = f"name a client certificate that it trusts by {certificate}"
    match error:
        case None:
            return None
        case ssl.SSLCertVerificationError(verify_code=code, verify_message=reason):
            remedy = f"name the authority that signed it by {authority}"
            if code in _OTHER_NAMES:
                remedy = "use the host name in the certificate"
            return f"certificate verify failed: {str(reason).rstrip('.')}; {remedy}"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
            return "it speaks no TLS on this port; use its TLS port"
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return f"it ended TLS without a word; if it asks for one, {own}"
        case ssl.SSLError(reason=str(reason)) if "ALERT" in reason:
            alert = reason.partition("ALERT_")[2].replace("_", " ").lower()
            return f"it refuses us by TLS ({alert}); {own}"
    return str(getattr(error, "strerror", None) or error)
