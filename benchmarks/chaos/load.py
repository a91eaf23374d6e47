"""Clients by the hundred: raw WebSocket over asyncio protocols, whose messages are numbered and kept in a ledger."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import cycle, islice
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from .ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

TICK: Final = 0.005  # seconds between two bursts of the load
GROUPS: Final = 10
GROUP_SHARE: Final = 50  # every so manieth message is for the group
SILENT: Final = "silent"  # the group of those who do not talk
PATIENCE: Final = 20.0  # seconds after which a message is lost
UPGRADE: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A


async def until(true: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Wait at most so long for something to come true; return whether it did."""
    deadline = monotonic() + seconds
    while not (done := true()) and monotonic() < deadline:  # noqa: ASYNC110  # what is awaited sets no event
        await asyncio.sleep(0.02)
    return done


def masked(head: int, payload: bytes) -> bytes:
    """Return a frame of a client, of at most 125 bytes, under a mask of zeros."""
    return bytes((head, 0x80 | len(payload), 0, 0, 0, 0)) + payload


class Client(asyncio.Protocol):
    """One connection.

    Args:
        number: tells it from all others, those that were there before too.
        gateway: the name of its gateway.
        group: that it joins.
        heard: is called with each text that comes.
        gone: is called when the connection ended.
    """

    def __init__(
        self,
        number: int,
        gateway: str,
        group: str,
        heard: Callable[[Client, bytes], None],
        gone: Callable[[Client], None],
    ) -> None:
        self.number = number
        self.gateway = gateway
        self.group = group
        self.id = ""
        self.ready = asyncio.get_running_loop().create_future()  #: done when the application welcomed it
        self.end = ""  #: why the connection ended: an HTTP status, a close code, or "cut"
        self.full = False  #: whether the gateway does not read
        self._heard = heard
        self._gone = gone
        self._data = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(UPGRADE)

    def say(self, text: str) -> None:
        """Send a message."""
        self.transport.write(masked(_TEXT, text.encode()))

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False

    def data_received(self, data: bytes) -> None:
        data = self._data + data if self._data else data
        at = 0
        if not self._open:
            at = data.find(b"\r\n\r\n") + 4
            if at == 3:
                self._data = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self.end = data[9:12].decode()
                self.transport.close()
                return
            self._open = True
        while len(data) - at >= 4:  # no message of the application is shorter
            head, length, start = data[at], data[at + 1], at + 2
            if length >= 126:
                start += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : start])
            if len(data) < start + length:
                break
            at = start + length
            self._take(head, data[start:at])
        self._data = data[at:]

    def _take(self, head: int, payload: bytes) -> None:
        if head == _TEXT:
            self._heard(self, payload)
        elif head == _PING:
            self.transport.write(masked(_PONG, payload))
        elif head == _CLOSE:
            self.end = str(int.from_bytes(payload[:2]))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end = self.end or "cut"
        if not self.ready.done():
            self.ready.cancel()
        self._gone(self)


class Load:
    """Clients that come back when they are cut off, and talk.

    Args:
        url_of: returns where the gateway of this name listens now; "" if it does not, and a KeyError if there is none.
    """

    def __init__(self, url_of: Callable[[str], str]) -> None:
        self.ledger = Ledger()
        self.clients: dict[int, Client] = {}
        self.cut_off: list[Client] = []  #: who lost its connection, and did not want to
        self.waits: list[float] | None = None  #: seconds until each message came back, while it is a list
        self.seconds = 0.0  #: for which it talked
        self._url_of = url_of
        self._count = 0
        self._talking = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self, gateway: str, *, talks: bool = True) -> Client:
        """Connect one client. One that talks is in the books, and comes back if it is cut off.

        Raises:
            OSError: if nobody listens, or it is refused or cut off, and why.
            KeyError: if there is no such gateway.
        """
        url = self._url_of(gateway)
        if not url:
            raise ConnectionError(f"{gateway} does not listen yet")
        self._count += 1
        group = str(self._count % GROUPS) if talks else SILENT
        client = Client(self._count, gateway, group, self._take, self._came_off)
        host, _, port = url.removeprefix("ws://").rpartition(":")
        await asyncio.get_running_loop().create_connection(lambda: client, host, int(port))
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait([client.ready])
        except TimeoutError:
            client.end = "no answer"
        if not client.ready.done() or client.ready.cancelled():
            raise ConnectionError(client.end)
        return client

    async def talk(self, rate: int) -> None:
        """Send so many messages a second in all, whether or not those before came back, until :meth:`quiet`."""
        self._talking = True
        start = monotonic()
        said = 0
        speakers = cycle([0])
        known: list[int] = []
        while self._talking:
            if known != list(self.clients):
                known = list(self.clients)
                speakers = cycle(known)
            now = monotonic()
            due = min(int((now - start) * rate) - said, rate)  # who was stopped for long need not make up for all
            said += due
            for number in islice(speakers, due if known else 0):
                self._say(self.clients[number], now)
            await asyncio.sleep(TICK)
        self.seconds += monotonic() - start

    def _say(self, client: Client, now: float) -> None:
        if client.full or client.transport.is_closing():
            return
        if self.ledger.sent % GROUP_SHARE:
            client.say(f"e{self.ledger.say(client.number, now)}")
        else:
            client.say(f"g{client.group} {client.number} {self.ledger.tell(client.number)}")

    def _take(self, client: Client, payload: bytes) -> None:
        kind = payload[0]
        if kind == ord("e"):
            wait = self.ledger.echoed(client.number, int(payload[1:]), monotonic())
            if self.waits is not None and wait is not None:
                self.waits.append(wait)
        elif kind == ord("g"):
            _, speaker, number = payload.split()
            self.ledger.heard(client.number, int(speaker), int(number))
        elif kind == ord("i"):
            client.id = payload[1:].decode()
            client.say(f"j{client.group}")
        elif kind == ord("j"):
            client.ready.set_result(None)
            if client.group != SILENT:
                self.clients[client.number] = client
                self.ledger.joined(client.number, client.gateway, client.group)

    def _came_off(self, client: Client) -> None:
        if self.clients.pop(client.number, None) is not None:
            self.ledger.left(client.number)
            self.cut_off.append(client)
            task = asyncio.ensure_future(self._come_back(client.gateway))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _come_back(self, gateway: str) -> None:
        while True:
            with contextlib.suppress(OSError, KeyError):
                await self.connect(gateway)
                return
            await asyncio.sleep(0.1)

    async def caught_up(self) -> None:
        """Wait until all that was said before now came back, or is lost."""
        mark = monotonic()
        if not await until(lambda: self.ledger.waits_since() >= mark):
            self.ledger.give_up(mark)

    async def quiet(self) -> None:
        """Talk no more, and wait for what is on its way."""
        self._talking = False
        await until(lambda: not self.ledger.lost)

    def leave(self) -> None:
        """Let all clients go."""
        clients, self.clients = self.clients, {}
        for client in clients.values():
            client.transport.abort()
        for task in self._tasks:
            task.cancel()
