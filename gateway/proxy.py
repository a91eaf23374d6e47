"""Where a client behind a proxy is: the PROXY protocol, version 2, and the header ``X-Forwarded-For``.

Pure. Both are only to be believed from a proxy that is trusted: anybody can send them.

The PROXY protocol is specified at https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    _Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX: Final = "unix"  #: in the list of trusted proxies: whoever may connect to a unix socket
SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
HEAD: Final = 16  #: bytes of the part whose length is known
MAX_BODY: Final = 2048  #: bytes of the rest, of which addresses and ports take 36
_VERSION: Final = 2
_LOCAL, _PROXY = 0, 1
_TCP4, _TCP6 = 0x11, 0x21
_SIZES: Final = {_TCP4: 4, _TCP6: 16}  # bytes of an address


class Head(NamedTuple):
    """The first :data:`HEAD` bytes of a header."""

    command: int
    family: int
    size: int  #: bytes of the body that follows


def parse_head(data: bytes) -> Head:
    """Take the first :data:`HEAD` bytes apart.

    Raises:
        ValueError: if it is no header of version 2, or one that is too long.
    """
    if data[:12] != SIGNATURE:
        raise ValueError("no header of the PROXY protocol, version 2")
    version, family, size = struct.unpack("!BBH", data[12:HEAD])
    if version >> 4 != _VERSION or version & 15 not in (_LOCAL, _PROXY):
        raise ValueError(f"version and command 0x{version:02x}, expected 0x20 or 0x21")
    if size > MAX_BODY:
        raise ValueError(f"a header of {size} bytes, expected at most {MAX_BODY}")
    return Head(version & 15, family, size)


def parse_body(head: Head, body: bytes) -> str | None:
    """Return where the client is, as ``192.0.2.7:5000``; None if the proxy speaks for itself, or says nothing of that.

    Raises:
        ValueError: if the body is too short for the addresses that it should have.
    """
    size = _SIZES.get(head.family)
    if head.command == _LOCAL or size is None:  # what follows has to be ignored
        return None
    if len(body) < 2 * size + 4:
        raise ValueError(f"{len(body)} bytes of addresses, expected {2 * size + 4}")
    address = ipaddress.ip_address(body[:size])
    (port,) = struct.unpack_from("!H", body, 2 * size)
    return f"[{address}]:{port}" if size == _SIZES[_TCP6] else f"{address}:{port}"


class Trusted:
    """Which proxies are trusted.

    Args:
        names: addresses, networks, or :data:`UNIX`.
    """

    def __init__(self, names: Iterable[str]) -> None:
        names = frozenset(names)
        self._unix = UNIX in names
        self._networks: list[_Network] = [ipaddress.ip_network(name) for name in names - {UNIX}]

    def __contains__(self, address: str) -> bool:
        """Return whether this address is one of them. An empty one is that of a unix socket."""
        if not address:
            return self._unix
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self._networks)

    def forwarded(self, headers: Iterable[tuple[str, str]]) -> str | None:
        """Return where the client is that a trusted proxy sent: the last address in ``X-Forwarded-For`` that is no trusted proxy's.

        Its port is 0 if it is not told. None if the proxy says nothing, or nothing that can be read.
        """
        said = ",".join(value for name, value in headers if name.lower() == "x-forwarded-for")
        for text in reversed([item.strip() for item in said.split(",")]):
            found = _address(text)
            if found is None:
                return None
            address, port = found
            if str(address) not in self:
                return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        return None


def _address(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int] | None:
    """Return an address, and a port or 0. Most proxies write an address alone, some ``1.2.3.4:5`` or ``[::1]:5``."""
    host, port = text, "0"
    if text.startswith("["):
        host, _, after = text[1:].partition("]")
        port = after.removeprefix(":") or "0"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address, number = ipaddress.ip_address(host), int(port)
    except ValueError:
        return None
    return (address, number) if 0 <= number < 1 << 16 else None
