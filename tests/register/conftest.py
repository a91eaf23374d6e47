"""Registers and members over real sockets, in this process and in others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from gatecrew.common.ids import new_key
from gatecrew.common.link import Acceptor, Connector, LinkSettings, Node, Peer
from gatecrew.register.agent import Agent, Member
from gatecrew.register.server import Register

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gatecrew.common.messages import Message

SETTINGS = LinkSettings()
PATIENCE = 20.0  # seconds after which a test has failed


@dataclass
class Watch:
    """An agent, and what it told."""

    agent: Agent
    node: Node
    news: asyncio.Event
    joined: list[Member] = field(default_factory=list)
    left: list[Member] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        return {member.name for member in self.agent.members.values()}

    async def sees(self, *names: str) -> None:
        """Wait until these are the members."""
        async with asyncio.timeout(PATIENCE):
            while self.names != set(names):
                self.news.clear()
                await self.news.wait()


class Recorder:
    """The owner of a link made by hand, that keeps what it is told."""

    def __init__(self) -> None:
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.losses: asyncio.Queue[str] = asyncio.Queue()

    def joined(self, peer: Peer) -> None:
        self.peers.put_nowait(peer)

    def received(self, peer: Peer, batch: list[Message]) -> None:
        for message in batch:
            self.messages.put_nowait(message)

    def lost(self, peer: Peer, reason: str) -> None:
        self.losses.put_nowait(reason)


class Town:
    """A short directory with registers and members, all of which end with the test."""

    def __init__(self, directory: str, stack: contextlib.AsyncExitStack) -> None:
        self.directory = directory
        self._stack = stack

    def address(self, name: str = "register-1") -> str:
        """Return the address of a socket in the directory."""
        return f"ipc://{self.directory}/{name}.sock"

    async def register(
        self, name: str = "register-1", address: str = "", settings: LinkSettings = SETTINGS
    ) -> Register:
        register = Register(Node("register", name, new_key()), settings, address or self.address(name))
        self._stack.push_async_callback(register.stop)
        await register.start()
        return register

    def member(self, name: str, registers: list[str] | None = None, role: str = "worker", **options: Any) -> Watch:
        """Start an agent, for the one register if no others are named."""
        node = Node(role, name, new_key())
        news = asyncio.Event()

        def changed(joined: list[Member], left: list[Member]) -> None:
            watch.joined += joined
            watch.left += left
            news.set()

        addresses = [self.address()] if registers is None else registers
        agent = Agent(node, SETTINGS, addresses, changed=changed, **options)
        watch = Watch(agent, node, news)
        self._stack.push_async_callback(agent.close)
        return watch

    async def knows(self, register: str, *names: str) -> None:
        """Wait until this one register knows these members."""
        watch = self.member("watcher", [register], role="caller", announce=False)
        await watch.sees(*names)
        await watch.agent.close()

    async def process(self, code: str, *arguments: str) -> asyncio.subprocess.Process:
        """Run code in another Python, which is killed at the end of the test."""
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, *arguments)
        self._stack.push_async_callback(self.kill, process)
        return process

    @staticmethod
    async def kill(process: asyncio.subprocess.Process) -> None:
        """End a process that cannot help it."""
        if process.returncode is None:
            process.kill()
            await process.wait()

    def connector(self, recorder: Recorder, role: str = "worker", settings: LinkSettings = SETTINGS) -> Connector:
        """Connect to the register without an agent, to say what no agent would say."""
        link = Connector(Node(role, "raw", new_key()), settings, recorder, self.address())
        self._stack.push_async_callback(link.close)
        return link

    def acceptor(self, recorder: Recorder) -> Acceptor:
        """Stand where the register would, to say what no register would say."""
        link = Acceptor(Node("register", "raw", new_key()), SETTINGS, recorder, self.address())
        self._stack.push_async_callback(link.close)
        return link


class Log(logging.Handler):
    """What was logged, to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._news = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._news.set()

    async def says(self, *parts: str) -> None:
        """Wait for a line that contains all of these."""
        async with asyncio.timeout(PATIENCE):
            while not any(all(part in line for part in parts) for line in self.lines):
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    directory = tempfile.mkdtemp(prefix="gc-", dir="/tmp")
    try:
        async with contextlib.AsyncExitStack() as stack:
            yield Town(directory, stack)
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    logger, handler = logging.getLogger("gatecrew"), Log()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)
