"""A listener on any free port whose owner records what happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from gatecrew.common.config import GatewayConfig
from gatecrew.gateway.listener import Listener

if TYPE_CHECKING:
    from gatecrew.gateway.handshake import Handshake
    from gatecrew.gateway.pages import Pages
    from gatecrew.gateway.stream import Stream

ON_BOTH_LOOPS = ("test_websocket.py", "test_flood.py", "test_listener.py", "test_tcp.py", "test_arrival.py")


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Callable[[], Any]] | None:
    """Run the tests of sockets on asyncio and on uvloop."""
    if item.path.name in ON_BOTH_LOOPS:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return None


@dataclass(eq=False)
class Visitor:
    """The client object of the recorder."""

    connection: Stream
    handshake: Handshake


class Recorder:
    """An owner that keeps what it is told, in order."""

    def __init__(self) -> None:
        self.visitors: list[Visitor] = []
        self.messages: list[str | bytes] = []
        self.closed_with: list[tuple[int, str]] = []
        self.waiting: list[Stream] = []  # those that a test lets wait in the handshake
        self.lost: list[object] = []  # those that gave up in the handshake
        self.on_arrival: Callable[[Stream, Handshake], object] = lambda connection, handshake: None
        self.on_open: Callable[[Visitor], None] = lambda visitor: None
        self.on_message: Callable[[Visitor, str | bytes], None] = lambda visitor, data: None
        self._changed = asyncio.Event()

    def arrived(self, connection: Stream, handshake: Handshake) -> object:
        return self.on_arrival(connection, handshake)

    def gave_up(self, arrival: object) -> None:
        self.lost.append(arrival)
        self._changed.set()

    def opened(self, connection: Stream, handshake: Handshake, arrival: object) -> Visitor:
        visitor = Visitor(connection, handshake)
        self.visitors.append(visitor)
        self.on_open(visitor)
        self._changed.set()
        return visitor

    def received(self, client: Visitor, data: str | bytes) -> None:
        self.messages.append(data)
        self.on_message(client, data)
        self._changed.set()

    def closed(self, client: Visitor, code: int, reason: str) -> None:
        assert client in self.visitors
        self.closed_with.append((code, reason))
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until what was told makes the condition true."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def first(self) -> Visitor:
        await self.until(lambda: self.visitors)
        return self.visitors[0]

    async def goodbye(self) -> tuple[int, str]:
        """Return with what the only client was closed."""
        await self.until(lambda: self.closed_with)
        (closed,) = self.closed_with
        return closed


@dataclass
class Served:
    """What a test gets."""

    listener: Listener
    owner: Recorder
    counters: Counter[str]

    @property
    def url(self) -> str:
        return self.listener.urls[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


Serve = Callable[..., contextlib.AbstractAsyncContextManager[Served]]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def serve() -> Serve:
    @contextlib.asynccontextmanager
    async def start(*, pages: Pages | None = None, **settings: Any) -> AsyncIterator[Served]:
        config = replace(GatewayConfig(listen=("ws://127.0.0.1:0",), ping_interval=0), **settings)
        owner = Recorder()
        counters: Counter[str] = Counter()
        listener = Listener(config, owner, counters, pages=pages)
        await listener.start()
        try:
            async with asyncio.timeout(20):  # the signal of pytest-timeout gets lost in uvloop
                yield Served(listener, owner, counters)
        finally:
            listener.stop_accepting()
            await listener.abort_clients()
            assert len(listener) == 0

    return start
