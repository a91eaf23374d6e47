"""Clients that come too fast, say too much or never finish, through real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from gatecrew.common import reasons
from gatecrew.gateway import limits, websocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, Frame

from .test_websocket import Raw, raw, request

if TYPE_CHECKING:
    from .conftest import Serve, Served, Visitor

PINGS = Frame(PING, b"x").serialize(mask=True)


async def closed_with(client: Raw) -> tuple[int, str]:
    """Read up to the close frame."""
    while (frame := await client.frame()).opcode is not CLOSE:
        pass
    return int.from_bytes(frame.data[:2]), bytes(frame.data[2:]).decode()


async def cut(served: Served) -> bytes:
    """Connect, and return what comes until the end."""
    reader, writer = await served.raw()
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


class TestComing:
    """How many, from where, and how fast."""

    @pytest.mark.parametrize(
        ("settings", "why"),
        [
            ({"max_connections": 2}, "no_room"),
            ({"address_connections": 2}, "address_full"),
            ({"address_rate": 0.2}, "address_rate"),
        ],
    )
    async def test_more_than_may_come_are_cut_off_and_counted(
        self, serve: Serve, settings: dict[str, float], why: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve(**settings) as served:
            clients = [await raw(served) for _ in range(2)]

            assert [await cut(served) for _ in range(2)] == [b"", b""]
            assert served.counters == {f"handshake.{why}": 2}
            (record,) = caplog.records
            assert "[gateway] " in record.getMessage()
            assert "127.0.0.1" in record.getMessage()
            for client in clients:
                client.hang_up()

    async def test_who_left_makes_room(self, serve: Serve) -> None:
        async with serve(address_connections=1) as served:
            for _ in range(3):
                client = await raw(served)
                client.hang_up()
                assert await served.listener.wait_closed(10)

        assert not served.counters

    async def test_a_handshake_has_so_many_bytes_and_no_more(self, serve: Serve) -> None:
        async with serve(max_handshake=300) as served:
            reader, writer = await served.raw()
            writer.write(request(served.url)[:-2] + b"X-Long: " + b"x" * 300 + b"\r\n\r\n")

            assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
            assert served.counters == {"handshake.refused": 1}
            writer.close()


class TestSaying:
    """How fast one may talk."""

    async def test_who_is_too_fast_is_read_no_faster_and_nothing_is_lost(self, serve: Serve) -> None:
        async with serve(message_rate=20) as served:
            client = await raw(served)
            numbers = [str(number) for number in range(110)]
            client.writer.write(b"".join(Frame(TEXT, number.encode()).serialize(mask=True) for number in numbers))

            await served.owner.until(lambda: len(served.owner.messages) == 110)
            assert served.owner.messages == numbers
            assert served.counters["clients.held_back"] > 0
            client.hang_up()

    @pytest.mark.parametrize(
        "frame",
        [
            PINGS,
            Frame(PONG, b"").serialize(mask=True),
            Frame(TEXT, b"").serialize(mask=True),
            Frame(BINARY, b"x" * 100_000).serialize(mask=True),
            Frame(BINARY, b"", False).serialize(mask=True) + Frame(CONT, b"").serialize(mask=True),
        ],
        ids=["pings", "pongs", "tiny messages", "giant messages", "fragments"],
    )
    async def test_who_does_not_slow_down_is_closed(
        self, serve: Serve, frame: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "SAVED", 0.1)
        async with serve(message_rate=100, byte_rate=100_000, rate_patience=0) as served:
            client = await raw(served)
            flood = asyncio.ensure_future(self.flood(client, frame))

            assert await served.owner.goodbye() == (1008, "too_many")
            assert served.counters["closed.too_many"] == 1
            flood.cancel()
            client.hang_up()

    async def flood(self, client: Raw, frame: bytes) -> None:
        with contextlib.suppress(OSError):
            while True:
                client.writer.write(frame * 20)
                await client.writer.drain()
                await asyncio.sleep(0)

    async def test_what_is_inflated_counts(self, serve: Serve) -> None:
        settings = {"byte_rate": 1_000_000, "rate_patience": 0, "compression": True}
        async with serve(**settings) as served, connect(served.url, proxy=None) as client:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await client.send("x" * 500_000)  # half a KiB, when compressed
                    await asyncio.sleep(0.01)
            assert client.close_code == 1008
            assert served.counters["closed.too_many"] == 1

    async def test_between_pieces_of_a_flood_it_is_the_turn_of_others(self, serve: Serve) -> None:
        async with serve(message_rate=0) as served:
            flooder, other = await raw(served), await raw(served)
            await served.owner.until(lambda: len(served.owner.visitors) == 2)
            connection = served.owner.visitors[0].connection
            order: list[str] = []
            served.owner.on_message = lambda visitor, data: order.append(str(data)[:1])
            other.send(TEXT, b"other")
            connection.data_received(Frame(TEXT, b"flood").serialize(mask=True) * 20_000)
            await served.owner.until(lambda: len(order) == 20_001)

            assert order.index("o") < 20_000
            flooder.hang_up()
            other.hang_up()

    async def test_what_was_read_waits_while_its_owner_pauses(self, serve: Serve) -> None:
        async with serve() as served:
            client = await raw(served)
            connection = (await served.owner.first()).connection
            served.owner.on_message = lambda visitor, data: visitor.connection.pause()
            connection.data_received(Frame(TEXT, b"x" * 1000).serialize(mask=True) * 40)

            assert len(served.owner.messages) < 20
            served.owner.on_message = lambda visitor, data: None
            connection.resume()
            await served.owner.until(lambda: len(served.owner.messages) == 40)
            client.hang_up()

    async def test_a_close_frame_behind_what_waits_is_found_when_it_is_closed(self, serve: Serve) -> None:
        async with serve(close_timeout=50.0) as served:
            client = await raw(served)
            connection = (await served.owner.first()).connection
            served.owner.on_message = lambda visitor, data: visitor.connection.pause()
            close = Frame(CLOSE, b"\x03\xe8").serialize(mask=True)
            connection.data_received(Frame(TEXT, b"x" * 1000).serialize(mask=True) * 40 + close)
            connection.close(1000, "")

            assert await closed_with(client) == (1000, "")
            assert await client.ended() == b""
            client.hang_up()
            assert await served.listener.wait_closed(10)


class TestNotFinishing:
    """Messages without an end, and clients without messages."""

    async def test_a_message_has_so_many_fragments_and_no_more(self, serve: Serve) -> None:
        async with serve(max_fragments=3) as served:
            client = await raw(served)
            client.send(BINARY, b"", False)
            for _ in range(3):
                client.send(CONT, b"", False)

            assert await closed_with(client) == (1008, "a message of more than 3 fragments")
            assert served.counters == {"closed.too_many_fragments": 1}
            client.hang_up()

    @pytest.mark.parametrize(
        "begin",
        [
            Frame(TEXT, b"a", False).serialize(mask=True),
            Frame(BINARY, b"x" * 50_000).serialize(mask=True)[:10_000],
            Frame(BINARY, b"x" * 50_000, False).serialize(mask=True)[:10_000],
        ],
        ids=["a fragment", "a part of a frame", "a part of a fragment"],
    )
    async def test_a_message_must_be_finished_in_time(self, serve: Serve, begin: bytes) -> None:
        async with serve(message_timeout=0.05) as served:
            client = await raw(served)
            for _ in range(3):  # that others were finished is no excuse
                client.writer.write(
                    Frame(BINARY, b"a", False).serialize(mask=True) + Frame(CONT, b"b").serialize(mask=True)
                )
            client.writer.write(begin)

            assert await closed_with(client) == (1008, "message_timeout")
            assert served.counters == {"closed.message_timeout": 1}
            client.hang_up()

    async def test_who_finishes_one_message_after_the_other_is_not_late(self, serve: Serve) -> None:
        async with serve(message_timeout=0.02) as served:
            client = await raw(served)
            for number in range(20):
                client.send(BINARY, b"a", False)
                await asyncio.sleep(0.005)
                client.send(CONT, b"b")
                await served.owner.until(lambda sent=number: len(served.owner.messages) > sent)  # type: ignore[misc]

            assert not served.owner.closed_with
            client.hang_up()

    async def test_who_sends_no_message_is_idle_whatever_it_pings(self, serve: Serve) -> None:
        async with serve(idle_timeout=0.05, message_rate=0) as served:
            client = await raw(served)
            while not served.owner.closed_with:
                client.writer.write(PINGS)
                await asyncio.sleep(0.005)

            assert await closed_with(client) == (1008, "idle")
            assert served.counters == {"closed.idle": 1}
            client.hang_up()

    async def test_who_breaks_the_rules_gets_the_answers_to_what_it_said_before(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(websocket, "_LINGER", 0.3)

        def answer(visitor: Visitor, data: str | bytes) -> None:
            asyncio.get_running_loop().call_later(0.001, visitor.connection.send, data)

        async with serve() as served:
            served.owner.on_message = answer
            client = await raw(served)
            client.writer.write(Frame(TEXT, b"before").serialize(mask=True) + b"\xff" * 10)

            assert bytes((await client.frame()).data) == b"before"
            assert (await closed_with(client))[0] == 1002
            client.hang_up()
            assert served.counters == {f"closed.{reasons.PROTOCOL_ERROR.name}": 1}

    async def test_a_bomb_is_not_inflated(self, serve: Serve) -> None:
        bomb = bytes(20 << 20)
        async with serve(compression=True, max_message=100_000) as served, connect(served.url, proxy=None) as client:
            client.transport.write(Frame(BINARY, bomb).serialize(mask=True, extensions=client.protocol.extensions))
            await client.wait_closed()

            assert client.close_code == 1009
            assert served.counters == {"closed.too_big": 1}
            assert served.owner.messages == []
