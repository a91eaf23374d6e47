"""Listeners: addresses, and the steps of going away."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from gatecrew.common import reasons
from gatecrew.common.config import GatewayConfig
from gatecrew.common.errors import ListenError
from gatecrew.gateway.listener import Listener
from websockets.asyncio.client import connect

if TYPE_CHECKING:
    from .conftest import Recorder, Serve

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def test_several_addresses_at_once(serve: Serve) -> None:
    async with serve(listen=("ws://127.0.0.1:0", "ws://[::1]:0", "ws://localhost:0")) as served:
        urls = served.listener.urls
        assert len(set(urls)) == 3
        for number, url in enumerate(urls):
            async with connect(url):
                await served.owner.until(lambda: len(served.owner.visitors) > number)  # noqa: B023
                assert served.owner.visitors[-1].handshake.listener == url
        assert urls[1].startswith("ws://[::1]:")
        assert served.owner.visitors[1].handshake.remote.startswith("[::1]:")


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "[::]"])
async def test_all_addresses_of_the_machine(serve: Serve, host: str) -> None:
    async with serve(listen=(f"ws://{host}:0",)) as served:
        there = "[::1]" if host == "[::]" else "127.0.0.1"
        async with connect(f"ws://{there}:{served.port}"):
            await served.owner.first()


async def test_several_gateways_share_a_port(serve: Serve) -> None:
    async with serve() as first, serve(listen=(first.url,)) as second:
        assert first.url == second.url


async def test_an_address_that_cannot_be_had_is_an_error(recorder: Recorder) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    url = "ws://{}:{}".format(*taken.getsockname())
    listener = Listener(GatewayConfig(listen=("ws://127.0.0.1:0", url)), recorder, Counter())
    with taken, pytest.raises(ListenError, match=r"listen: cannot listen on ws://127.0.0.1:[0-9]+: Address already"):
        await listener.start()

    assert listener.urls == ()
    await listener.abort_clients()


async def test_a_host_that_is_not_known_is_an_error(recorder: Recorder) -> None:
    listener = Listener(GatewayConfig(listen=("ws://host.invalid:0",)), recorder, Counter())
    with pytest.raises(ListenError, match=r"cannot listen on ws://host\.invalid:0"):
        await listener.start()


async def test_who_goes_away_is_told_when_to_come_back(serve: Serve) -> None:
    async with serve() as served:
        clients = [await connect(served.url) for _ in range(3)]
        await served.owner.until(lambda: len(served.owner.visitors) == 3)
        served.listener.stop_accepting()
        with pytest.raises(OSError, match=r"refused|failed|reset"):
            await served.raw()
        assert served.listener.staying == 3

        await served.listener.send_away(reasons.GATEWAY_STOPPING, [0.0004, 2.35])

        assert served.listener.staying == 1
        told = ["gateway_stopping retry=0", "gateway_stopping retry=2350"]
        assert served.owner.closed_with == [(1012, text) for text in told]
        (stays,) = (visitor.connection for visitor in served.owner.visitors if visitor.connection.open)
        stays.send("still here")

        await served.listener.send_away(reasons.GATEWAY_STOPPING, [1.0, 2.0, 3.0])

        assert await served.listener.wait_closed(10)
        told.append("gateway_stopping retry=1000")
        for client in clients:
            await client.wait_closed()
            assert client.close_code == 1012
        assert sorted(str(client.close_reason) for client in clients) == sorted(told)
        assert served.counters == {"closed.gateway_stopping": 3}


async def test_who_has_not_opened_yet_is_cut(serve: Serve) -> None:
    async with serve() as served:
        reader, writer = await served.raw()
        while not served.listener.staying:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0)

        await served.listener.send_away(reasons.GATEWAY_STOPPING, [1.0])

        assert await served.listener.wait_closed(10)
        assert await reader.read() == b""
        writer.close()


async def test_who_does_not_hang_up_is_waited_for_until_the_deadline(serve: Serve) -> None:
    async with serve() as served:
        reader, writer = await served.raw()
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        assert len(served.listener) == 1
        assert not await served.listener.wait_closed(0.01)
        await served.listener.abort_clients()
        assert await served.listener.wait_closed(0)
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


async def test_sending_many_away_takes_several_turns(serve: Serve) -> None:
    async with serve() as served:
        clients = [await connect(served.url, proxy=None) for _ in range(300)]
        await served.owner.until(lambda: len(served.owner.visitors) == 300)
        closing = asyncio.ensure_future(served.listener.send_away(reasons.GATEWAY_STOPPING, [0.0] * 300))
        await served.owner.until(lambda: served.owner.closed_with)
        assert 0 < len(served.owner.closed_with) < 300
        await closing
        assert len(served.owner.closed_with) == 300
        for client in clients:
            await client.wait_closed()


async def test_what_was_never_started_can_be_stopped(recorder: Recorder) -> None:
    listener = Listener(GatewayConfig(), recorder, Counter())
    listener.stop_accepting()
    await listener.send_away(reasons.GATEWAY_STOPPING, [0.0])
    assert await listener.wait_closed(0)
    await listener.abort_clients()

    assert len(listener) == listener.staying == 0


async def test_more_pings_than_fit_into_one_turn(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatecrew.gateway.listener._AT_ONCE", 1)
    async with serve(ping_interval=0.02, missed_pongs=1, close_timeout=1.0) as served:
        streams = []
        for _ in range(5):
            streams.append(await served.raw())
            streams[-1][1].write(HANDSHAKE)

        await served.owner.until(lambda: len(served.owner.closed_with) == 5)
        assert served.counters["closed.pong_missed"] == 5
        for _, writer in streams:
            writer.close()


async def test_there_is_room_for_as_many_connections_as_the_system_allows_files(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4, 4))  # one of them is to spare
    async with serve() as served:
        first, *others = [await served.raw() for _ in range(3)]
        while len(served.listener) < 3:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0)
        for _ in range(2):
            reader, writer = await served.raw()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        assert served.counters == {"handshake.no_room": 2}
        assert [record.levelname for record in caplog.records] == ["ERROR"]

        first[1].close()
        while len(served.listener) > 2:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0)
        async with connect(served.url, compression=None, proxy=None):
            assert served.counters["handshake.no_room"] == 2
        for _, writer in others:
            writer.close()
