"""Certificates for TLS tests: an authority in a folder, made by the `openssl` command."""

import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.support.program import find_program

_REQUEST = """
[req]
distinguished_name = name
prompt = no
x509_extensions = extensions
[name]
CN = {name}
[extensions]
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
{extensions}
"""

_AUTHORITY = "basicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign"


class Certificate(NamedTuple):
    """Two PEM files: the certificate and its private key."""

    certificate: str
    key: str


class Authority:
    """An authority whose only witness is its own *certificate*, and what it vouches for."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._own = self._make(name, _AUTHORITY)
        self.certificate = self._own.certificate

    def issue(self, name: str, subject: str = "") -> Certificate:
        """A certificate for *name*; a server's has the *subject* `DNS:localhost` or the like."""
        signer = ("-CA", self._own.certificate, "-CAkey", self._own.key)
        return self._make(name, f"subjectAltName = {subject}" if subject else "", *signer)

    def _make(self, name: str, extensions: str, *signer: str) -> Certificate:
        made = Certificate(str(self._folder / f"{name}.pem"), str(self._folder / f"{name}.key"))
        request = self._folder / f"{name}.conf"
        request.write_text(_REQUEST.format(name=name, extensions=extensions))
        openssl = find_program("openssl", "openssl")
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
        files = ("-config", str(request), "-out", made.certificate, "-keyout", made.key)
        done = subprocess.run(
            [openssl, "req", "-x509", *kind, *files, *signer],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"openssl: {done.stderr}"
        return made
