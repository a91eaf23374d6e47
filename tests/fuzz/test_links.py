"""Processes at whose sockets somebody says what nobody should: they go on, and serve the others."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import zmq
import zmq.asyncio
from gatecrew import App, Client
from gatecrew.business.hub import Gateway, Hub
from gatecrew.business.runner import Runner
from gatecrew.common import link as module
from gatecrew.common import messages as op
from gatecrew.common import wire
from gatecrew.common.errors import LinkError
from gatecrew.common.ids import new_client_id
from gatecrew.common.link import Acceptor, Connector, LinkSettings, Node, Peer
from gatecrew.register.agent import Agent
from gatecrew.register.server import Register

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gatecrew.common.messages import Message

SETTINGS = LinkSettings(probe_interval=0.05, dead_after=5.0)
MEMBER = ["worker", "stranger", "stranger", "", {}]
PATIENCE = 20.0
SEEDS = range(3)


def anything(chance: Random, depth: int = 3) -> Any:
    """Return a value that msgpack can say."""
    kind = chance.randrange(9 if depth else 7)
    if kind < 7:
        return chance.choice(
            [None, True, -1, 0, 1, 2**63, 1e308, float("nan"), "", "stranger", "x" * 600, b"", b"\xc1"]
        )
    if kind == 7:
        return [anything(chance, depth - 1) for _ in range(chance.randrange(6))]
    return {str(number): anything(chance, depth - 1) for number in range(chance.randrange(4))}


def a_message(chance: Random) -> Message:
    opcode = chance.choice([*range(1, 10), *range(16, 39), *range(48, 54), *range(64, 70), *range(80, 84), -1, 2**40])
    if chance.random() < 0.2:
        return [op.ANNOUNCE, *(anything(chance) if chance.random() < 0.3 else field for field in [*MEMBER, {}])]
    return [opcode, *(anything(chance) for _ in range(chance.randrange(7)))]


def a_frame(chance: Random, lane: int, seq: int) -> bytes:
    """Return a frame that is right in parts."""
    payload = chance.choice(
        [
            b"",
            chance.randbytes(30),
            wire.pack(anything(chance)),
            wire.pack([a_message(chance) for _ in range(3)]),
        ]
    )
    kind = chance.choice([*range(10), wire.DATA, wire.DATA, wire.DATA])
    made = wire.frame(
        kind, chance.choice([lane, lane, lane, 0, 2**32 - 1]), seq, chance.choice([0, 0, 0, 1, 2**64 - 1]), payload
    )
    return made[: chance.randrange(len(made))] if chance.random() < 0.1 else made


class Owner:
    def __init__(self) -> None:
        self.peers: list[Peer] = []

    def joined(self, peer: Peer) -> None:
        self.peers.append(peer)

    def received(self, peer: Peer, batch: list[Message]) -> None: ...

    def lost(self, peer: Peer, reason: str) -> None: ...


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # nothing sets an event
            await asyncio.sleep(0.005)


@pytest.fixture
async def stack(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncExitStack]:
    monkeypatch.setattr(module, "REFUSED_WAIT", 0.01)
    async with AsyncExitStack() as found:
        yield found


def raw(stack: AsyncExitStack, kind: int) -> zmq.asyncio.Socket:
    context = zmq.asyncio.Context()
    stack.callback(context.term)
    socket = context.socket(kind)
    stack.callback(socket.close, linger=0)
    return socket


async def pester(stack: AsyncExitStack, address: str, chance: Random) -> None:
    """Begin one lane after the other, and say what comes to mind."""
    stranger = raw(stack, zmq.DEALER)
    stranger.setsockopt(zmq.IDENTITY, b"stranger")
    stranger.connect(address)
    greeting = wire.pack({"role": "worker", "name": "stranger", "key": "stranger"})
    for lane in range(1, 100):
        await stranger.send(wire.frame(wire.HELLO, lane, payload=greeting))
        for seq in range(1, 6):
            parts = [a_frame(chance, lane, seq)]
            if chance.random() < 0.05:
                parts.append(chance.randbytes(5))
            await stranger.send_multipart(parts)


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_a_stranger_says_the_others_are_served(stack: AsyncExitStack, run_dir: Path, seed: int) -> None:
    address = f"ipc://{run_dir}/a.sock"
    above, below = Owner(), Owner()
    acceptor = Acceptor(Node("gateway", "gateway-1", "G"), SETTINGS, above, address)
    stack.push_async_callback(acceptor.close)

    await pester(stack, address, Random(seed))

    connector = Connector(Node("worker", "worker-1", "W"), SETTINGS, below, address)
    stack.push_async_callback(connector.close)
    await until(lambda: below.peers)
    await until(lambda: acceptor.counters["link.refused"] > 50)


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_a_register_is_told_it_knows_the_others(
    stack: AsyncExitStack, run_dir: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    register = Register(Node("register", "register-1", "R"), SETTINGS, f"ipc://{run_dir}/r.sock")
    await register.start()
    stack.push_async_callback(register.stop)

    await pester(stack, register.address, Random(seed))

    agent = Agent(Node("worker", "worker-1", "W"), SETTINGS, [register.address])
    stack.push_async_callback(agent.close)
    await until(lambda: "W" in agent.members)
    acceptor = register._acceptor
    await until(lambda: acceptor is not None and acceptor.counters["link.refused"] > 50)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_a_register_says_a_member_listens_on(
    stack: AsyncExitStack, run_dir: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance = Random(seed)
    address = f"ipc://{run_dir}/r.sock"
    register = raw(stack, zmq.ROUTER)
    register.bind(address)
    agent = Agent(Node("worker", "worker-1", "W"), SETTINGS, [address])
    stack.push_async_callback(agent.close)
    greeting = wire.pack({"role": "register", "name": "register-1", "key": "R"})
    lanes = 0

    async with asyncio.timeout(PATIENCE):
        while "honest" not in agent.members:
            identity, frame = await register.recv_multipart()
            kind, lane, _, _ = wire.read(frame)
            if kind != wire.HELLO:
                continue
            lanes += 1
            await register.send_multipart([identity, wire.frame(wire.WELCOME, lane, payload=greeting)])
            if lanes < 20:
                said = [a_frame(chance, lane, seq) for seq in range(1, 6)]
            else:
                batch = [[op.SNAPSHOT, "epoch", 1, [["worker", "honest", "honest", "", {}]]]]
                said = [wire.frame(wire.DATA, lane, 1, 0, wire.pack(batch))]
            for one in [*said, wire.frame(wire.RESET, lane)]:
                await register.send_multipart([identity, one])

    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_a_gateway_says_a_worker_handles_the_next_event(
    stack: AsyncExitStack, run_dir: Path, seed: int
) -> None:
    chance = Random(seed)
    app = App()
    handled: list[str | bytes] = []

    @app.on_message
    async def handle(client: Client, data: str | bytes) -> None:
        handled.append(data)

    hub = Hub(Node("worker", "worker-1", "W"), SETTINGS, [f"ipc://{run_dir}/r.sock"], timeout=1.0)
    stack.push_async_callback(hub.close)
    runner = Runner(app, hub, concurrency=10, time_limit=1.0)
    stack.push_async_callback(runner.close)
    gateway = Gateway("gateway-1", "abcdefgh")
    gateway.connector = Connector(Node("worker", "worker-1", "W"), SETTINGS, Owner(), f"ipc://{run_dir}/g.sock")
    stack.push_async_callback(gateway.connector.close)
    gateway.peer = gateway.connector.peer

    wrong_state: Message = [op.MESSAGE, 1, new_client_id("abcdefgh"), 1, {"no": "list"}, ""]
    for batch in [[wrong_state], *([a_message(chance) for _ in range(3)] for _ in range(300))]:
        try:
            runner.received(gateway, batch)
        except LinkError:
            runner.lost(gateway)
        await asyncio.sleep(0)

    introduction: list[Any] = ["/", {}, "127.0.0.1:1", "ws://127.0.0.1:1", None]
    state = [0, None, wire.pack({}), introduction, False]
    runner.received(gateway, [[op.MESSAGE, 1, new_client_id("abcdefgh"), 1, state, "at last"]])
    await until(lambda: "at last" in handled)
