"""Keys: how they are made and read, and who gets over a tcp link with them. The sockets are real."""

from __future__ import annotations

import asyncio
import os
import traceback
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
import zmq
import zmq.asyncio
from gatecrew.common import curve, link, wire
from gatecrew.common.curve import Keys, make, parse
from gatecrew.common.errors import ConfigError, ListenError
from gatecrew.common.link import Acceptor, Connector, LinkSettings, Node, Peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gatecrew.common.messages import Message

HERE = "127.0.0.1"
PATIENCE = 20.0


class Owner:
    """What a link told last, and all messages."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.messages: list[Message] = []
        self.reasons: list[str] = []

    def joined(self, peer: Peer) -> None:
        self.peers.append(peer)

    def received(self, peer: Peer, batch: list[Message]) -> None:
        self.messages += batch

    def lost(self, peer: Peer, reason: str) -> None:
        self.reasons.append(reason)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # nothing sets an event
            await asyncio.sleep(0.005)


class Town:
    """Machines with their keys, and the links between them, which are closed with the test."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.list = folder / "keys"
        self._made = 0

    def key(self, host: str = HERE) -> tuple[Path, str]:
        """Make another key of a host, and return its file and its line in a list."""
        self._made += 1
        folder = self.folder / str(self._made)
        return make(folder, [host])[0], (folder / "keys").read_text()

    def known(self, *lines: str) -> None:
        """Write the list, as one should."""
        new = self.folder / "new"
        new.write_text("".join(lines))
        new.replace(self.list)

    def settings(self, key: Path, known: Path | None = None) -> LinkSettings:
        return LinkSettings(probe_interval=0.05, dead_after=0.4, keys=Keys(key, known or self.list))

    def acceptor(self, owner: Owner, settings: LinkSettings, address: str = f"tcp://{HERE}:0") -> Acceptor:
        acceptor = Acceptor(Node("gateway", "gateway-1", "G"), settings, owner, address)
        self.stack.push_async_callback(acceptor.close)
        return acceptor

    async def successor(self, acceptor: Acceptor, settings: LinkSettings) -> None:
        """Bind another one in its place, once ZeroMQ has freed it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(ListenError):
                    self.acceptor(Owner(), settings, acceptor.address)
                    return
                await asyncio.sleep(0.01)

    def connector(self, owner: Owner, settings: LinkSettings, address: str, name: str = "worker-1") -> Connector:
        connector = Connector(Node("worker", name, name), settings, owner, address)
        self.stack.push_async_callback(connector.close)
        return connector


@pytest.fixture
async def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    monkeypatch.setattr(curve, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(link, "REFUSED_WAIT", 0.05)
    async with AsyncExitStack() as stack:
        yield Town(tmp_path, stack)
    assert curve._Zap.guards == {}, "each link that ended took its guard along"
    assert curve._Zap._socket is None


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


# Who gets in


async def test_two_with_keys_meet_and_nobody_between_them_can_read_what_they_say(town: Town) -> None:
    (key, line), (other, other_line) = town.key(), town.key("10.0.0.2")
    town.known(line, other_line)
    above, below = Owner(), Owner()
    acceptor = town.acceptor(above, town.settings(key))
    overheard = bytearray()
    under_way: list[object] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            overheard.extend(data)
            writer.write(data)
        writer.close()
        await writer.wait_closed()

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        under_way.append(writer)
        there, here = await asyncio.open_connection(HERE, acceptor.address.rpartition(":")[2])
        await asyncio.gather(listen(reader, here), listen(there, writer))
        under_way.remove(writer)

    server = await asyncio.start_server(between, HERE, 0)
    port = server.sockets[0].getsockname()[1]
    connector = town.connector(below, town.settings(other), f"tcp://{HERE}:{port}")

    await until(lambda: above.peers and below.peers)
    connector.peer.send([1, "the launch code is 0000"])
    above.peers[0].send([2, "understood"])
    await until(lambda: above.messages and below.messages)

    assert (above.messages, below.messages) == ([[1, "the launch code is 0000"]], [[2, "understood"]])
    assert above.peers[0].public == parse(other_line, "")["10.0.0.2"][0]
    assert b"CURVE" in overheard
    assert b"launch" not in overheard
    assert b"worker-1" not in overheard
    await connector.close()
    await acceptor.close()
    server.close()
    await until(lambda: not under_way)


async def test_who_is_not_in_the_list_is_refused_and_both_say_so_once(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    (key, line), (stranger, stranger_line) = town.key(), town.key()
    town.known(line)
    theirs = town.folder / "theirs"
    theirs.write_text(stranger_line + line)
    above, below = Owner(), Owner()
    acceptor = town.acceptor(above, town.settings(key))
    town.connector(below, town.settings(stranger, theirs), acceptor.address)

    await until(lambda: acceptor.counters["link.refused"] >= 3)

    public = parse(stranger_line, "")[HERE][0].hex()
    assert sorted(warnings(caplog)) == [
        f"no link to {acceptor.address}: it refuses the key of this process: add its line to the list there",
        f"refused {HERE}: its key {public} is not in {town.list}",
    ]
    assert above.peers == below.peers == []


async def test_who_has_not_the_key_of_its_host_is_not_talked_to(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    (key, line), (thief, thief_line), (own, own_line) = town.key(), town.key(), town.key("10.0.0.2")
    town.known(line, own_line)
    theirs = town.folder / "theirs"
    theirs.write_text(thief_line + own_line)
    above, below = Owner(), Owner()
    acceptor = town.acceptor(above, town.settings(thief, theirs))
    connector = town.connector(below, town.settings(own), acceptor.address)

    await until(lambda: connector.counters["link.refused"])
    for _ in range(3):
        connector._connect()
        await asyncio.sleep(0.05)

    assert warnings(caplog) == [
        f"no link to {acceptor.address}: it does not prove to have the key that the list has for this host"
    ]
    assert above.peers == below.peers == []
    assert key.exists()


async def test_who_has_no_key_at_all_says_nothing_that_is_heard(town: Town) -> None:
    key, line = town.key()
    town.known(line)
    above = Owner()
    acceptor = town.acceptor(above, town.settings(key))
    context = zmq.asyncio.Context()
    plain = context.socket(zmq.DEALER)
    plain.connect(acceptor.address)
    greeting = wire.pack({"role": "worker", "name": "w", "key": "w"})
    await plain.send(wire.frame(wire.HELLO, 5, payload=greeting))
    host, port = acceptor.address.removeprefix("tcp://").split(":")
    for junk in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 64,
        os.urandom(1000),
        wire.frame(wire.HELLO, 5, payload=greeting),
    ):
        _, writer = await asyncio.open_connection(host, port)
        writer.write(junk)
        await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    with suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await plain.recv()
            pytest.fail("it was answered")

    below = Owner()
    town.connector(below, town.settings(key), acceptor.address)
    await until(lambda: below.peers)  # and the others are served

    assert [peer.name for peer in above.peers] == ["worker-1"]
    plain.close(linger=0)
    context.term()


async def test_with_nobody_to_ask_nobody_comes_in(town: Town) -> None:
    key, line = town.key()
    town.known(line)
    above, below = Owner(), Owner()
    acceptor = town.acceptor(above, town.settings(key))
    assert acceptor._guard is not None
    acceptor._guard.close()

    connector = town.connector(below, town.settings(key), acceptor.address)
    await until(lambda: connector.counters["link.refused"])

    assert above.peers == []


async def test_a_local_socket_needs_no_key(town: Town, run_dir: Path) -> None:
    key, line = town.key()
    town.known(line)
    above, below = Owner(), Owner()
    acceptor = town.acceptor(above, town.settings(key), f"ipc://{run_dir}/a.sock")
    town.connector(below, LinkSettings(), acceptor.address)

    await until(lambda: above.peers and below.peers)


async def test_who_binds_must_be_known_by_the_name_of_its_host(town: Town) -> None:
    key, line = town.key("10.0.0.1")
    town.known(line)

    with pytest.raises(ListenError, match="has no line of this host with the key of this process"):
        town.acceptor(Owner(), town.settings(key))


async def test_a_host_that_is_not_in_the_list_is_complained_of_and_found_when_it_is(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    (key, line), (own, own_line) = town.key(), town.key("10.0.0.2")
    town.known(own_line)
    theirs = town.folder / "theirs"
    theirs.write_text(line + own_line)
    below = Owner()
    acceptor = town.acceptor(Owner(), town.settings(key, theirs))
    town.connector(below, town.settings(own), acceptor.address)

    await until(lambda: warnings(caplog))
    assert warnings(caplog) == [f"no link to {acceptor.address}: {town.list} has no key of this host"]
    town.known(line, own_line)

    await until(lambda: below.peers)


# A list that changes


async def test_keys_change_while_all_goes_on(town: Town) -> None:
    (old, old_line), (own, own_line) = town.key(), town.key("10.0.0.2")
    town.known(old_line, own_line)
    below = Owner()
    acceptor = town.acceptor(Owner(), town.settings(old))
    connector = town.connector(below, town.settings(own), acceptor.address)
    await until(lambda: len(below.peers) == 1)

    new, new_line = town.key()
    town.known(old_line, own_line, new_line)
    await until(lambda: connector.settings.keys and connector.settings.keys.version == 1)
    assert connector.peer.up, "a new line disturbs nobody"
    await acceptor.close()
    await town.successor(acceptor, town.settings(new))
    await until(lambda: len(below.peers) == 2)
    town.known(own_line, new_line)
    await until(lambda: connector.settings.keys and connector.settings.keys.version == 2)

    assert connector.peer.up
    assert len(below.peers) == 2


async def test_who_is_taken_out_of_the_list_loses_its_links_and_gets_no_new_ones(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    (key, line), (bad, bad_line) = town.key(), town.key("10.0.0.66")
    town.known(line, bad_line)
    theirs = town.folder / "theirs"
    theirs.write_text(line + bad_line)
    above, below = Owner(), Owner()
    acceptor = town.acceptor(above, town.settings(key))
    thief = town.settings(bad, theirs)
    town.connector(below, thief, acceptor.address, "thief")
    await until(lambda: above.peers and below.peers)

    town.known(line)

    await until(lambda: above.reasons and below.reasons)
    assert above.reasons == ["its key is no longer in the list"]
    assert below.reasons == ["it refuses us: its key is no longer in the list"]
    refused = acceptor.counters["link.refused"]
    await until(lambda: acceptor.counters["link.refused"] >= refused + 2)  # over the connection that it still has
    again = town.connector(Owner(), thief, acceptor.address, "another")
    await until(lambda: again.counters["link.refused"])
    assert len(above.peers) == 1
    assert any(text.startswith("refused worker thief") for text in warnings(caplog))


async def test_a_host_whose_key_is_taken_out_is_talked_to_no_more(town: Town) -> None:
    (key, line), (own, own_line) = town.key(), town.key("10.0.0.2")
    town.known(line, own_line)
    theirs = town.folder / "theirs"
    theirs.write_text(line + own_line)
    above, below = Owner(), Owner()
    acceptor = town.acceptor(above, town.settings(key, theirs))
    town.connector(below, town.settings(own), acceptor.address)
    await until(lambda: above.peers and below.peers)

    town.known(own_line)

    await until(lambda: below.reasons and above.reasons)
    assert below.reasons == ["its key is no longer in the list"]


async def test_a_list_that_cannot_be_read_changes_nothing_and_is_logged_once(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    key, line = town.key()
    town.known(line)
    keys = Keys(key, town.list)

    town.known("what?")
    for now in range(1, 5):
        keys.look(now)
    assert keys.host(keys.public) == HERE
    assert [record.getMessage() for record in caplog.records] == [
        f"the list of keys stays as it was: {town.list}: line 1: expected a host and a public key of 64 hexadecimal digits"
    ]

    town.known("# nobody\n")
    keys.look(5.0)
    assert keys.host(keys.public) is None


# Files


def test_keys_are_made_for_hosts(tmp_path: Path) -> None:
    folder = tmp_path / "made"

    files = make(folder, ["10.0.0.1", "::1", "web.example", "10.0.0.1"])

    assert [file.name for file in files] == ["10.0.0.1.key", "::1.key", "web.example.key"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    found = parse((folder / "keys").read_text(), "")
    assert list(found) == ["10.0.0.1", "::1", "web.example"]
    assert [Keys(file, folder / "keys").public for file in files] == [keys[0] for keys in found.values()]
    assert len(set(found.values())) == 3


def test_nothing_is_overwritten_when_keys_are_made(tmp_path: Path) -> None:
    (file,) = make(tmp_path, ["a"])
    before = file.read_text(), (tmp_path / "keys").read_text()

    with pytest.raises(ConfigError, match="is there already, and stays"):
        make(tmp_path, ["b", "a"])

    assert before == (file.read_text(), (tmp_path / "keys").read_text())
    assert not (tmp_path / "b.key").exists()


@pytest.mark.parametrize("host", ["", "../a", "a b", "#", "*", "-x", "a/b"])
def test_what_is_no_host_gets_no_key(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="is no host"):
        make(tmp_path, [host])
    assert list(tmp_path.iterdir()) == []


def test_a_list_has_comments_and_several_keys_of_a_host_of_which_the_last_is_the_first_to_try() -> None:
    one, two = "1" * 64, "2" * 64

    found = parse(f"# ours\n\na {one}  # old\n b\t{two}\na {two}\n", "keys")

    assert found == {"a": (bytes.fromhex(two), bytes.fromhex(one)), "b": (bytes.fromhex(two),)}


@pytest.mark.parametrize("line", ["a", "a 11", f"a {'1' * 64} b", f"a {'G' * 64}", f"../a {'1' * 64}"])
def test_a_line_that_is_none_is_named(line: str) -> None:
    with pytest.raises(ConfigError, match=r"^keys: line 2: expected a host and a public key"):
        parse(f"\n{line}\n", "keys")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda key, known: key.unlink(), "[cluster] key: {key} cannot be read: No such file or directory"),
        (lambda key, known: known.unlink(), "[cluster] keys: {known} cannot be read: No such file or directory"),
        (lambda key, known: key.chmod(0o644), "[cluster] key: {key} is open to others (mode 0644), expected 0600"),
        (lambda key, known: key.chmod(0o660), "[cluster] key: {key} is open to others (mode 0660), expected 0600"),
        (lambda key, known: known.chmod(0o666), "[cluster] keys: everybody may write to {known}"),
        (lambda key, known: key.write_text("hunter2"), "[cluster] key: {key} holds no secret key"),
        (lambda key, known: key.write_bytes(b"\xff"), "[cluster] key: {key} cannot be read: it is no text"),
        (lambda key, known: known.write_bytes(b"\xff"), "[cluster] keys: {known} cannot be read: it is no text"),
        (lambda key, known: known.write_text("#" * 2**21), "[cluster] keys: {known} is longer than"),
        (lambda key, known: known.write_text(""), "{known}: has no line for the key in {key}, whose public part is "),
    ],
)
def test_files_that_are_no_good_are_named(tmp_path: Path, spoil: Callable[[Path, Path], Any], error: str) -> None:
    (key,) = make(tmp_path, ["a"])
    known = tmp_path / "keys"
    spoil(key, known)

    with pytest.raises(ConfigError) as caught:
        Keys(key, known)

    assert str(caught.value).startswith(error.format(key=key, known=known))


def test_a_secret_key_is_in_no_repr_no_error_and_no_traceback(tmp_path: Path) -> None:
    (key,) = make(tmp_path, ["a"])
    secret = key.read_text().strip()
    keys = Keys(key, tmp_path / "keys")
    told = [repr(keys), str(keys), repr(LinkSettings(keys=keys)), repr(vars(LinkSettings))]
    key.write_text(f"{secret} and more")
    try:
        Keys(key, tmp_path / "keys")
    except ConfigError as error:
        told += traceback.format_exception(error)

    assert len(told) > 4
    assert [text for text in told if secret in text or repr(bytes.fromhex(secret)) in text] == []
