"""A whole cluster in the loop of the test: real links, real sockets, one register, one gateway and the workers asked for."""

from __future__ import annotations

import contextlib
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from gatecrew.business.worker import Worker
from gatecrew.common.config import ClusterConfig, Config, GatewayConfig, WorkerConfig
from gatecrew.common.ids import new_key
from gatecrew.common.link import Node
from gatecrew.gateway.server import Gateway
from gatecrew.register.agent import link_settings
from gatecrew.register.server import Register
from websockets.asyncio.client import ClientConnection, connect

from .waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from gatecrew import App
    from gatecrew.business.hub import Gateway as Link
    from gatecrew.common.link import Peer
    from gatecrew.common.messages import Message


class House:
    """One register and one gateway, in this loop; workers as they are asked for."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._stack = AsyncExitStack()
        self.config = self._configure({})
        self.gateway: Gateway
        self.url = ""

    def _configure(self, worker: dict[str, Any]) -> Config:
        return Config(
            cluster=ClusterConfig(run_dir=str(self._run_dir), probe_interval=0.1, dead_after=0.5),
            gateway=GatewayConfig(listen=("ws://127.0.0.1:0",), close_timeout=1),
            worker=WorkerConfig(**{"drain_timeout": 2.0, **worker}),
        )

    async def start(self) -> None:
        """Start the register and the gateway, and return when the one knows the other."""
        node = Node("register", "register-1", new_key())
        register = Register(node, link_settings(self.config), self.config.cluster.register_addresses()[0])
        await register.start()
        self._stack.push_async_callback(register.stop)
        self.gateway = Gateway(self.config, "gateway-1", lambda error: None)
        self.url = await self.gateway.start()
        self._stack.push_async_callback(self.gateway.stop)
        agent = self.gateway._agent
        await until(lambda: agent is not None and agent.members)

    async def work(self, app: App, name: str = "worker-1", **settings: Any) -> Worker:
        """Start a worker, with these settings of ``[worker]``; it is stopped at the end. Return it linked to the gateway."""
        worker = Worker(self._configure(settings), name, app)
        self._stack.push_async_callback(worker.stop)
        await worker.start()
        await until(lambda: any(link.alive for link in worker._hub.gateways.values()))
        return worker

    @contextlib.asynccontextmanager
    async def client(self, path: str = "/") -> AsyncIterator[ClientConnection]:
        """Connect a client."""
        async with connect(self.url + path, compression=None, proxy=None) as client:
            yield client

    def link(self, worker: Worker) -> Link:
        """Return the gateway as the worker sees it."""
        (link,) = worker._hub.gateways.values()
        return link

    @contextlib.contextmanager
    def full(self, worker: Worker) -> Iterator[None]:
        """Let the gateway be too far behind to take commands of the worker."""
        lane = self.link(worker).peer.lane
        assert lane is not None, "the worker is linked"
        limit, lane.limit = lane.limit, -1
        try:
            yield
        finally:
            lane.limit = limit

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """Let the gateway do nothing about what comes over its links until the end."""
        assert self.gateway._acceptor is not None, "the gateway has started"
        owner = self.gateway._acceptor.owner
        came: list[tuple[Peer, list[Message]]] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, "received", lambda peer, batch: came.append((peer, batch)))
            yield
        for peer, batch in came:
            owner.received(peer, batch)

    async def cut(self, worker: Worker) -> None:
        """End the lane to a worker as the gateway does when it is silent; the worker begins another by itself."""
        acceptor = self.gateway._acceptor
        assert acceptor is not None, "the gateway has started"
        link = self.link(worker)
        acceptor.give_up(next(peer for peer in acceptor._peers() if peer.key == worker._key), "cut by a test")
        await until(lambda: not link.alive)

    async def stop(self) -> None:
        """Stop everything, the last first."""
        await self._stack.aclose()


@pytest.fixture
async def house(run_dir: Path) -> AsyncIterator[House]:
    house = House(run_dir)
    try:
        await house.start()
        yield house
    finally:
        await house.stop()


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what was logged as an error so far."""
    return lambda: [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
