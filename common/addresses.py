"""Addresses as they stand in a configuration: ``ws://host:port``, ``tcp://host:first-last``, ``unix:/path?key=value``."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import parse_qsl

_SHAPE = re.compile(r"([a-z]+)://(?:\[([^\[\]]+)\]|([^\[\]:/@?#\s]+)):([0-9]{1,5})(?:-([0-9]{1,5}))?")
_LAST_PORT = 65535
#: Where clients may connect, and whether by TLS.
LISTEN_SCHEMES = {"ws": False, "wss": True, "tcp": False, "tls": True, "unix": False}
_MAX_PATH = 107  # bytes of the path of a unix socket; that is the kernel's bound


class Address(NamedTuple):
    """A parsed address; ``first`` and ``last`` are the same unless it names a range of ports."""

    scheme: str
    host: str  #: without brackets
    first: int
    last: int

    def with_port(self, port: int) -> str:
        """Return the address with this one port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{port}"

    @property
    def wildcard(self) -> bool:
        """Whether it stands for all addresses of the machine: one can listen there, but nobody can connect to it."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return self.host == "*"

    @property
    def loopback(self) -> bool:
        """Whether it cannot be reached from other machines."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Listen(NamedTuple):
    """Where clients connect, taken apart."""

    url: str  #: without the options
    scheme: str
    address: Address | None  #: None for a unix socket
    path: str  #: of a unix socket
    options: dict[str, str]

    @property
    def tls(self) -> bool:
        """Whether clients come by TLS."""
        return LISTEN_SCHEMES[self.scheme]

    @property
    def shared(self) -> bool:
        """Whether it stands for any number of listeners: any free port."""
        return self.address is not None and not self.address.first


def parse_listen(text: str) -> Listen:
    """Take apart where clients connect: ``ws://host:port``, or with wss, tcp or tls, or ``unix:/path``; then ``?key=value&key=value``.

    Raises:
        ValueError: if it is not of this form.
    """
    url, _, query = text.partition("?")
    scheme, _, path = url.partition(":")
    if scheme not in LISTEN_SCHEMES:
        raise ValueError(f"{scheme or 'nothing'} is not one of {', '.join(LISTEN_SCHEMES)}")
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ValueError("an option stands there twice")
    if scheme != "unix":
        return Listen(url, scheme, parse(url, scheme), "", options)
    if not path.startswith("/") or "\0" in path:
        raise ValueError("not of the form unix:/path")
    if len(path.encode()) > _MAX_PATH:
        raise ValueError(f"the path of a unix socket has at most {_MAX_PATH} bytes")
    return Listen(url, scheme, None, path, options)


def parse(text: str, scheme: str, *, ports: bool = False) -> Address:
    """Take an address apart.

    Args:
        text: ``scheme://host:port``, an IPv6 host in brackets; port 0 means any free one.
        scheme: the scheme that it must have.
        ports: whether ``first-last`` may stand for the port.

    Raises:
        ValueError: if it is not of this form.
    """
    match = _SHAPE.fullmatch(text)
    if match is None or match[1] != scheme:
        raise ValueError(f"not of the form {scheme}://host:port")
    if match[2] is not None and not _is_ipv6(match[2]):
        raise ValueError(f"[{match[2]}] is not an IPv6 address")
    first = int(match[4])
    last = first if match[5] is None else int(match[5])
    if match[5] is not None and (not ports or not 0 < first <= last):
        raise ValueError("not a range of ports, as in 2900-2999" if ports else "a range of ports has no meaning here")
    if last > _LAST_PORT:
        raise ValueError(f"ports end at {_LAST_PORT}")
    return Address(scheme, match[2] or match[3], first, last)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
