"""Addresses as they stand in a configuration: ``ws://host:port``, ``tcp://host:port``, ``tcp://host:first-last``, ``ipc://path``."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

_SHAPE = re.compile(r"([a-z]+)://(?:\[([^\[\]]+)\]|([^\[\]:/@?#\s]+)):([0-9]{1,5})(?:-([0-9]{1,5}))?")
_LAST_PORT = 65535


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
