"""Sockets whose clients do not speak yet: first a proxy says where the client is, or TLS begins, or both in this order.

These are accepted here and not by the event loop, because what is read of them must not be a byte too many for TLS.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING, Final

from ..common import reasons
from . import proxy
from .keepalive import UNSET
from .stream import Entrance, Stream, host_of, shown

if TYPE_CHECKING:
    import socket

    from ..common.reasons import Reason

_log = logging.getLogger(__name__)

_FULL: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE: Final = 1.0  #: seconds to wait when the system has no place for one more socket


class Reception:
    """Accepts the sockets of an entrance until it is closed."""

    def __init__(self, entrance: Entrance, sock: socket.socket, backlog: int) -> None:
        self._entrance = entrance
        self._socket = sock
        sock.listen(backlog)
        self._task = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        """Accept no more."""
        self._task.cancel()
        self._socket.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(self._socket)
            except OSError as error:  # else the client was gone before it was accepted
                if error.errno in _FULL:
                    _log.error("cannot accept at %s: %s", self._entrance.url, error.strerror)
                    await asyncio.sleep(_PAUSE)
            else:
                sock.setblocking(False)
                Arrival(self._entrance, sock, shown(peer))


class Arrival:
    """One socket, until it is handed over to the connection proper.

    Args:
        entrance: where it comes in.
        sock: the socket.
        remote: where the peer is.
    """

    def __init__(self, entrance: Entrance, sock: socket.socket, remote: str) -> None:
        self._entrance = entrance
        self._shared = shared = entrance.shared
        self._socket = sock
        self._remote = remote
        self._deadline = shared.now() + entrance.config.open_timeout
        self._task: asyncio.Task[None] | None = None
        self.slot = UNSET
        shared.connections.add(self)
        self._address = entrance.welcome(remote)  # where it is, while it counts in the crowd
        if self._address is None:
            sock.close()
            shared.discard(self)
        else:
            shared.wheel.set(self, self._deadline)
            self._task = asyncio.get_running_loop().create_task(self._open())
            self._task.add_done_callback(self._done)

    @property
    def staying(self) -> bool:
        """Whether it is about to open."""
        return True

    def shut(self, reason: Reason) -> None:
        """Cut it: it would not understand why."""
        self.abort()

    def abort(self) -> None:
        """Cut it at once."""
        if self._task is not None:
            self._task.cancel()

    def due(self) -> None:
        """It took too long."""
        self._shared.counters["closed." + reasons.OPEN_TIMEOUT.name] += 1
        self.abort()

    def hand_over(self, connection: Stream) -> tuple[str, str, float]:
        """Let a connection take its place; return where it is, as which address it counts, and when it must be open."""
        address, self._address = self._address, None
        assert address is not None, "it counted until now"
        self._shared.connections.add(connection)
        self._shared.discard(self)
        return self._remote, address, self._deadline

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        entrance = self._entrance
        context = entrance.certificates.context if entrance.certificates is not None else None
        try:
            if entrance.config.proxy_protocol:
                await self._hear_proxy()
            await loop.connect_accepted_socket(
                self._connection,
                self._socket,
                ssl=context,
                ssl_handshake_timeout=max(0.001, self._deadline - self._shared.now()) if context else None,
                ssl_shutdown_timeout=entrance.config.close_timeout if context else None,
            )
        except _RefusedError as refused:
            self._refuse(*refused.args)
        except OSError as error:  # ssl.SSLError is one, and one that hung up
            self._shared.counters["handshake.failed"] += 1
            _log.debug("%s did not come to the point at %s: %s", self._remote, entrance.url, error)

    def _done(self, _: asyncio.Task[None]) -> None:
        """It is handed over, or gone. This is no part of the task: one that is cancelled early never begins."""
        if self._address is not None:
            self._shared.crowd.go(self._address)
            self._socket.close()
        self._shared.discard(self)

    def _connection(self) -> Stream:
        connection = self._entrance.connection()
        connection.arrival = self
        return connection

    async def _hear_proxy(self) -> None:
        if host_of(self._remote) not in self._entrance.trusted:
            raise _RefusedError("untrusted_proxy", f"{self._remote} is none of trusted_proxies")
        try:
            head = proxy.parse_head(await self._read(proxy.HEAD))
            told = proxy.parse_body(head, await self._read(head.size))
        except ValueError as error:
            raise _RefusedError("bad_proxy_header", str(error)) from None
        if told is not None:
            shared = self._shared
            shared.crowd.go(self._address or "")
            self._remote, self._address = told, None
            if not shared.come(host_of(told)):
                raise _RefusedError("", "")
            self._address = host_of(told)

    async def _read(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        data = b""
        while len(data) < size:
            piece = await loop.sock_recv(self._socket, size - len(data))
            if not piece:
                raise ConnectionResetError(errno.ECONNRESET, "it hung up")
            data += piece
        return data

    def _refuse(self, cause: str, why: str) -> None:
        counters = self._shared.counters
        counters["handshake.refused"] += 1
        if cause:
            counters[f"handshake.{cause}"] += 1
            if counters[f"handshake.{cause}"] == 1:
                _log.error("a connection at %s is cut off: %s", self._entrance.url, why)
        self._socket.close()


class _RefusedError(Exception):
    """It may not come: what is counted, and why."""
