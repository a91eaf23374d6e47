"""The cluster seen from outside, with a loop and without: its ends. What it commands is tested through a cluster of processes."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from gatecrew import App, BlockingCluster, Client, Cluster, PartialAnswer
from gatecrew.common.config import ClusterConfig, Config
from gatecrew.common.ids import new_client_id, new_key
from gatecrew.common.link import Acceptor, Connector, Node, Peer
from gatecrew.register.agent import Agent, link_settings

from .waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from gatecrew.common.messages import Message

    from .conftest import House

FORK = """
import os, signal, sys, threading, time
from gatecrew import BlockingCluster, Unreachable

def ask():
    try:
        cluster.get_all_client_id_count()
    except Unreachable:
        return 0
    return 1

cluster = BlockingCluster()
thread = threading.Thread(target=ask)
thread.start()
while not cluster._lock.locked():
    time.sleep(0.001)
pid = os.fork()
if not pid:
    signal.alarm(10)
    os._exit(ask())
thread.join()
sys.exit(os.waitpid(pid, 0)[1])
"""


async def test_a_command_that_no_frame_could_carry_is_a_mistake_of_its_caller(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame could not be made when it was to leave, and the lane to the gateway ended."""
    monkeypatch.setattr("gatecrew.business.checks.MAX_COMMANDS", 1000)
    async with Cluster(house.config) as cluster:
        with pytest.raises(ValueError, match="name fewer in one call"):
            cluster.send_to_uid(["ann"] * 1000, "hi")
        with pytest.raises(ValueError, match="name fewer in one call"):
            await cluster.get_client_id_by_uid(["ann"] * 1000)

        assert await cluster.get_all_client_id_count() == 0


class Silent:
    """A gateway that takes what comes and says nothing."""

    def __init__(self, house: House, run_dir: Path) -> None:
        settings = link_settings(house.config)
        node = Node("gateway", "gateway-2", new_key())
        self.key = node.key
        self._acceptor = Acceptor(node, settings, self, f"ipc://{run_dir}/silent.sock")
        registers = house.config.cluster.register_addresses()
        self.agent = Agent(node, settings, registers, address=self._acceptor.address)

    def joined(self, peer: Peer) -> None: ...

    def lost(self, peer: Peer, reason: str) -> None: ...

    def received(self, peer: Peer, batch: list[Message]) -> None: ...

    async def close(self) -> None:
        await self.agent.close()
        await self._acceptor.close()


async def test_who_is_cancelled_while_it_connects_leaves_nothing_behind(run_dir: Path) -> None:
    """Its links stayed, trying for ever to reach the registers."""

    def links() -> set[Connector]:
        return {link for link in gc.get_objects() if type(link) is Connector and not link._closed}

    before = links()
    cluster = Cluster(Config(cluster=ClusterConfig(run_dir=str(run_dir))))
    connecting = asyncio.create_task(cluster.__aenter__())
    await until(lambda: links() - before)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting

    assert links() - before == set()


async def test_a_blocking_command_for_many_does_not_wait_for_one_gateway_before_the_next(
    house: House, run_dir: Path
) -> None:
    """Of a message to clients of several gateways, those behind one that hung got nothing."""
    app = App()

    @app.on_message
    async def tell(client: Client, data: str) -> None:
        client.send(client.id)

    await house.work(app)
    config = dataclasses.replace(house.config, worker=dataclasses.replace(house.config.worker, query_timeout=0.5))

    def send(clients: list[str]) -> None:
        with pytest.raises(PartialAnswer, match="gateway-2"), BlockingCluster(config) as cluster:
            cluster.send_to_client(clients, "hello")

    async with house.client() as client:
        await client.send("who am I")
        client_id = str(await client.recv())
        silent = Silent(house, run_dir)
        try:
            await until(lambda: silent.key in silent.agent.members)
            await asyncio.to_thread(send, [new_client_id(silent.key), client_id])
        finally:
            await silent.close()

        assert await client.recv() == "hello"


def test_a_fork_while_another_thread_connects_is_no_hindrance(run_dir: Path) -> None:
    """The lock, held by a thread that the child does not have, was never let go there: its first call hung for ever."""
    settings = {"GATECREW_CLUSTER_RUN_DIR": str(run_dir), "GATECREW_WORKER_QUERY_TIMEOUT": "0.2"}
    forked = subprocess.run([sys.executable, "-c", FORK], env=os.environ | settings, check=False, timeout=30)

    assert forked.returncode == 0
