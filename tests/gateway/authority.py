"""A certificate authority for tests: it signs certificates for this machine, and for clients."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

PEM = serialization.Encoding.PEM


class Authority:
    """Certificates in a folder, valid for an hour."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a test"))
        self.cert = folder / "ca.pem"
        self.cert.write_bytes(self._sign(self._name, self._key, authority=True).public_bytes(PEM))

    def issue(self, file: str, *names: x509.NameAttribute[str]) -> tuple[str, str]:
        """Return the paths of a certificate and its key, which are written."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert, secret = self._folder / f"{file}.pem", self._folder / f"{file}.key"
        subject = _name(*(names or [x509.NameAttribute(NameOID.COMMON_NAME, file)]))
        cert.write_bytes(self._sign(subject, key).public_bytes(PEM))
        plain = serialization.NoEncryption()
        secret.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, plain))
        return str(cert), str(secret)

    def client(self, *certificate: str) -> ssl.SSLContext:
        """Return with what a client trusts this authority, and shows its own certificate if it has one."""
        context = ssl.create_default_context(cafile=str(self.cert))
        if certificate:
            context.load_cert_chain(*certificate)
        return context

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool = False) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(here, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _name(*attributes: x509.NameAttribute[str]) -> x509.Name:
    return x509.Name(list(attributes))
