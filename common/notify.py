"""What a process tells whoever started it, in the protocol of systemd's ``sd_notify(3)``: datagrams of ``KEY=value`` lines.

``READY=1`` once it serves, ``WATCHDOG=1`` every second while its loop turns, ``STOPPING=1`` when it begins to leave, and
``STATUS=...`` with why it could not start.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"  #: environment variable with the address of the socket
_LARGEST: Final = 4096  # bytes of a datagram; more than any of ours


class Notifier:
    """The side that tells.

    Args:
        address: path of a datagram unix socket, ``@`` first for an abstract one; "" if nobody listens.
    """

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def send(self, **fields: str) -> bool:
        """Tell these fields; return whether they were delivered. Somebody who does not listen is no error."""
        if self._socket is None:
            return False
        text = "\n".join(f"{key}={' '.join(value.splitlines())}" for key, value in fields.items())
        with contextlib.suppress(OSError):
            self._socket.sendto(text.encode()[:_LARGEST], self._address)
            return True
        return False

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def listen(path: str) -> socket.socket:
    """Return a socket for :func:`receive` that is bound to this path."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    return sock


def receive(sock: socket.socket) -> dict[str, str] | None:
    """Return the fields of the next datagram, or None if there is none for now."""
    try:
        data = sock.recv(_LARGEST)
    except BlockingIOError:
        return None
    lines = data.decode(errors="replace").split("\n")
    return {key: value for key, found, value in (line.partition("=") for line in lines) if found}
