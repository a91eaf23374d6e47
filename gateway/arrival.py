"""A socket whose client does not speak yet: first its proxy says where it is, or TLS begins, or both in this order."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

from ..common import reasons
from . import proxy
from .keepalive import UNSET
from .stream import Entrance, host_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..common.reasons import Reason
    from .stream import Stream

_log = logging.getLogger(__name__)


class Arrival(asyncio.BufferedProtocol):
    """Reads no byte too many from the socket, and then gives it to the connection proper.

    Args:
        entrance: where it comes in.
        make: makes the connection proper.
    """

    def __init__(self, entrance: Entrance, make: Callable[[], Stream]) -> None:
        self._entrance = entrance
        self._shared = entrance.shared
        self._make = make
        self._remote = ""
        self._address: str | None = None  # where it is, while it counts in the crowd
        self._transport: asyncio.Transport
        self._deadline = self._shared.now() + entrance.config.open_timeout
        self._buffer = memoryview(bytearray(proxy.HEAD))
        self._filled = 0
        self._head: proxy.Head | None = None
        self._task: asyncio.Task[None] | None = None
        self.slot = UNSET

    @property
    def staying(self) -> bool:
        """Whether it is about to open."""
        return self._address is not None

    def shut(self, reason: Reason) -> None:
        """Cut it: it would not understand why."""
        self.abort()

    def abort(self) -> None:
        """Cut it at once."""
        self._transport.abort()
        if self._task is not None:
            self._task.cancel()

    def due(self) -> None:
        """It took too long."""
        self._shared.counters["closed." + reasons.OPEN_TIMEOUT.name] += 1
        self.abort()

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, with a socket that was just accepted."""
        self._transport = cast("asyncio.Transport", transport)
        came = self._entrance.welcome(self, self._transport)
        if came is None:
            return
        self._remote, self._address = came
        self._shared.wheel.set(self, self._deadline)
        if not self._entrance.config.proxy_protocol:
            self._go_on()
        elif host_of(self._remote) not in self._entrance.trusted:
            self._refuse("untrusted_proxy", f"{self._remote} is none of trusted_proxies")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return room for what is missing of the header."""
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Look at the header, as soon as it is there."""
        self._filled += nbytes
        if self._filled < len(self._buffer):
            return
        try:
            if self._head is None:
                self._head = proxy.parse_head(bytes(self._buffer))
                if self._head.size:
                    self._buffer, self._filled = memoryview(bytearray(self._head.size)), 0
                    return
                self._buffer = self._buffer[:0]
            told = proxy.parse_body(self._head, bytes(self._buffer))
        except ValueError as error:
            self._refuse("bad_proxy_header", str(error))
            return
        if told is not None and not self._move(told):
            self._transport.abort()
        else:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the socket."""
        self._forget()

    # Steps

    def _move(self, remote: str) -> bool:
        """Count it where it is and not where its proxy is; return whether there is a place for it."""
        assert self._address is not None, "it counted until now"
        self._shared.crowd.go(self._address)
        self._address = None
        if not self._shared.come(host_of(remote)):
            return False
        self._remote, self._address = remote, host_of(remote)
        return True

    def _refuse(self, cause: str, why: str) -> None:
        counters = self._shared.counters
        counters["handshake.refused"] += 1
        counters[f"handshake.{cause}"] += 1
        if counters[f"handshake.{cause}"] == 1:
            _log.error("a connection at %s is cut off: %s", self._entrance.url, why)
        self._transport.abort()

    def _go_on(self) -> None:
        if self._transport.is_closing():
            return
        self._transport.pause_reading()
        if self._entrance.certificates is None:
            self._hand_over(self._transport)
        else:
            self._task = asyncio.get_running_loop().create_task(self._secure())

    async def _secure(self) -> None:
        """Let TLS begin."""
        loop = asyncio.get_running_loop()
        certificates = self._entrance.certificates
        assert certificates is not None, "there is TLS"
        early = _Early()
        try:
            transport = await loop.start_tls(
                self._transport,
                early,
                certificates.context,
                server_side=True,
                ssl_handshake_timeout=max(0.001, self._deadline - self._shared.now()),
                ssl_shutdown_timeout=self._entrance.config.close_timeout,
            )
        except (OSError, asyncio.CancelledError) as error:  # ssl.SSLError is an OSError
            self._shared.counters["handshake.tls_failed"] += 1
            _log.debug("the TLS handshake of %s failed: %s", self._remote, error)
            self._transport.abort()
            self._forget()
            return
        if transport is None or early.lost:
            self._forget()
            return
        transport.pause_reading()
        connection = self._hand_over(transport)
        if early.data:
            connection.data_received(bytes(early.data))

    def _hand_over(self, transport: asyncio.Transport) -> Stream:
        address, self._address = self._address, None
        assert address is not None, "it counted until now"
        connection = self._make()
        connection.take_over(transport, self._remote, address, self._deadline)
        self._shared.discard(self)
        return connection

    def _forget(self) -> None:
        if self._address is not None:
            self._shared.crowd.go(self._address)
            self._address = None
        self._shared.discard(self)


class _Early(asyncio.Protocol):
    """Keeps what comes by TLS before the connection is there to take it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost = False

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone already."""
        self.lost = True
