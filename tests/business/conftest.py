"""A whole cluster in the loop of the test: real links, real sockets, one register, and the gateways and workers asked for."""

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
    """One register and one gateway, in this loop; more gateways, and workers, as they are asked for."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._stack = AsyncExitStack()
        self.config = self._configure({})
        self.gateway: Gateway
        self.url = ""
        self._urls: dict[Gateway, str] = {}

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

    async def expand(self) -> Gateway:
        """Start another gateway; it is stopped at the end. It is to be known before workers are."""
        gateway = Gateway(self.config, "gateway-2", lambda error: None)
        self._urls[gateway] = await gateway.start()
        self._stack.push_async_callback(gateway.stop)
        agent = self.gateway._agent
        await until(lambda: agent is not None and len(agent.members) == 2)
        return gateway

    async def work(self, app: App, name: str = "worker-1", **settings: Any) -> Worker:
        """Start a worker, with these settings of ``[worker]``; it is stopped at the end. Return it linked to the gateway."""
        worker = Worker(self._configure(settings), name, app)
        self._stack.push_async_callback(worker.stop)
        await worker.start()
        await until(lambda: any(link.alive for link in worker._hub.gateways.values()))
        return worker

    @contextlib.asynccontextmanager
    async def client(self, path: str = "/", gateway: Gateway | None = None) -> AsyncIterator[ClientConnection]:
        """Connect a client, to the first gateway or another one."""
        url = self._urls[gateway] if gateway is not None else self.url
        async with connect(url + path, compression=None, proxy=None) as client:
            yield client

    def link(self, worker: Worker, gateway: Gateway | None = None) -> Link:
        """Return the first gateway, or another one, as the worker sees it."""
        return worker._hub.gateways[(gateway or self.gateway)._node.key]

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

    @contextlib.contextmanager
    def losing(self, worker: Worker, opcode: int | None = None) -> Iterator[None]:
        """Let no message of this kind, or of any, get through from workers to the gateway, until the lane ends at the end."""
        acceptor = self.gateway._acceptor
        assert acceptor is not None, "the gateway has started"
        with pytest.MonkeyPatch.context() as patch:
            receive = acceptor.owner.received
            patch.setattr(
                acceptor.owner,
                "received",
                lambda peer, batch: receive(peer, [message for message in batch if opcode not in (None, message[0])]),
            )
            yield
            self.end_lane(worker)

    async def cut(self, worker: Worker) -> None:
        """End the lane to a worker as the gateway does when it is silent; the worker begins another by itself."""
        link = self.link(worker)
        self.end_lane(worker)
        await until(lambda: not link.alive)

    def end_lane(self, worker: Worker, gateway: Gateway | None = None) -> None:
        """Do the same at the first gateway or another one, and do not wait."""
        acceptor = (gateway or self.gateway)._acceptor
        assert acceptor is not None, "the gateway has started"
        for peer in acceptor._peers():
            if peer.key == worker._key:
                acceptor.give_up(peer, "cut by a test")

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
