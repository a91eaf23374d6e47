"""Connections, through real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
from gatecrew.common import reasons
from gatecrew.gateway.handshake import MAX_REQUEST
from gatecrew.gateway.pages import Pages
from gatecrew.gateway.websocket import encode
from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import BINARY, CLOSE, CONT, PING, TEXT, Close, Frame, Opcode
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

if TYPE_CHECKING:
    from gatecrew.gateway.handshake import Handshake
    from gatecrew.gateway.stream import Stream

    from .conftest import Serve, Served, Visitor

PAGES = Pages({"index.html": b"home", "big.bin": b"x" * (12 << 20)})


class Raw:
    """A client that sends exactly what a test says, and answers nothing by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, opcode: Opcode, data: bytes, fin: bool = True) -> None:
        self.writer.write(Frame(opcode, data, fin).serialize(mask=True))

    async def frame(self) -> Frame:
        parser = Frame.parse(self._read, mask=False)
        next(parser)
        while True:
            self.received = await self.reader.readexactly(self.wanted)
            try:
                next(parser)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]

    def _read(self, size: int) -> Any:
        self.wanted = size
        if size == 0:
            return b""
        yield
        return self.received

    async def ended(self) -> bytes:
        """Return what comes until the end."""
        return await self.reader.read()

    def hang_up(self) -> None:
        self.writer.close()


def request(url: str) -> bytes:
    client = ClientProtocol(parse_uri(url))
    client.send_request(client.connect())
    return b"".join(client.data_to_send())


async def raw(served: Served, target: str = "/") -> Raw:
    """Open by hand."""
    reader, writer = await served.raw()
    writer.write(request(served.url + target))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return Raw(reader, writer)


def stuff(visitor: Visitor, size: int, piece: int = 4096) -> int:
    """Write to a client that does not read until it is closed, and return how much."""
    frame = encode(b"x" * piece)
    written = 0
    while visitor.connection.open and written < size:
        visitor.connection.write(frame)
        written += piece
    return written


async def test_a_client_is_opened_heard_answered_and_closed(serve: Serve) -> None:
    async with serve(subprotocols=("chat",)) as served:
        owner = served.owner
        owner.on_message = lambda visitor, data: visitor.connection.send(data)
        headers = {"X-Token": "t"}
        subprotocols = [Subprotocol("chat")]
        async with connect(f"{served.url}/a?b=c", additional_headers=headers, subprotocols=subprotocols) as client:
            assert client.subprotocol == "chat"
            for data in ("text €", b"\x00binary", "", b"", "x" * 70000, b"y" * 1000000):
                await client.send(data)
                assert await client.recv() == data
            handshake = (await owner.first()).handshake
            assert handshake.path == "/a"
            assert handshake.query == {"b": "c"}
            assert ("X-Token", "t") in handshake.headers
            assert handshake.subprotocol == "chat"
            assert handshake.listener == served.url
            assert handshake.remote == "{}:{}".format(*client.local_address)
            await client.close(4001, "bye")

        assert await owner.goodbye() == (4001, "bye")
        assert len(owner.messages) == 6
        assert not served.counters


async def test_a_close_without_code_is_1005(serve: Serve) -> None:
    async with serve() as served:
        client = await raw(served)
        client.send(CLOSE, b"")

        assert await served.owner.goodbye() == (1005, "")
        assert (await client.frame()).opcode is CLOSE
        assert await client.ended() == b""
        client.hang_up()


async def test_the_owner_closes(serve: Serve) -> None:
    async with serve() as served, connect(served.url) as client:
        visitor = await served.owner.first()
        visitor.connection.send("last words")
        visitor.connection.close(4000, "é" * 100)
        visitor.connection.send("too late")
        visitor.connection.close(4001, "again")
        visitor.connection.write(b"too late")

        assert await client.recv() == "last words"
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd == Close(4000, "é" * 61)
        assert served.owner.closed_with == [(4000, "é" * 61)]
        assert served.counters == {"closed.command": 1}


@pytest.mark.parametrize("code", [0, 999, 1005, 1006, 1015, 5000])
async def test_a_code_that_may_not_be_sent_becomes_1000(serve: Serve, code: int) -> None:
    async with serve() as served, connect(served.url) as client:
        (await served.owner.first()).connection.close(code, "why")
        await client.wait_closed()

        assert client.close_code == 1000
        assert served.owner.closed_with == [(1000, "why")]


async def test_the_owner_cuts(serve: Serve) -> None:
    async with serve() as served, connect(served.url) as client:
        visitor = await served.owner.first()
        visitor.connection.abort()
        visitor.connection.abort()
        await client.wait_closed()

        assert client.close_code == 1006
        assert served.owner.closed_with == [(1006, "")]
        assert served.counters == {"closed.destroy": 1}


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_client_may_be_closed_while_it_is_opened(serve: Serve, how: str) -> None:
    def close(visitor: Visitor) -> None:
        if how == "close":
            visitor.connection.close(4003, "no")
        else:
            visitor.connection.abort()
        assert served.owner.closed_with == []  # its owner does not know it yet

    async with serve() as served:
        served.owner.on_open = close
        reader, writer = await served.raw()
        writer.write(request(served.url))

        assert await served.owner.goodbye() == ((4003, "no") if how == "close" else (1006, ""))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await reader.read()


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_a_client_that_is_lost_is_1006(serve: Serve, how: str) -> None:
    async with serve() as served:
        client = await raw(served)
        await served.owner.first()
        if how == "reset":
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.hang_up()

        assert await served.owner.goodbye() == (1006, "")
        assert await served.listener.wait_closed(10)


async def test_a_client_may_answer_a_close_frame_and_reset_the_connection(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve() as served:
        client = await raw(served)
        (await served.owner.first()).connection.close(1000, "")
        assert (await client.frame()).opcode is CLOSE
        client.send(CLOSE, b"\x03\xe8")
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
        assert await served.listener.wait_closed(5)

    assert not caplog.records


async def test_messages_before_a_close_in_the_same_piece_are_delivered(serve: Serve) -> None:
    async with serve() as served:
        client = await raw(served)
        served.owner.on_message = lambda visitor, data: visitor.connection.close(4000, "not needed")
        frames = [Frame(TEXT, b"a"), Frame(CLOSE, Close(4005, "mine").serialize()), Frame(TEXT, b"b")]
        client.writer.write(b"".join(frame.serialize(mask=True) for frame in frames))

        assert await served.owner.goodbye() == (4005, "mine")
        assert served.owner.messages == ["a"]
        assert (await client.frame()).data[2:] == b"mine"
        client.hang_up()


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_nothing_is_delivered_after_the_owner_closed(serve: Serve, how: str) -> None:
    def close(visitor: Visitor, data: str | bytes) -> None:
        visitor.connection.abort() if how == "abort" else visitor.connection.close(1000, "")

    async with serve() as served:
        client = await raw(served)
        served.owner.on_message = close
        frames = [Frame(TEXT, b"a"), Frame(TEXT, b"b"), Frame(PING, b""), Frame(TEXT, b"c", False)]
        client.writer.write(b"".join(frame.serialize(mask=True) for frame in frames))
        await served.owner.goodbye()
        client.send(CONT, b"d")
        client.send(CLOSE, b"")
        client.hang_up()

        assert await served.listener.wait_closed(10)
        assert served.owner.messages == ["a"]
        assert len(served.owner.closed_with) == 1


async def test_pings_are_answered_and_fragments_put_together(serve: Serve) -> None:
    async with serve() as served:
        client = await raw(served)
        client.send(BINARY, b"a", False)
        client.send(PING, b"still there?")
        client.send(CONT, b"b")

        assert (await client.frame()).data == b"still there?"
        await served.owner.until(lambda: served.owner.messages == [b"ab"])
        client.hang_up()


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (Frame(BINARY, b"x" * 1001).serialize(mask=True), reasons.TOO_BIG),
        (Frame(BINARY, b"x" * 600, False).serialize(mask=True) * 2, reasons.TOO_BIG),
        (Frame(BINARY, b"x" * 400, False).serialize(mask=True) * 2, reasons.PROTOCOL_ERROR),
        (Frame(TEXT, b"\xff").serialize(mask=True), reasons.NOT_UTF8),
        (Frame(TEXT, b"unmasked").serialize(mask=False), reasons.PROTOCOL_ERROR),
        (b"\x83\x80mask", reasons.PROTOCOL_ERROR),  # a reserved opcode
        (b"\xc1\x80mask", reasons.PROTOCOL_ERROR),  # compressed, which was not negotiated
        (Frame(CLOSE, b"\x03\xe8\xff").serialize(mask=True), reasons.NOT_UTF8),
        (b"GET / HTTP/1.1\r\n\r\n", reasons.PROTOCOL_ERROR),
    ],
    ids=[
        "a message too big",
        "the first of two fragments too big",
        "a message begun within another",
        "text that is not UTF-8",
        "no mask",
        "a reserved opcode",
        "compressed, which was not negotiated",
        "a close reason that is not UTF-8",
        "no frames at all",
    ],
)
async def test_a_client_that_breaks_the_rules_is_closed_and_counted(
    serve: Serve, frame: bytes, reason: reasons.Reason, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with serve(max_message=1000) as served, connect(served.url) as other:
            await served.owner.first()
            client = await raw(served)
            client.writer.write(frame)

            code, _ = await served.owner.goodbye()
            assert code == reason.code
            answer = await client.frame()
            assert (answer.opcode, bytes(answer.data[:2])) == (CLOSE, code.to_bytes(2))
            assert await client.ended() == b""
            client.hang_up()
            assert served.counters == {f"closed.{reason.name}": 1}
            await other.send("I noticed nothing")
            await served.owner.until(lambda: served.owner.messages)

    assert [record for record in caplog.records if record.name.startswith(("gatecrew", "websockets"))] == []


async def test_a_slow_client_is_closed_at_its_limit(serve: Serve) -> None:
    limit = 100_000
    async with serve(client_buffer=limit) as served:
        client = await raw(served)
        visitor = await served.owner.first()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        kernel = 64 << 20
        while visitor.connection.open:
            stuff(visitor, kernel)
            await asyncio.sleep(0)

        assert served.owner.closed_with == [(1013, reasons.SLOW.text)]
        assert served.counters == {"closed.slow": 1}
        assert await served.listener.wait_closed(10)
        client.hang_up()


async def test_a_client_that_reads_is_not_slow(serve: Serve) -> None:
    async with serve(client_buffer=100_000) as served:
        client = await raw(served)
        visitor = await served.owner.first()
        for _ in range(200):
            assert stuff(visitor, 50_000, 1000) == 50_000
            for _ in range(50):
                assert len((await client.frame()).data) == 1000
        visitor.connection.send("end")

        assert (await client.frame()).data == b"end"
        client.hang_up()


async def test_writing_is_the_transports_own_as_long_as_little_waits(serve: Serve) -> None:
    async with serve(client_buffer=4_000_000) as served:
        client = await raw(served)
        visitor = await served.owner.first()
        fast = visitor.connection.write
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        while visitor.connection.write == fast:
            visitor.connection.write(encode(b"x" * 65536))
        assert visitor.connection.open
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        while visitor.connection.write != fast:
            await client.frame()

        assert visitor.connection.open
        client.hang_up()


async def test_pings_of_a_client_that_does_not_read_pongs_are_limited(serve: Serve) -> None:
    async with serve(client_buffer=10_000, message_rate=0) as served:
        client = await raw(served)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        pings = Frame(PING, b"x" * 125).serialize(mask=True) * 1000
        while not served.owner.closed_with:
            client.writer.write(pings)
            await asyncio.sleep(0)

        assert served.owner.closed_with == [(1013, reasons.SLOW.text)]
        client.hang_up()


async def test_pings_are_limited_while_leaving_too(serve: Serve) -> None:
    async with serve(client_buffer=10_000, close_timeout=50.0) as served:
        client = await raw(served)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        (await served.owner.first()).connection.close(1000, "")
        pings = Frame(PING, b"x" * 125).serialize(mask=True) * 1000
        while len(served.listener):
            client.writer.write(pings)
            await asyncio.sleep(0)
        client.hang_up()


async def test_a_paused_client_is_not_read(serve: Serve) -> None:
    async with serve() as served:
        client = await raw(served)
        connection = (await served.owner.first()).connection

        def pause(visitor: Visitor, data: str | bytes) -> None:
            visitor.connection.pause()
            visitor.connection.pause()

        served.owner.on_message = pause
        client.writer.write(Frame(TEXT, b"a").serialize(mask=True) * 2)
        await served.owner.until(lambda: len(served.owner.messages) == 2)  # what was read is delivered
        client.send(TEXT, b"b")
        transport = connection._transport
        assert not transport.is_reading()
        connection.resume()
        connection.resume()
        assert transport.is_reading()
        await served.owner.until(lambda: len(served.owner.messages) == 3)
        client.hang_up()


async def test_a_paused_client_is_read_again_to_be_closed(serve: Serve) -> None:
    async with serve(close_timeout=50.0) as served, connect(served.url) as client:
        connection = (await served.owner.first()).connection
        connection.pause()
        await client.send("not read, and not delivered")
        connection.close(1000, "enough")
        connection.pause()
        await client.wait_closed()

        assert await served.listener.wait_closed(10)
        assert served.owner.messages == []
        connection.resume()


async def test_a_silent_client_is_closed(serve: Serve) -> None:
    async with serve(ping_interval=0.04, missed_pongs=2, close_timeout=0.04) as served:
        client = await raw(served)

        assert await served.owner.goodbye() == (3008, reasons.PONG_MISSED.text)
        frames = [await client.frame() for _ in range(3)]
        assert [frame.opcode for frame in frames] == [PING, PING, CLOSE]
        assert await served.listener.wait_closed(10)  # it does not hang up either
        assert served.counters == {"closed.pong_missed": 1, "aborted.close_timeout": 1}
        client.hang_up()


async def count_pings(client: Raw, number: int, answer: Frame) -> list[bytes]:
    seen = []
    for _ in range(number):
        frame = await client.frame()
        seen.append(bytes(frame.data))
        client.writer.write(answer.serialize(mask=True))
    return seen


@pytest.mark.parametrize("answer", [Frame(Opcode.PONG, b""), Frame(TEXT, b"anything")])
async def test_a_client_that_says_anything_stays(serve: Serve, answer: Frame) -> None:
    async with serve(ping_interval=0.2, missed_pongs=1) as served:
        client = await raw(served)

        assert await count_pings(client, 5, answer) == [b""] * 5
        assert served.owner.closed_with == []
        client.hang_up()


async def test_pings_may_be_messages(serve: Serve) -> None:
    async with serve(ping_interval=0.2, missed_pongs=1, ping_data='{"type":"ping"}') as served:
        client = await raw(served)

        assert await count_pings(client, 3, Frame(TEXT, b"pong")) == [b'{"type":"ping"}'] * 3
        client.hang_up()


async def test_a_paused_client_cannot_miss_pongs(serve: Serve) -> None:
    async with serve(ping_interval=0.02, missed_pongs=1) as served:
        client = await raw(served)
        (await served.owner.first()).connection.pause()
        for _ in range(4):
            assert (await client.frame()).opcode is PING

        assert served.owner.closed_with == []
        client.hang_up()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: slow\r\n"])
async def test_a_handshake_must_be_finished_in_time(serve: Serve, said: bytes) -> None:
    async with serve(open_timeout=0.04, close_timeout=0.04) as served:
        reader, writer = await served.raw()
        writer.write(said)

        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        await reader.read()
        assert await served.listener.wait_closed(10)  # though it does not hang up
        assert served.counters == {"closed.open_timeout": 1, "aborted.close_timeout": 1}
        writer.close()


async def test_a_handshake_byte_by_byte_does_not_get_more_time(serve: Serve) -> None:
    async with serve(open_timeout=0.1) as served:
        reader, writer = await served.raw()
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        head = asyncio.ensure_future(reader.readline())
        while not head.done():
            writer.write(b"x")
            await asyncio.sleep(0.005)

        assert head.result().startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_client_that_does_not_answer_a_close_is_cut(serve: Serve) -> None:
    async with serve(close_timeout=0.04) as served:
        client = await raw(served)
        (await served.owner.first()).connection.close(1000, "")

        assert (await client.frame()).opcode is CLOSE
        assert await served.listener.wait_closed(10)
        assert served.counters == {"closed.command": 1, "aborted.close_timeout": 1}
        client.hang_up()


async def test_a_client_that_half_closes_with_a_full_buffer_is_cut(serve: Serve) -> None:
    async with serve(close_timeout=0.04, client_buffer=64 << 20) as served:
        client = await raw(served)
        visitor = await served.owner.first()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        stuff(visitor, 32 << 20, 1 << 20)
        client.writer.write_eof()

        assert await served.owner.goodbye() == (1006, "")
        assert await served.listener.wait_closed(10)
        client.hang_up()


async def test_a_bad_handshake_is_refused_and_counted(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with serve() as served:
            for request, status in (
                (b"GET / HTTP/1.1\r\n\r\n", b"426"),
                (b"POST / HTTP/1.1\r\n\r\n", b"405"),
                (b"\x16\x03\x01\r\n\r\n", b"400"),
            ):
                reader, writer = await served.raw()
                writer.write(request)
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 " + status)
                assert body
                writer.write(b"who cares")
                writer.close()
            assert await served.listener.wait_closed(10)

            assert served.counters == {"handshake.refused": 3}
            assert served.owner.visitors == []
    assert [record for record in caplog.records if record.name.startswith(("gatecrew", "websockets"))] == []


async def test_whoever_connects_and_says_nothing_is_not_counted(serve: Serve) -> None:
    async with serve() as served:
        _, writer = await served.raw()
        writer.close()
        reader, writer = await served.raw()
        writer.write(b"GET / HT")
        writer.write_eof()

        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        assert await served.listener.wait_closed(10)
        assert served.counters == {"handshake.refused": 1}


async def test_an_owner_that_fails_costs_one_client(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def fail(visitor: Visitor, data: str | bytes) -> None:
        if data == "bad":
            raise RuntimeError("a bug")

    async with serve() as served, connect(served.url) as other:
        await served.owner.first()
        served.owner.on_message = fail
        client = await raw(served)
        client.writer.write(Frame(TEXT, b"bad").serialize(mask=True) + Frame(TEXT, b"after").serialize(mask=True))

        assert await served.owner.goodbye() == (1011, reasons.INTERNAL_ERROR.text)
        await other.send("I noticed nothing")
        await served.owner.until(lambda: served.owner.messages == ["bad", "I noticed nothing"])
        assert served.counters == {"closed.internal_error": 1}
        client.hang_up()
    assert "a bug" in caplog.text


async def test_an_owner_that_fails_to_open_a_client_does_not_get_it(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(visitor: Visitor) -> None:
        raise RuntimeError(f"a bug in {visitor}")

    async with serve() as served:
        served.owner.on_open = fail
        reader, writer = await served.raw()
        writer.write(request(served.url))
        with contextlib.suppress(ConnectionError):
            await reader.read()

        assert await served.listener.wait_closed(10)
        assert served.owner.closed_with == []
        writer.close()
    assert "a bug" in caplog.text


async def test_pages_are_served_beside_clients(serve: Serve) -> None:
    async with serve(pages=PAGES) as served:
        for target, status, expected in (("/", b"200", b"home"), ("/none", b"404", b"There is no such page.\n")):
            reader, writer = await served.raw()
            writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 " + status)
            assert body == expected
            writer.close()
        async with connect(served.url):
            await served.owner.first()
        assert not served.counters


async def test_a_large_page_gets_as_long_as_it_moves(serve: Serve) -> None:
    async with serve(pages=PAGES, close_timeout=0.2) as served:
        reader, writer = await served.raw()
        writer.write(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        read = 0
        while piece := await reader.read(200_000):
            read += len(piece)
            await asyncio.sleep(0.006)  # the whole takes several times close_timeout
        writer.close()

        assert read > 12 << 20


async def test_a_large_page_to_nobody_is_cut(serve: Serve) -> None:
    async with serve(pages=PAGES, close_timeout=0.04) as served:
        reader, writer = await served.raw()
        writer.write(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readline()
        writer.transport.pause_reading()  # type: ignore[attr-defined]

        assert await served.listener.wait_closed(10)
        assert served.counters == {"aborted.close_timeout": 1}
        writer.close()


async def test_compression_if_both_want_it(serve: Serve) -> None:
    async with serve(compression=True) as served:
        served.owner.on_message = lambda visitor, data: visitor.connection.send(data)
        async with connect(served.url) as client:
            assert [extension.name for extension in client.protocol.extensions] == ["permessage-deflate"]
            await echo(client, "compressible " * 1000)
            await echo(client, b"x" * 1000000)
            assert not served.owner.visitors[0].connection.plain
            served.owner.visitors[0].connection.close(1000, "")
            served.owner.visitors[0].connection.send("too late")
        async with connect(served.url, compression=None) as client:
            await echo(client, "plain")
            assert served.owner.visitors[1].connection.plain


async def test_a_small_frame_that_inflates_beyond_the_limit_is_refused(serve: Serve) -> None:
    async with serve(compression=True, max_message=10_000) as served, connect(served.url) as client:
        await client.send("x" * 20_000)
        await client.wait_closed()

        assert client.close_code == 1009
        assert served.counters == {"closed.too_big": 1}


async def echo(client: ClientConnection, data: str | bytes) -> None:
    await client.send(data)
    assert await client.recv() == data


async def test_frames_right_behind_the_handshake_are_taken(serve: Serve) -> None:
    async with serve() as served:
        reader, writer = await served.raw()
        writer.write(request(served.url) + Frame(TEXT, b"hasty").serialize(mask=True))

        await served.owner.until(lambda: served.owner.messages == ["hasty"])
        await reader.readuntil(b"\r\n\r\n")
        writer.close()


async def test_small_frames_are_sent_at_once(serve: Serve) -> None:
    async with serve() as served, connect(served.url):
        connection = (await served.owner.first()).connection
        sock = connection._transport.get_extra_info("socket")

        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# A handshake that somebody has to decide on


async def waiting(served: Served, rest: bytes = b"") -> Raw:
    """Return a client that waits at the door."""
    arrived = asyncio.Event()

    def wait(connection: Stream, handshake: Handshake) -> object:
        served.owner.waiting.append(connection)
        arrived.set()
        return connection

    served.owner.on_arrival = wait
    client = Raw(*await served.raw())
    client.writer.write(request(served.url) + rest)
    await arrived.wait()
    return client


async def test_a_client_waits_at_the_door_and_what_it_says_meanwhile_is_kept(serve: Serve) -> None:
    async with serve(open_timeout=0.05) as served:  # the time for the handshake itself does not count any more
        client = await waiting(served, Frame(TEXT, b"one").serialize(mask=True))
        client.send(TEXT, b"two")
        await asyncio.sleep(0.1)
        assert served.owner.visitors == []

        served.owner.waiting[0].admit(None)

        await served.owner.until(lambda: len(served.owner.messages) == 2)
        assert served.owner.messages == ["one", "two"]
        client.hang_up()


async def test_a_client_is_refused_at_the_door(serve: Serve) -> None:
    async with serve() as served:
        client = await waiting(served)

        served.owner.waiting[0].refuse(401, "who are you", 5)
        served.owner.waiting[0].admit(None)

        response = await client.ended()
        assert response.startswith(b"HTTP/1.1 401 ")
        assert b"\r\nRetry-After: 5\r\n" in response
        assert b"\r\nWWW-Authenticate: Bearer\r\n" in response
        assert served.counters["handshake.denied"] == served.counters["handshake.refused"] == 1
        assert served.owner.visitors == served.owner.lost == []
        client.hang_up()


@pytest.mark.parametrize("how", ["reset", "half"])
async def test_a_client_that_hangs_up_at_the_door_is_forgotten(serve: Serve, how: str) -> None:
    async with serve() as served:
        client = await waiting(served)
        if how == "reset":
            client.writer.transport.abort()
        else:
            client.writer.write_eof()

        await served.owner.until(lambda: served.owner.lost == served.owner.waiting)
        served.owner.waiting[0].admit(None)

        assert served.owner.visitors == []
        client.hang_up()


async def test_who_is_not_decided_on_in_time_is_turned_away(serve: Serve) -> None:
    async with serve(handshake_timeout=0.05) as served:
        client = await waiting(served)

        assert (await client.ended()).startswith(b"HTTP/1.1 503 ")
        assert served.owner.lost == served.owner.waiting
        assert served.counters["handshake.undecided"] == 1
        client.hang_up()


async def test_who_says_too_much_at_the_door_is_turned_away(serve: Serve) -> None:
    async with serve() as served:
        client = await waiting(served)
        client.writer.write(bytes(3 * MAX_REQUEST))

        assert (await client.ended()).startswith(b"HTTP/1.1 400 ")
        assert served.owner.lost == served.owner.waiting
        client.hang_up()
