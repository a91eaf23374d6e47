"""Links over real ZeroMQ sockets, in this process and in others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zmq
import zmq.asyncio
from gatecrew.common import link as module
from gatecrew.common import wire
from gatecrew.common.errors import LinkError, ListenError, Unreachable
from gatecrew.common.link import Acceptor, Connector, LinkSettings, Node, Peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gatecrew.common.messages import Message

PATIENCE = 20.0  # seconds after which a test has failed
QUICK = LinkSettings(probe_interval=0.05, dead_after=0.4)
SLOW = LinkSettings(probe_interval=0.05, dead_after=PATIENCE)  # nobody dies

Told = tuple[str, Any]


class Owner:
    """What a link tells, in order."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.told: asyncio.Queue[Told] = asyncio.Queue()
        self.check: Callable[[Peer, list[Message]], object] = lambda peer, batch: None
        self.unsure: list[Message] = []

    @property
    def peer(self) -> Peer:
        return self.peers[-1]

    def joined(self, peer: Peer) -> None:
        self.peers.append(peer)
        self.told.put_nowait(("joined", repr(peer)))

    def received(self, peer: Peer, batch: list[Message]) -> None:
        self.check(peer, batch)
        self.told.put_nowait(("received", batch))

    def lost(self, peer: Peer, reason: str) -> None:
        self.unsure = list(peer.unsure)
        self.told.put_nowait(("lost", reason))

    async def next(self) -> Told:
        async with asyncio.timeout(PATIENCE):
            return await self.told.get()

    async def hears(self, *expected: Told) -> None:
        for told in expected:
            assert await self.next() == told

    async def collects(self, count: int) -> list[Message]:
        """Return the next so many messages; nothing else may be told meanwhile."""
        messages: list[Message] = []
        async with asyncio.timeout(PATIENCE):
            while len(messages) < count:
                what, batch = await self.told.get()
                assert what == "received", batch
                messages += batch
        return messages


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that nobody tells."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # nothing sets an event
            await asyncio.sleep(0.005)


class Proxy:
    """Passes on the bytes of connections to a port, upwards and downwards."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server
        self.deaf: frozenset[str] = (
            frozenset()
        )  #: the ways in which bytes disappear; a connection that lost some stays so
        self.address = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"tcp://{host}:{port}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, here}
        await asyncio.gather(self._pass_on("up", reader, here), self._pass_on("down", there, writer))

    async def _pass_on(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        deaf = False
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                deaf = deaf or way in self.deaf
                if not deaf:
                    writer.write(data)
                    await writer.drain()
        writer.close()

    def cut(self) -> None:
        """Break all connections."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def close(self) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()


class Town:
    """Links and bare sockets, all of which are closed with the test."""

    def __init__(self, directory: Path, stack: contextlib.AsyncExitStack) -> None:
        self.directory = directory
        self.stack = stack
        self.context = zmq.asyncio.Context()
        stack.callback(self.context.term)
        self.ipc = f"ipc://{directory}/a.sock"

    def acceptor(
        self,
        owner: Owner,
        address: str = "",
        *,
        name: str = "gateway-1",
        key: str = "G",
        settings: LinkSettings = QUICK,
    ) -> Acceptor:
        acceptor = Acceptor(Node("gateway", name, key), settings, owner, address or self.ipc)
        self.stack.push_async_callback(acceptor.close)
        return acceptor

    def connector(
        self,
        owner: Owner,
        address: str = "",
        *,
        name: str = "worker-1",
        key: str = "W",
        settings: LinkSettings = QUICK,
        expect: str | None = None,
    ) -> Connector:
        connector = Connector(Node("worker", name, key), settings, owner, address or self.ipc, expect)
        self.stack.push_async_callback(connector.close)
        return connector

    async def pair(self, settings: LinkSettings = QUICK, address: str = "") -> tuple[Owner, Owner, Acceptor, Connector]:
        """Return an acceptor's and a connector's owner, and both, once they have met."""
        above, below = Owner(), Owner()
        acceptor = self.acceptor(above, address, settings=settings)
        connector = self.connector(below, acceptor.address, settings=settings)
        await above.hears(("joined", "worker worker-1"))
        await below.hears(("joined", "gateway gateway-1"))
        return above, below, acceptor, connector

    async def apart(self, settings: LinkSettings) -> tuple[Owner, Owner, Acceptor, Connector, Proxy]:
        """Return a pair over tcp, and the proxy between them."""
        above, below = Owner(), Owner()
        acceptor = self.acceptor(above, "tcp://127.0.0.1:0", settings=settings)
        proxy = Proxy(int(acceptor.address.rpartition(":")[2]))
        await proxy.start()
        self.stack.push_async_callback(proxy.close)
        connector = self.connector(below, proxy.address, settings=settings)
        await above.hears(("joined", "worker worker-1"))
        await below.hears(("joined", "gateway gateway-1"))
        return above, below, acceptor, connector, proxy

    def _raw(self, kind: int) -> zmq.asyncio.Socket:
        raw = self.context.socket(kind)
        self.stack.callback(raw.close, linger=0)
        return raw

    def dealer(self, address: str = "", identity: bytes = b"raw") -> zmq.asyncio.Socket:
        """Connect without a link, to say what no link would say."""
        dealer = self._raw(zmq.DEALER)
        dealer.setsockopt(zmq.IDENTITY, identity)
        dealer.connect(address or self.ipc)
        return dealer

    def router(self, address: str = "") -> zmq.asyncio.Socket:
        """Stand where an acceptor would, to say what none would say."""
        router = self._raw(zmq.ROUTER)
        router.bind(address or self.ipc)
        return router

    async def process(self, code: str, *arguments: str) -> asyncio.subprocess.Process:
        """Run code in another Python, which is killed at the end of the test."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, *arguments, stdout=asyncio.subprocess.PIPE
        )
        self.stack.push_async_callback(self.kill, process)
        return process

    @staticmethod
    async def kill(process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
async def town(run_dir: Path) -> AsyncIterator[Town]:
    async with contextlib.AsyncExitStack() as stack:
        yield Town(run_dir, stack)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "gatecrew.link"]


def hello(lane: int = 5, **changes: object) -> bytes:
    """Return the HELLO of a worker named raw."""
    greeting: dict[str, object] = {"role": "worker", "name": "raw", "key": "raw"}
    return wire.frame(wire.HELLO, lane, payload=wire.pack(greeting | changes))


def welcome(lane: int, key: str = "raw") -> bytes:
    return wire.frame(wire.WELCOME, lane, payload=wire.pack({"role": "gateway", "name": "raw", "key": key}))


async def recv(raw: zmq.asyncio.Socket) -> bytes:
    """Return the next frame that is no sign of life."""
    async with asyncio.timeout(PATIENCE):
        while True:
            frame: bytes = (await raw.recv_multipart())[-1]
            if wire.read(frame)[0] != wire.PROBE:
                return frame


# What a link is for


@pytest.mark.parametrize("address", ["", "tcp://127.0.0.1:0", "tcp://[::1]:0"])
async def test_both_ends_say_who_they_are_and_talk(town: Town, address: str) -> None:
    above, below, _, connector = await town.pair(address=address)
    assert (above.peer.role, above.peer.name, above.peer.key) == ("worker", "worker-1", "W")
    assert (below.peer.role, below.peer.name, below.peer.key) == ("gateway", "gateway-1", "G")
    assert below.peer is connector.peer

    connector.peer.send([1, "ping"])
    await above.hears(("received", [[1, "ping"]]))
    above.peer.send([2, b"pong"])
    await below.hears(("received", [[2, b"pong"]]))


async def test_who_binds_a_name_is_told_of_by_its_name(town: Town) -> None:
    above, _, acceptor, _ = await town.pair(SLOW, "tcp://localhost:0")

    assert re.fullmatch(r"tcp://localhost:[1-9][0-9]+", acceptor.address), "it outlives the address of a pod"
    assert above.peers


async def test_what_is_sent_in_one_turn_is_one_batch(town: Town) -> None:
    above, _, _, connector = await town.pair()

    connector.peer.send([1])
    connector.peer.send([2])
    await asyncio.sleep(0)
    connector.peer.send([3])
    connector.peer.flush()
    connector.peer.send([4])

    await above.hears(("received", [[1], [2]]), ("received", [[3]]), ("received", [[4]]))


async def test_what_was_sent_before_the_link_was_up_comes_first(town: Town) -> None:
    above, below = Owner(), Owner()
    connector = town.connector(below)
    connector.peer.send([1])
    assert not connector.peer.up
    joined = below.joined

    def greet(peer: Peer) -> None:
        joined(peer)
        peer.send([2])

    below.joined = greet  # type: ignore[method-assign]
    town.acceptor(above)

    await above.hears(("joined", "worker worker-1"), ("received", [[1], [2]]))


async def test_many_batches_both_ways_stay_in_order(town: Town) -> None:
    above, below, _, connector = await town.pair(SLOW)

    async def talk(peer: Peer) -> None:
        for number in range(3000):
            peer.send([number])
            peer.flush()
            if number % 50 == 0:
                await asyncio.sleep(0)

    await asyncio.gather(talk(above.peer), talk(connector.peer))

    assert await above.collects(3000) == [[number] for number in range(3000)]
    assert await below.collects(3000) == [[number] for number in range(3000)]
    await until(lambda: not (above.peer.lane.unacked or connector.peer.lane.unacked))  # type: ignore[union-attr]


async def test_questions_and_answers_never_stall(town: Town) -> None:
    above, below, _, connector = await town.pair(SLOW)
    above.check = lambda peer, batch: peer.send(batch[0])

    for number in range(1000):
        connector.peer.send([number])
        await below.hears(("received", [[number]]))


async def test_who_reads_in_small_bites_reads_on(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BURST", 1)
    above, _, _, connector = await town.pair(LinkSettings(probe_interval=PATIENCE, dead_after=2 * PATIENCE))

    for number in range(20):
        connector.peer.send([number])
        connector.peer.flush()
    time.sleep(0.1)  # noqa: ASYNC251  # they come while nobody reads: one signal is all that there is

    assert await above.collects(20) == [[number] for number in range(20)]


async def test_peers_of_one_acceptor_are_told_apart(town: Town) -> None:
    above, first, second = Owner(), Owner(), Owner()
    town.acceptor(above)
    town.connector(first, name="one", key="1")
    town.connector(second, name="two", key="2")
    await first.hears(("joined", "gateway gateway-1"))
    await second.hears(("joined", "gateway gateway-1"))

    for peer in above.peers:
        peer.send([0, peer.name])

    await first.hears(("received", [[0, "one"]]))
    await second.hears(("received", [[0, "two"]]))


# Ends and new beginnings


async def test_a_connector_that_leaves_says_so(town: Town) -> None:
    above, _, _, connector = await town.pair(SLOW)

    connector.peer.send([1])
    await connector.close()

    await above.hears(("received", [[1]]), ("lost", "left"))
    assert not above.peer.up


async def test_an_acceptor_that_starts_again_is_joined_again(town: Town) -> None:
    above, below, acceptor, _ = await town.pair(SLOW)

    above.peer.send([1])
    await acceptor.close()
    await below.hears(("received", [[1]]), ("lost", "left"))
    town.acceptor(above, name="gateway-2", key="H")

    await below.hears(("joined", "gateway gateway-2"))
    await above.hears(("joined", "worker worker-1"))


async def test_a_connector_that_starts_again_is_another_peer(town: Town) -> None:
    above, _, _, connector = await town.pair(SLOW)
    await connector.close()
    await above.hears(("lost", "left"))

    again = town.connector(Owner(), key="X")
    again.peer.send([1])

    await above.hears(("joined", "worker worker-1"), ("received", [[1]]))
    assert [peer.key for peer in above.peers] == ["W", "X"]


async def test_a_dead_acceptor_is_noticed_and_joined_when_it_is_back(town: Town) -> None:
    below = Owner()
    code = """if True:
        import asyncio, sys
        from gatecrew.common.link import Acceptor, LinkSettings, Node
        class Owner:
            joined = received = lost = lambda *_: None
        async def main():
            link = Acceptor(Node("gateway", "other", "O"), LinkSettings(), Owner(), sys.argv[1])
            await asyncio.Event().wait()
        asyncio.run(main())
    """
    process = await town.process(code, town.ipc)
    town.connector(below)
    await below.hears(("joined", "gateway other"))

    process.kill()

    await below.hears(("lost", "silent for 0.4 s"))
    town.acceptor(Owner())  # the dead one left its socket behind
    await below.hears(("joined", "gateway gateway-1"))


async def test_a_process_of_this_machine_that_ended_is_not_waited_for(town: Town) -> None:
    above = Owner()
    acceptor = town.acceptor(above, settings=LinkSettings(probe_interval=0.1, dead_after=60))
    code = """if True:
        import asyncio, sys
        from gatecrew.common.link import Connector, LinkSettings, Node
        class Owner:
            joined = received = lost = lambda *_: None
        async def main():
            link = Connector(Node("worker", "other", "O"), LinkSettings(dead_after=60), Owner(), sys.argv[1])
            await asyncio.Event().wait()
        asyncio.run(main())
    """
    process = await town.process(code, town.ipc)
    await above.hears(("joined", "worker other"))

    process.kill()

    await above.hears(("lost", "its connection broke"))
    assert acceptor.counters["link.broken"] == 1


@pytest.mark.parametrize("long", [False, True])
async def test_a_stopped_process_finds_its_lane_superseded(town: Town, *, long: bool) -> None:
    above = Owner()
    acceptor = town.acceptor(above)
    code = """if True:
        import asyncio, sys
        from gatecrew.common.link import Connector, LinkSettings, Node
        class Owner:
            def joined(self, peer):
                print("joined", flush=True)
                peer.send([1])
            def received(self, peer, batch): print("received", batch, flush=True)
            def lost(self, peer, reason): print("lost:", reason, flush=True)
        async def main():
            node, settings = Node("worker", "stopped", "S"), LinkSettings(probe_interval=0.05, dead_after=0.4)
            link = Connector(node, settings, Owner(), sys.argv[1])
            await asyncio.Event().wait()
        asyncio.run(main())
    """
    process = await town.process(code, town.ipc)
    assert process.stdout is not None
    await above.hears(("joined", "worker stopped"), ("received", [[1]]))
    assert await process.stdout.readline() == b"joined\n"

    process.send_signal(signal.SIGSTOP)
    await above.hears(("lost", "silent for 0.4 s"))
    while long and not acceptor.counters["link.unroutable"]:  # until its connection is given up, too
        acceptor._transmit_to(b"S", wire.frame(wire.RESET, 0))
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGCONT)

    async with asyncio.timeout(PATIENCE):
        assert (await process.stdout.readline()).startswith(b"lost: ")
        assert await process.stdout.readline() == b"joined\n"
    await above.hears(("joined", "worker stopped"), ("received", [[1]]))


async def test_who_was_stopped_itself_holds_it_against_nobody(town: Town) -> None:
    above, below, _, connector = await town.pair()

    time.sleep(3 * QUICK.dead_after)  # noqa: ASYNC251  # both ends are in this process
    connector.peer.send([1])

    await above.hears(("received", [[1]]))
    assert below.told.empty()


async def test_nothing_is_lost_when_connections_break(town: Town) -> None:
    above, below, acceptor, connector, proxy = await town.apart(SLOW)
    for number in range(600):
        connector.peer.send([number, bytes(1000)])
        above.peer.send([number, bytes(1000)])
        await asyncio.sleep(0.001)
        if number % 100 == 50:
            proxy.cut()

    assert [number for number, _ in await above.collects(600)] == list(range(600))
    assert [number for number, _ in await below.collects(600)] == list(range(600))
    assert acceptor.counters["lane.gaps"] + connector.counters["lane.gaps"] > 0


@pytest.mark.parametrize("deaf", [("up",), ("down",), ("up", "down")], ids=" and ".join)
async def test_a_link_that_is_up_but_deaf_is_counted_and_begun_anew(town: Town, deaf: tuple[str, ...]) -> None:
    above, below, _, connector, proxy = await town.apart(QUICK)
    proxy.deaf = frozenset(deaf)
    await below.hears(("lost", "silent for 0.4 s"))
    assert connector.counters["link.silent"] == 1
    proxy.deaf = frozenset()  # for connections that come about from now on

    await below.hears(("joined", "gateway gateway-1"))
    connector.peer.send([1])
    above.peer.send([2])
    await below.hears(("received", [[2]]))
    while (told := await above.next())[0] != "received":
        assert told[0] in ("lost", "joined")
    assert told == ("received", [[1]])


async def test_nothing_piles_up_for_an_acceptor_that_is_away(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELLO_EVERY", PATIENCE)
    owner = Owner()
    connector = town.connector(owner)
    for _ in range(20):
        connector._hello()
    connector._renew_at = connector.loop.time()  # no answer came in time
    connector._hello()

    raw = town.router()
    identity, greeting = await raw.recv_multipart()
    await raw.send_multipart([identity, welcome(wire.read(greeting)[1])])

    await owner.hears(("joined", "gateway raw"))
    connector.peer.send([1])
    assert wire.decode(await recv(raw)) == [[1]]  # and no second HELLO


# The greeting, frame by frame


async def test_a_welcome_that_got_lost_is_said_again(town: Town) -> None:
    above = Owner()
    town.acceptor(above)
    raw = town.dealer()

    for _ in range(3):
        await raw.send(hello(lane=5))
        assert wire.read(await recv(raw))[:2] == (wire.WELCOME, 5)

    await raw.send(wire.frame(wire.DATA, 5, 1, 0, wire.pack([[1]])))
    await above.hears(("joined", "worker raw"), ("received", [[1]]))


async def test_a_greeting_for_a_lane_that_ended_begins_no_lane(town: Town) -> None:
    above = Owner()
    town.acceptor(above)
    raw = town.dealer()
    await raw.send(hello(lane=5))
    await recv(raw)
    await raw.send(wire.frame(wire.BYE, 5))

    await raw.send(hello(lane=5))
    assert wire.read(await recv(raw))[:2] == (wire.RESET, 5)
    await raw.send(hello(lane=6))
    assert wire.read(await recv(raw))[:2] == (wire.WELCOME, 6)

    await above.hears(("joined", "worker raw"), ("lost", "left"), ("joined", "worker raw"))


async def test_a_new_lane_supersedes_the_one_before(town: Town) -> None:
    above = Owner()
    town.acceptor(above)
    raw = town.dealer()
    await raw.send(hello(lane=5))
    await recv(raw)

    await raw.send(hello(lane=6))
    await recv(raw)
    await raw.send(wire.frame(wire.DATA, 5, 1, 0, wire.pack([["old"]])))

    assert wire.read(await recv(raw))[:2] == (wire.RESET, 5)
    await above.hears(("joined", "worker raw"), ("lost", "it started a new lane"), ("joined", "worker raw"))
    assert not above.peers[0].up
    assert above.peers[1].up


async def test_a_frame_of_an_unknown_lane_is_answered_unless_it_ends_it(town: Town) -> None:
    town.acceptor(Owner())
    raw = town.dealer()

    for kind in (wire.BYE, wire.RESET, wire.REFUSE, wire.DATA, wire.NACK):
        await raw.send(wire.frame(kind, kind))

    assert [wire.read(await recv(raw))[:2] for _ in range(2)] == [(wire.RESET, wire.DATA), (wire.RESET, wire.NACK)]


async def test_a_connector_greets_until_it_is_heard(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELLO_EVERY", 0.01)
    raw = town.router()
    owner = Owner()
    town.connector(owner)

    async def greeted() -> tuple[bytes, int]:
        identity, frame = await raw.recv_multipart()
        kind, lane, _, _ = wire.read(frame)
        assert kind == wire.HELLO
        return identity, lane

    identity, lane = await greeted()
    assert await greeted() == (identity, lane)
    await raw.send_multipart([identity, welcome(lane + 1)])  # of another lane
    await raw.send_multipart([identity, wire.frame(wire.DATA, lane, 1, 0, wire.pack([[1]]))])  # too early
    await raw.send_multipart([identity, wire.frame(wire.RESET, lane)])
    async with asyncio.timeout(PATIENCE):
        while (await greeted())[1] == lane:
            pass
        lane = (await greeted())[1]
    await raw.send_multipart([identity, welcome(lane)])
    await raw.send_multipart([identity, welcome(lane)])
    await raw.send_multipart([identity, wire.frame(wire.DATA, lane, 1, 0, wire.pack([[2]]))])

    await owner.hears(("joined", "gateway raw"), ("received", [[2]]))


async def test_a_lane_that_the_other_end_does_not_know_is_begun_anew(town: Town) -> None:
    above, below, acceptor, connector = await town.pair(SLOW)
    lane = connector.peer.lane

    acceptor._transmit_to(b"W", wire.frame(wire.RESET, lane.id))  # type: ignore[union-attr]

    await below.hears(("lost", "the other end knows nothing of this lane any more"), ("joined", "gateway gateway-1"))
    await above.hears(("lost", "it started a new lane"), ("joined", "worker worker-1"))


# Who is refused


async def test_a_refused_connector_waits_before_it_tries_again(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PEERS", 0)
    acceptor = town.acceptor(Owner())
    connector = town.connector(Owner())

    await until(lambda: connector.counters["link.refused"])

    assert connector._hello_at - connector.loop.time() > module.REFUSED_WAIT - 1
    assert acceptor.counters["link.refused"] >= 1


@pytest.mark.parametrize(
    ("rubbish", "why"),
    [
        ([b""], "not Gatecrew"),
        ([b"\x16\x03\x01 hello"], "not Gatecrew"),
        ([hello(), b"more"], "not Gatecrew"),
        ([b"GC\x02\x01" + bytes(20)], "wire version 2, but this process speaks 1: run one version of Gatecrew"),
        (
            [b"GC\x02\x03" + bytes(20) + b"we speak 2"],
            "wire version 2, but this process speaks 1: run one version of Gatecrew",
        ),
        ([wire.frame(wire.HELLO, 5)], "not msgpack: Unpack failed: incomplete input"),
        ([wire.frame(wire.HELLO, 5, payload=wire.pack([]))], "a greeting that is not a map"),
        ([hello(role="")], "a greeting without a proper role, name and key"),
        ([hello(name="one\ntwo")], "a greeting without a proper role, name and key"),
        ([hello(key=5)], "a greeting without a proper role, name and key"),
    ],
)
async def test_rubbish_is_refused_by_an_acceptor_with_one_line(
    town: Town, caplog: pytest.LogCaptureFixture, rubbish: list[bytes], why: str
) -> None:
    above, _, acceptor, connector = await town.pair(SLOW, "tcp://127.0.0.1:0")
    raw = town.dealer(acceptor.address)

    for _ in range(3):
        await raw.send_multipart(rubbish)
        frame = await recv(raw)
        assert wire.read(frame)[0] == wire.REFUSE
        assert wire.text(frame) == why

    assert warnings(caplog) == [f"refused peer b'raw' (127.0.0.1): {why}"]
    connector.peer.send([1])
    await above.hears(("received", [[1]]))


async def test_rubbish_is_refused_by_a_connector_with_one_line(
    town: Town, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "REFUSED_WAIT", 0.01)
    raw = town.router()
    connector = town.connector(Owner())

    for _ in range(3):
        identity, frame = await raw.recv_multipart()
        assert wire.read(frame)[0] == wire.HELLO  # a refusal that cannot be read is not answered by a refusal
        await raw.send_multipart([identity, b"GC\x02\x03" + bytes(20) + b"we speak 2"])

    await until(lambda: warnings(caplog))
    assert warnings(caplog) == [
        f"no link to {town.ipc}: wire version 2, but this process speaks 1: run one version of Gatecrew"
    ]
    assert connector.counters["link.refused"] == 1


async def test_who_has_another_key_than_expected_is_not_talked_to(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    above, below = Owner(), Owner()
    town.acceptor(above, key="new")
    town.connector(below, expect="old")

    await above.hears(("joined", "worker worker-1"), ("lost", "left"))

    assert warnings(caplog) == [f"no link to {town.ipc}: gateway gateway-1 has this address now"]
    assert below.told.empty()


async def test_there_is_room_for_so_many_peers(
    town: Town, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_PEERS", 1)
    await town.pair()

    town.connector(Owner(), name="worker-2", key="X")

    await until(lambda: len(warnings(caplog)) == 2)
    assert warnings(caplog)[0] == f"refused worker worker-2 (pid {os.getpid()}): there are 1 peers already"


async def test_an_acceptor_that_refuses_a_batch_says_why_at_both_ends(
    town: Town, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "REFUSED_WAIT", 0.01)
    above, below, _, connector = await town.pair(SLOW)
    above.check = refuse

    connector.peer.send([99])

    why = "message 99 is not for a gateway"
    await above.hears(("lost", why), ("joined", "worker worker-1"))
    await below.hears(("lost", f"it refuses us: {why}"), ("joined", "gateway gateway-1"))
    assert warnings(caplog) == [
        f"refused worker worker-1 (pid {os.getpid()}): {why}",
        f"no link to {town.ipc}: it refuses us: {why}",
    ]


async def test_a_connector_that_refuses_a_batch_says_why_at_both_ends(
    town: Town, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "REFUSED_WAIT", 0.01)
    above, below, _, _ = await town.pair(SLOW)
    below.check = refuse

    above.peer.send([99])

    why = "message 99 is not for a gateway"
    await below.hears(("lost", why), ("joined", "gateway gateway-1"))
    await above.hears(("lost", "it refuses us"), ("joined", "worker worker-1"))
    assert warnings(caplog) == [f"no link to {town.ipc}: {why}", f"worker worker-1 refuses us: {why}"]


def refuse(peer: Peer, batch: list[Message]) -> None:
    raise LinkError(f"message {batch[0][0]} is not for a gateway")


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (wire.frame(wire.DATA, 5, 1, 0, b"\xc1"), "not msgpack: "),
        (wire.frame(wire.DATA, 5, 1, 0, wire.pack([[]])), "a batch with something that is not a message"),
        (wire.frame(wire.PROBE, 5, 0, 9), "acknowledges batch 9, but only 0 were sent"),
        (wire.frame(wire.WELCOME, 5), "a frame of kind 2 where none is due"),
        (wire.frame(77, 5), "a frame of kind 77 where none is due"),
    ],
)
async def test_a_peer_that_breaks_the_rules_of_its_lane_loses_it(town: Town, frame: bytes, why: str) -> None:
    above = Owner()
    town.acceptor(above)
    raw = town.dealer()
    await raw.send(hello(lane=5))
    await recv(raw)

    await raw.send(frame)

    assert wire.text(await recv(raw)).startswith(why)
    await above.hears(("joined", "worker raw"))
    what, reason = await above.next()
    assert what == "lost"
    assert reason.startswith(why)


async def test_a_greeting_that_fails_costs_nobody_else_a_lane(town: Town) -> None:
    above = Owner()
    town.acceptor(above, settings=SLOW)
    raw = town.dealer()
    await raw.send(hello(lane=5))
    await recv(raw)

    await raw.send(hello(lane=6, role=""))  # says it is the same one
    assert wire.read(await recv(raw))[0] == wire.REFUSE

    await raw.send(wire.frame(wire.DATA, 5, 1, 0, wire.pack([[1]])))
    await above.hears(("joined", "worker raw"), ("received", [[1]]))


# Mistakes of our own


async def test_an_owner_that_fails_ends_this_lane_only(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    above, below, _, connector = await town.pair(SLOW)
    other = town.connector(Owner(), name="worker-2", key="X", settings=SLOW)
    await above.hears(("joined", "worker worker-2"))

    def fail(peer: Peer, batch: list[Message]) -> None:
        if peer.name == "worker-1":
            above.check = lambda peer, batch: None
            raise KeyError("oops")

    above.check = fail
    connector.peer.send([1])
    connector.peer.flush()
    connector.peer.send([2])
    connector.peer.flush()
    other.peer.send([3])

    told = [await above.next() for _ in range(3)]
    assert ("received", [[3]]) in told
    assert ("lost", "an error in handling what it sent") in told
    assert ("joined", "worker worker-1") in told
    await below.hears(("lost", "the other end knows nothing of this lane any more"), ("joined", "gateway gateway-1"))
    assert warnings(caplog) == ["Owner.received failed for worker worker-1"]


async def test_an_owner_that_fails_at_a_loss_does_not_stop_the_clock(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    above = Owner()
    acceptor = town.acceptor(above)

    def fail(peer: Peer, reason: str) -> None:
        above.told.put_nowait(("lost", peer.name))
        raise KeyError("oops")

    above.lost = fail  # type: ignore[method-assign]
    for name in ("one", "two"):
        raw = town.dealer(identity=name.encode())
        await raw.send(hello(name=name))
        await above.hears(("joined", f"worker {name}"))

    assert {await above.next(), await above.next()} == {("lost", "one"), ("lost", "two")}
    assert acceptor.counters["link.lost"] == 2
    assert len(warnings(caplog)) == 2


async def test_a_batch_that_cannot_be_packed_ends_this_lane_only(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    above, below, _, _ = await town.pair(SLOW)
    second = Owner()
    town.connector(second, name="worker-2", key="X", settings=SLOW)
    await above.hears(("joined", "worker worker-2"))
    await second.hears(("joined", "gateway gateway-1"))

    first_peer, second_peer = above.peers
    first_peer.send([1, object()])
    second_peer.send([2])

    await second.hears(("received", [[2]]))
    what, reason = await above.next()
    assert what == "lost"
    assert reason.startswith("a batch for it cannot be packed: ")
    assert warnings(caplog) == ["a batch for worker worker-1 cannot be packed"]
    await below.hears(("lost", "the other end knows nothing of this lane any more"), ("joined", "gateway gateway-1"))


# Limits


async def test_a_peer_is_full_until_it_has_acknowledged_enough(town: Town) -> None:
    above, _, _, connector = await town.pair(LinkSettings(probe_interval=0.05, lane_buffer=1000))
    assert not connector.peer.full

    connector.peer.send([1, bytes(1000)])
    connector.peer.flush()

    assert connector.peer.full
    await until(lambda: not connector.peer.full)
    assert await above.collects(1) == [[1, bytes(1000)]]


async def test_what_may_not_have_arrived_when_a_lane_ends_is_told(town: Town) -> None:
    above, below, _, connector = await town.pair()
    connector.peer.send([1])
    connector.peer.flush()
    connector.peer.send([2])
    connector.give_up(connector.peer, "for a test")
    await below.hears(("lost", "for a test"))
    await above.hears(("received", [[1]]), ("lost", "the other end knows nothing of this lane any more"))

    assert below.unsure == [[1], [2]]
    assert above.unsure == []
    assert list(below.peer.unsure) == [], "it is told once, and kept no longer"


async def test_only_so_much_waits_for_a_link_that_is_not_up(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    connector = town.connector(Owner())
    connector.peer.send([1])
    assert not connector.peer.full
    connector.peer.send([2])

    assert connector.peer.full
    with pytest.raises(Unreachable, match="2 messages wait for it already"):
        connector.peer.send([3])


async def test_only_so_many_bytes_wait_for_a_link_that_is_not_up(town: Town) -> None:
    connector = town.connector(Owner(), settings=LinkSettings(lane_buffer=1000))
    connector.peer.send([1, bytes(900)])
    assert not connector.peer.full
    connector.peer.send([2, bytes(100)])

    assert connector.peer.full
    with pytest.raises(Unreachable, match="2 messages wait for it already"):
        connector.peer.send([3])


async def test_what_has_not_left_yet_counts_as_far_as_it_was_measured(town: Town) -> None:
    _, _, _, connector = await town.pair(LinkSettings(probe_interval=0.05, lane_buffer=1000))
    connector.peer.put([1, bytes(1000)], 1003)
    assert connector.peer.full

    connector.peer.flush()
    await until(lambda: not connector.peer.full)


def test_what_is_remembered_of_peers_that_are_gone_is_forgotten_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PEERS", 2)
    table: dict[bytes, int] = {}
    for number, identity in enumerate((b"a", b"b", b"a", b"c")):
        module._remember(table, identity, number)

    assert table == {b"a": 2, b"c": 3}


# Addresses


def free_ports(count: int) -> int:
    """Return the first of so many ports in a row that nobody uses."""
    while True:
        with contextlib.ExitStack() as stack:
            try:
                first = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
                for port in range(first + 1, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except (OSError, OverflowError):
                continue
            return int(first)


async def test_the_first_free_port_of_a_range_is_taken(town: Town) -> None:
    first = free_ports(3)
    span = f"tcp://127.0.0.1:{first}-{first + 2}"

    acceptors = [town.acceptor(Owner(), span) for _ in range(3)]

    assert [acceptor.address for acceptor in acceptors] == [f"tcp://127.0.0.1:{first + number}" for number in range(3)]
    with pytest.raises(ListenError, match=f"cannot bind {span}: Address already in use"):
        town.acceptor(Owner(), span)


async def test_a_socket_that_somebody_listens_at_is_not_taken(town: Town) -> None:
    above, _, _, connector = await town.pair()

    with pytest.raises(ListenError, match=f"cannot bind {town.ipc}: another process listens there"):
        town.acceptor(Owner())

    connector.peer.send([1])
    await above.hears(("received", [[1]]))


async def test_a_folder_that_is_not_there_is_told(town: Town) -> None:
    with pytest.raises(ListenError, match=r"cannot bind ipc://.*: No such file or directory"):
        town.acceptor(Owner(), f"ipc://{town.directory}/none/a.sock")


async def test_what_is_no_address_is_told_and_harms_nobody(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    connector = town.connector(Owner(), "tcp://nowhere")

    await connector.close()

    (line,) = warnings(caplog)
    assert line.startswith("no link to tcp://nowhere: Invalid argument")


# The end


async def test_nothing_is_left_after_closing(town: Town) -> None:
    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    zmq.Context.instance().socket(zmq.DEALER).close()  # the context itself has some
    before = descriptors()
    _, _, acceptor, connector = await town.pair()

    for end in (connector, acceptor, connector, acceptor):
        await end.close()

    assert not list(town.directory.iterdir())
    for end in (connector, acceptor):
        assert end.socket.closed
        assert end._timer is not None
        assert end._timer.cancelled()
        end._peers()[0].send([1]) if end._peers() else None
    await until(lambda: descriptors() <= before)  # ZeroMQ closes in a thread of its own


async def test_a_socket_that_another_process_took_over_stays(town: Town) -> None:
    acceptor = town.acceptor(Owner())
    path = town.directory / "a.sock"
    path.unlink()
    other = town.acceptor(Owner())

    await acceptor.close()

    assert path.exists()
    await other.close()
    assert not path.exists()
