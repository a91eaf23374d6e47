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

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gatecrew import App


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
        """Start the register and the gateway."""
        node = Node("register", "register-1", new_key())
        register = Register(node, link_settings(self.config), self.config.cluster.register_addresses()[0])
        await register.start()
        self._stack.push_async_callback(register.stop)
        self.gateway = Gateway(self.config, "gateway-1")
        self.url = await self.gateway.start()
        self._stack.push_async_callback(self.gateway.stop)

    async def work(self, app: App, name: str = "worker-1", **settings: Any) -> Worker:
        """Start a worker, with these settings of ``[worker]``; it is stopped at the end."""
        worker = Worker(self._configure(settings), name, app)
        self._stack.push_async_callback(worker.stop)
        await worker.start()
        return worker

    @contextlib.asynccontextmanager
    async def client(self, path: str = "/") -> AsyncIterator[ClientConnection]:
        """Connect a client."""
        async with connect(self.url + path, compression=None, proxy=None) as client:
            yield client

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
