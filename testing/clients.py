"""Simulated clients: they speak WebSocket with the real listener of a gateway, over a transport in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from .network import Pipe, lose_some

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Loop, World

_REQUEST: Final = (
    "GET {path} HTTP/1.1\r\nHost: gatecrew\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
)
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_EOF: Final = None  # in a pipe: nothing more comes
_GONE: Final = 1006  # RFC 6455, section 7.4.1: there was no close frame


class Closed(Exception):
    """The client is closed, and nothing more comes."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class Guest:
    """A client of the cluster, as the test plays it.

    Args:
        world: whose time passes.
        loop: of the test, which waits for it.
        number: among the clients of the simulation.
        gateway: the name of its gateway.
    """

    def __init__(self, world: World, loop: Loop, number: int, gateway: str) -> None:
        self.number = number
        self.gateway = gateway
        self.closed: tuple[int, str] | None = None  #: code and reason, once it is closed; 1006 if without a close frame
        self.received: list[str | bytes] = []  #: all messages that came so far
        self._loop = loop
        self._chance = chance = world.chance(f"client {number}")
        self._up = Pipe(world, chance, self._to_gateway)
        self._down = Pipe(world, chance, self._from_gateway)
        self._transport: _Transport | None = None
        self._next = 0  # of what was received, for :meth:`receive`
        self._buffer = b""
        self._open = False
        self._leaving = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<client {self.number} at {self.gateway}>"

    @property
    def id(self) -> str:
        """Its client id, as handlers see it."""
        assert self._transport is not None, "it has connected"
        client_id: str = self._transport.protocol.client.id
        return client_id

    @property
    def accepted(self) -> bool:
        """Whether the gateway accepted it, even if it is closed by now."""
        return self._open

    @property
    def open(self) -> bool:
        """Whether the gateway has accepted it, and it is not closed."""
        return self._open and self.closed is None and not self._leaving

    # What a test does

    def send(self, data: str | bytes) -> None:
        """Send a message.

        Raises:
            Closed: if it is closed.
        """
        if not self.open:
            raise Closed(*(self.closed or (_GONE, "")))
        self._send(_TEXT if isinstance(data, str) else _BINARY, data.encode() if isinstance(data, str) else data)

    async def receive(self, timeout: float = 30.0) -> str | bytes:  # virtual seconds
        """Return the next message.

        Raises:
            Closed: if it is closed, and there is none.
            TimeoutError: if none comes within so many virtual seconds.
        """
        await self._until(lambda: len(self.received) > self._next, f"{self!r} received nothing", timeout)
        if len(self.received) == self._next:
            assert self.closed is not None, "else it would wait"
            raise Closed(*self.closed)
        self._next += 1
        return self.received[self._next - 1]

    async def wait_closed(self, timeout: float = 30.0) -> tuple[int, str]:
        """Return the code and the reason with which it was closed, once it is.

        Raises:
            TimeoutError: if it is not within so many virtual seconds.
        """
        await self._until(lambda: False, f"{self!r} was not closed", timeout)
        assert self.closed is not None, "else it would wait"
        return self.closed

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye; :meth:`wait_closed` returns when the gateway did, too."""
        if self.open:
            self._leaving = True
            self._send(_CLOSE, code.to_bytes(2, "big") + reason.encode())

    def vanish(self) -> None:
        """Break the connection, without a word."""
        if self.closed is None:
            self._up.send(_EOF)
            self._end(_GONE, "")

    # What the simulation does

    async def connect(
        self, loop: Loop, accept: Callable[[], asyncio.BaseProtocol] | None, path: str, headers: dict[str, str]
    ) -> None:
        """Connect to what listens in a process.

        Raises:
            Closed: if it is refused.
        """
        if accept is None:
            self._end(_GONE, "nobody listens")
        else:
            self._transport = _Transport(loop, self, self._down)
            loop.poke(self._transport.accept, accept)
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self._up.send(_REQUEST.format(path=path, headers=lines).encode())
        await self._until(lambda: self._open, f"{self!r} was not accepted", 30.0)
        if not self._open:
            assert self.closed is not None, "else it would wait"
            raise Closed(*self.closed)

    def lose(self) -> None:
        """Lose its gateway."""
        lose_some([self._down], self._chance)
        self._down.send(_EOF)

    async def _until(self, true: Callable[[], bool], else_: str, timeout: float) -> None:
        deadline = self._loop.time() + timeout
        while not true() and self.closed is None:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            except TimeoutError:
                raise TimeoutError(f"{else_} within {timeout:g} s") from None

    def _changed(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _to_gateway(self, data: bytes | None) -> None:
        assert self._transport is not None, "it has connected"
        self._transport.loop.poke(self._transport.arrived, data)

    def _from_gateway(self, data: bytes | None) -> None:
        if self.closed is not None:
            return
        if data is _EOF:
            self._up.send(_EOF)
            self._end(_GONE, "")
            return
        self._buffer += data
        if not self._open and not self._accepted():
            return
        while self._read_frame():
            pass
        self._changed()

    def _accepted(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        status = head.split(b"\r\n")[0].decode()
        if " 101 " not in status:
            self._up.send(_EOF)
            self._end(_GONE, status)
            return False
        self._open = True
        self._buffer = rest
        return True

    def _read_frame(self) -> bool:
        """Read one frame of the gateway, which are never masked nor fragmented; return whether there was one."""
        buffer = self._buffer
        if len(buffer) < 2 or self.closed is not None:
            return False
        opcode, size, at = buffer[0] & 15, buffer[1], 2
        if size >= 126:
            at += 2 if size == 126 else 8
            size = int.from_bytes(buffer[2:at], "big")
        if len(buffer) < at + size:
            return False
        data, self._buffer = buffer[at : at + size], buffer[at + size :]
        if opcode == _CLOSE:
            if not self._leaving:
                self._send(_CLOSE, data)
            self._up.send(_EOF)
            self._end(int.from_bytes(data[:2], "big") if data else 1005, data[2:].decode())
        elif opcode == _PING:
            self._send(_PONG, data)
        elif opcode in (_TEXT, _BINARY):
            self.received.append(data.decode() if opcode == _TEXT else data)
        return True

    def _send(self, opcode: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            length = bytes([128 | size])
        else:
            length = b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big")
        self._up.send(bytes([128 | opcode]) + length + b"\0\0\0\0" + data)  # masked by zeros: data as it is

    def _end(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        self._changed()


class _Transport(asyncio.Transport):
    """What the gateway has of a client's connection."""

    def __init__(self, loop: Loop, guest: Guest, down: Pipe) -> None:
        super().__init__({"peername": ("192.0.2.1", 1024 + guest.number % 60000)})
        self.loop = loop
        self.guest = guest
        self.protocol: Any = None
        self._down = down
        self._closing = False
        self._paused = False
        self._unread: deque[bytes | None] = deque()

    def accept(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Begin."""
        self.protocol = factory()
        self.protocol.connection_made(self)

    def arrived(self, data: bytes | None) -> None:
        """Let the protocol read, unless it does not want to."""
        if self._paused:
            self._unread.append(data)
        elif self._closing:
            pass
        elif data is _EOF:
            self.protocol.eof_received()
            self.close()
        else:
            self.protocol.data_received(data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        if not self._closing:
            self._down.send(bytes(data))

    def write_eof(self) -> None:
        """Send no more."""
        self._down.send(_EOF)

    def can_write_eof(self) -> bool:
        """Return that it can."""
        return True

    def get_write_buffer_size(self) -> int:
        """Return that everything has left: simulated clients always read."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing."""

    def is_closing(self) -> bool:
        """Return whether it has ended."""
        return self._closing

    def pause_reading(self) -> None:
        """Keep what comes."""
        self._paused = True

    def resume_reading(self) -> None:
        """Read on, soon."""
        self._paused = False
        self.loop.call_soon(self._read_on)

    def close(self) -> None:
        """End."""
        if not self._closing:
            self._closing = True
            self._down.send(_EOF)
            self.loop.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        """End at once."""
        self.close()

    def _read_on(self) -> None:
        while self._unread and not self._paused:
            self.arrived(self._unread.popleft())
