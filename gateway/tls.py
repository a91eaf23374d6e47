"""The certificates of a listener, which may change while it listens."""

from __future__ import annotations

import logging
import os
import ssl
from typing import Any, Final

from ..common.errors import ConfigError

_log = logging.getLogger(__name__)
_SHORT: Final = {
    "commonName": "CN",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "domainComponent": "DC",
    "userId": "UID",
}
_SPECIAL: Final = str.maketrans({character: f"\\{character}" for character in ',+"\\<>;='})


class Certificates:
    """What a listener shows, and what it asks of clients.

    Args:
        cert: file with its certificate and the chain, PEM.
        key: file with the secret key, PEM.
        client_ca: file with those who sign the certificates of clients, PEM; if empty, clients need none.

    Raises:
        ConfigError: if something cannot be read or does not fit.
    """

    def __init__(self, cert: str, key: str, client_ca: str = "") -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._seen = self._look()
        self.context = self._load()  #: for the connections that come from now on

    def refresh(self) -> bool:
        """Read the files anew if they changed; return whether they did and are good. If not, what was there stays."""
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.context = self._load()
        except ConfigError as error:
            _log.error("%s; the listener goes on with what it had", error)
            return False
        _log.info("%s was read anew", self._cert)
        return True

    def _look(self) -> list[tuple[int, ...]]:
        """Return what differs when a file differs."""
        found: list[tuple[int, ...]] = []
        for path in (self._cert, self._key, self._client_ca):
            try:
                status = os.stat(path)  # noqa: PTH116  # a name may be empty
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
            except OSError:
                found.append(())
        return found

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        where = "tls_cert and tls_key"
        try:
            context.load_cert_chain(self._cert, self._key, password="")
            if self._client_ca:
                where = "tls_client_ca"
                context.load_verify_locations(self._client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            files = self._client_ca if where == "tls_client_ca" else f"{self._cert} and {self._key}"
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"[gateway] {where}: cannot use {files}: {reason}") from error
        return context


def subject(certificate: dict[str, Any] | None) -> str | None:
    """Return whose certificate a client showed, as ``CN=device-7,O=Example`` (RFC 4514); None if it showed none."""
    if not certificate:
        return None
    names = [pair for name in certificate.get("subject", ()) for pair in name]
    return ",".join(f"{_SHORT.get(kind, kind)}={value.translate(_SPECIAL)}" for kind, value in reversed(names))
