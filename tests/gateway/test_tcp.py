"""Clients that speak lines, frames or anything else, through real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from typing import TYPE_CHECKING

import pytest
from gatecrew.common import reasons
from gatecrew.common.errors import ConfigError, ListenError
from gatecrew.gateway import limits
from websockets.asyncio.client import connect, unix_connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gatecrew.gateway.handshake import Handshake
    from gatecrew.gateway.stream import Stream

    from .conftest import Serve, Served, Visitor

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

LINES = ("tcp://127.0.0.1:0",)


@contextlib.asynccontextmanager
async def device(served: Served) -> AsyncIterator[Streams]:
    """A client on a plain socket."""
    reader, writer = await served.raw()
    try:
        yield reader, writer
    finally:
        writer.close()


def echo(visitor: Visitor, data: str | bytes) -> None:
    visitor.connection.send(data)


@pytest.mark.parametrize(
    ("protocol", "sent", "messages"),
    [
        ("text", b"one\r\ntwo\n\nthr\xc3\xa9e\n", ["one", "two", "", "thrée"]),
        ("frame", b"\0\0\0\x07one\0\0\0\x04\0\0\0\x05\xff", [b"one", b"", b"\xff"]),
        ("raw", b"one\0\xff", [b"one\0\xff"]),
    ],
)
async def test_messages_come_and_go(serve: Serve, protocol: str, sent: bytes, messages: list[str | bytes]) -> None:
    async with serve(listen=(f"tcp://127.0.0.1:0?protocol={protocol}",)) as served, device(served) as (reader, writer):
        served.owner.on_message = echo
        writer.write(sent)
        back = await reader.readexactly(len(sent.replace(b"\r", b"")))

        assert served.owner.messages == messages
        assert back == sent.replace(b"\r", b"")


async def test_a_handler_sees_where_a_client_came_in(serve: Serve) -> None:
    async with serve(listen=("tcp://127.0.0.1:0?max_message=100",)) as served, device(served) as (_, writer):
        handshake = (await served.owner.first()).handshake

        host, port = writer.get_extra_info("sockname")
        assert handshake == ("", {}, [], f"{host}:{port}", served.url, None)
        assert re.fullmatch(r"tcp://127\.0\.0\.1:[1-9][0-9]*", served.url)


async def test_each_listener_has_its_own_options(serve: Serve) -> None:
    listen = ("tcp://127.0.0.1:0?max_message=5", "tcp://127.0.0.1:0", "ws://127.0.0.1:0?max_message=6")
    async with serve(listen=listen, max_message=7) as served:
        taken = []
        for url in served.listener.urls[:2]:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            served.owner.on_message = echo
            for size in range(4, 10):
                writer.write(b"x" * size + b"\n")
            taken.append(max(map(len, (await reader.read()).split())))
            writer.close()
        assert taken == [5, 7]
        async with connect(served.listener.urls[2], compression=None) as client:
            await client.send("x" * 6)
            assert len(await client.recv()) == 6
            await client.send("x" * 7)
            await client.wait_closed()
            assert client.close_code == 1009
        assert served.counters["closed.too_big"] == 3


async def test_who_hangs_up_is_closed_as_usual(serve: Serve) -> None:
    async with serve(listen=LINES) as served:
        async with device(served) as (_, writer):
            writer.write(b"bye\nunfinis")
        assert await served.owner.goodbye() == (1000, "")
        assert served.owner.messages == ["bye"]


async def test_who_is_cut_off_is_lost(serve: Serve) -> None:
    async with serve(listen=LINES) as served, device(served) as (_, writer):
        await served.owner.first()
        linger = b"\1\0\0\0\0\0\0\0"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        assert await served.owner.goodbye() == (1006, "")


async def test_closing_sends_what_was_sent_before(serve: Serve) -> None:
    async with serve(listen=LINES) as served, device(served) as (reader, writer):
        connection = (await served.owner.first()).connection
        connection.send("x" * 1_000_000)
        connection.close(4001, "enough")
        connection.send("too late")
        connection.close(4002, "again")

        assert await reader.read() == b"x" * 1_000_000 + b"\n"
        assert await served.owner.goodbye() == (4001, "enough")
        writer.close()
        assert await served.listener.wait_closed(10)
    assert served.counters == {"closed.command": 1}


async def test_who_does_not_hang_up_is_cut_off(serve: Serve) -> None:
    async with serve(listen=LINES, close_timeout=0.05) as served, device(served) as (reader, writer):
        (await served.owner.first()).connection.shut(reasons.GATEWAY_STOPPING)
        assert await reader.read() == b""
        writer.write(b"still here\n")
        assert await served.listener.wait_closed(10)
    assert served.owner.messages == []
    assert served.counters == {"closed.gateway_stopping": 1, "aborted.close_timeout": 1}


@pytest.mark.parametrize(
    ("protocol", "sent", "code", "counter"),
    [
        ("text", b"good\n\xff\n", 1007, "not_utf8"),
        ("text", b"good\n" + b"x" * 1000, 1009, "too_big"),
        ("frame", b"\0\0\0\x08good\0\0\0\3", 1002, "protocol_error"),
        ("frame", b"\0\0\0\x08good\xff\0\0\0", 1009, "too_big"),
    ],
)
async def test_a_stream_that_breaks_the_rules_is_closed(
    serve: Serve, protocol: str, sent: bytes, code: int, counter: str
) -> None:
    async with serve(listen=(f"tcp://127.0.0.1:0?protocol={protocol}&max_message=100",)) as served:
        async with device(served) as (reader, writer):
            writer.write(sent)
            assert await reader.read() == b""
        assert [str(data, "utf-8") if isinstance(data, bytes) else data for data in served.owner.messages] == ["good"]
        assert (await served.owner.goodbye())[0] == code
        assert served.counters[f"closed.{counter}"] == 1


async def test_a_slow_client_is_closed_at_its_limit(serve: Serve) -> None:
    async with serve(listen=LINES, client_buffer=10_000) as served, device(served) as (reader, _):
        connection = (await served.owner.first()).connection
        while connection.open:
            connection.send("x" * 10_000)
            await asyncio.sleep(0)
        assert (await served.owner.goodbye())[0] == 1013
        with contextlib.suppress(ConnectionResetError):
            assert len(await reader.read()) < 100_000_000


async def test_a_paused_client_waits(serve: Serve) -> None:
    async with serve(listen=LINES) as served, device(served) as (_, writer):
        connection = (await served.owner.first()).connection
        served.owner.on_message = lambda visitor, data: visitor.connection.pause()
        writer.write(b"first\n")
        await served.owner.until(lambda: served.owner.messages)
        writer.write(b"second\n")
        await writer.drain()
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert served.owner.messages == ["first"]

        connection.resume()
        await served.owner.until(lambda: len(served.owner.messages) == 2)


async def test_who_is_silent_for_too_long_is_closed(serve: Serve) -> None:
    async with serve(listen=LINES, ping_interval=0.02, missed_pongs=2) as served, device(served) as (reader, _):
        assert await reader.read() == b""
        assert await served.owner.goodbye() == (3008, "no answer to pings")


async def test_a_ping_is_a_message_and_any_word_answers_it(serve: Serve) -> None:
    config = {"ping_interval": 0.02, "missed_pongs": 1, "ping_data": "ping"}
    async with serve(listen=LINES, **config) as served, device(served) as (reader, writer):
        for _ in range(4):
            assert await reader.readline() == b"ping\n"
            writer.write(b"pong\n")
        assert served.owner.closed_with == []


async def test_a_message_that_does_not_end_is_not_waited_for(serve: Serve) -> None:
    async with serve(listen=LINES, message_timeout=0.05) as served, device(served) as (reader, writer):
        writer.write(b"whole\nbeginning")
        writer.write(b"...")
        served.owner.on_message = echo
        await reader.readline()
        writer.write(b" and no end")
        assert await reader.read() == b""
        assert await served.owner.goodbye() == (1008, "message_timeout")


async def test_who_is_too_fast_is_closed_in_the_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SAVED", 0.1)
    async with serve(listen=LINES, message_rate=100, rate_patience=0) as served, device(served) as (_, writer):
        flood = asyncio.ensure_future(pour(writer, b"x\n" * 20))
        assert await served.owner.goodbye() == (1008, "too_many")
        flood.cancel()


async def pour(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0)


# Those that somebody has to decide on


async def wait_at_the_door(served: Served) -> Stream:
    arrived = asyncio.Event()

    def wait(connection: Stream, handshake: Handshake) -> object:
        served.owner.waiting.append(connection)
        arrived.set()
        return connection

    served.owner.on_arrival = wait
    await arrived.wait()
    return served.owner.waiting[0]


async def test_who_waits_is_not_read(serve: Serve) -> None:
    async with serve(listen=LINES) as served:
        door = asyncio.ensure_future(wait_at_the_door(served))
        await asyncio.sleep(0)
        async with device(served) as (_, writer):
            writer.write(b"hello\n")
            connection = await door
            assert connection.staying
            assert not served.owner.messages
            connection.admit(None)
            await served.owner.until(lambda: served.owner.messages == ["hello"])


async def test_who_is_refused_is_cut_off(serve: Serve) -> None:
    async with serve(listen=LINES) as served:
        door = asyncio.ensure_future(wait_at_the_door(served))
        await asyncio.sleep(0)
        async with device(served) as (reader, _):
            (await door).refuse(401, "no token")
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
    assert not served.owner.visitors
    assert served.counters == {"handshake.refused": 1, "handshake.denied": 1}


async def test_nobody_decides_in_time(serve: Serve) -> None:
    async with serve(listen=LINES, handshake_timeout=0.02) as served:
        door = asyncio.ensure_future(wait_at_the_door(served))
        await asyncio.sleep(0)
        async with device(served) as (reader, _):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            assert served.owner.lost == [await door]
    assert served.counters == {"handshake.refused": 1, "handshake.undecided": 1}


async def test_who_comes_while_there_is_no_room_for_events_is_closed_at_once(serve: Serve) -> None:
    async with serve(listen=LINES) as served:
        served.owner.on_open = lambda visitor: visitor.connection.shut(reasons.OVERLOADED)
        async with device(served) as (reader, _):
            assert await reader.read() == b""
        assert (await served.owner.goodbye())[0] == 1013


# Protocols of users

SHOUTING = """
class Shouting:
    def __init__(self, max_message):
        self.rest = b""

    def feed(self, data):
        *whole, self.rest = (self.rest + data).split(b"!")
        for one in whole:
            if one == b"bug":
                raise RuntimeError("a bug")
            if one == b"nonsense":
                raise ValueError("nonsense")
            yield one.decode() if one else None

    def encode(self, message):
        if message == "bug":
            raise RuntimeError("a bug")
        if "!" in message:
            raise ValueError("too loud")
        return message.upper().encode() + b"!"
"""


@pytest.fixture
def shouting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a listener with a protocol of a user's own."""
    name = f"shouting_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(SHOUTING)
    monkeypatch.syspath_prepend(tmp_path)
    return f"tcp://127.0.0.1:0?protocol={name}:Shouting"


async def test_a_protocol_of_ones_own(serve: Serve, shouting: str) -> None:
    async with serve(listen=(shouting,)) as served, device(served) as (reader, writer):
        served.owner.on_message = echo
        writer.write(b"hel")
        writer.write(b"lo!!again!")
        assert await reader.readexactly(12) == b"HELLO!AGAIN!"
        assert served.owner.messages == ["hello", "again"]

        writer.write(b"nonsense!")
        assert await reader.read() == b""
        assert await served.owner.goodbye() == (1002, "nonsense")


async def test_what_a_protocol_cannot_say_is_dropped_and_counted(
    serve: Serve, shouting: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(listen=(shouting,)) as served, device(served) as (reader, _):
        connection = (await served.owner.first()).connection
        for message in ("hey!", "ho!", "let's go"):
            connection.send(message)
        assert await reader.readexactly(9) == b"LET'S GO!"
        assert served.counters == {"discarded.cannot_encode": 2}
        assert [record.message.partition(" is dropped: ")[2][:8] for record in caplog.records] == ["too loud"]


async def test_a_bug_in_feed_closes_the_client(serve: Serve, shouting: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serve(listen=(shouting,)) as served, device(served) as (reader, writer):
        writer.write(b"bug!")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert (await served.owner.goodbye())[0] == 1011
        assert "RuntimeError: a bug" in caplog.text


async def test_a_bug_in_encode_costs_the_message(serve: Serve, shouting: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serve(listen=(shouting,)) as served, device(served) as (reader, _):
        connection = (await served.owner.first()).connection
        connection.send("bug")
        connection.send("fine")
        assert await reader.readexactly(5) == b"FINE!"
        assert "RuntimeError: a bug" in caplog.text


async def test_a_protocol_that_keeps_all_is_stopped(serve: Serve, shouting: str) -> None:
    async with serve(listen=(f"{shouting}&max_message=1000",)) as served, device(served) as (_, writer):
        flood = asyncio.ensure_future(pour(writer, b"x" * 10_000))
        assert (await served.owner.goodbye())[0] == 1009
        flood.cancel()


async def test_a_message_for_many_is_encoded_once(serve: Serve) -> None:
    async with serve(listen=LINES) as served, device(served) as one, device(served) as two:
        await served.owner.until(lambda: len(served.owner.visitors) == 2)
        encoded = []
        entrance = served.owner.visitors[0].connection.entrance
        for message in ("a", "b"):
            for visitor in served.owner.visitors:
                visitor.connection.send(message)
                encoded.append(id(entrance._encoded))  # type: ignore[attr-defined]
        assert encoded[0] == encoded[1]
        assert encoded[2] == encoded[3]
        for reader, _ in (one, two):
            assert await reader.readexactly(4) == b"a\nb\n"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere:Class", "ModuleNotFoundError"),
        ("json:Nothing", "AttributeError"),
        ("json:loads", "TypeError"),
        ("gatecrew.common.errors:ConfigError", "has no method feed"),
    ],
)
async def test_a_protocol_that_is_none(serve: Serve, name: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        async with serve(listen=(f"tcp://127.0.0.1:0?protocol={name}",)):
            pass  # pragma: no cover


# Unix sockets


async def test_websockets_and_lines_on_unix_sockets(serve: Serve, run_dir: Path) -> None:
    listen = (f"unix:{run_dir}/ws.sock", f"unix:{run_dir}/lines.sock?protocol=text")
    async with serve(listen=listen) as served:
        served.owner.on_message = echo
        async with unix_connect(f"{run_dir}/ws.sock") as client:
            await client.send("hello")
            assert await client.recv() == "hello"
        reader, writer = await asyncio.open_unix_connection(f"{run_dir}/lines.sock")
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
        assert [visitor.handshake.remote for visitor in served.owner.visitors] == ["", ""]
        assert served.listener.urls == (f"unix:{run_dir}/ws.sock", f"unix:{run_dir}/lines.sock")
    assert os.listdir(run_dir) == []  # noqa: PTH208


async def test_a_unix_socket_that_was_left_behind_is_in_nobodys_way(serve: Serve, run_dir: Path) -> None:
    path = str(run_dir / "left.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    async with serve(listen=(f"unix:{path}?protocol=text",)) as served:
        with pytest.raises(ListenError, match=r"left\.sock: Address already in use"):
            async with serve(listen=(f"unix:{path}",)):
                pass  # pragma: no cover
        _, writer = await asyncio.open_unix_connection(path)
        await served.owner.first()
        writer.close()


async def test_a_file_is_not_taken_for_a_socket(serve: Serve, run_dir: Path) -> None:
    (run_dir / "file").write_text("precious")
    with pytest.raises(ListenError, match="file: Address already in use"):
        async with serve(listen=(f"unix:{run_dir}/file",)):
            pass  # pragma: no cover
    assert (run_dir / "file").read_text() == "precious"
