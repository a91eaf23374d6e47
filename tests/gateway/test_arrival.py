"""What comes before a client speaks: TLS, and what a proxy says of it. Through real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from gatecrew.common.errors import ConfigError
from gatecrew.gateway import arrival, listener
from gatecrew.gateway.proxy import SIGNATURE
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from .authority import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gatecrew.gateway.handshake import Handshake
    from gatecrew.gateway.stream import Stream

    from .conftest import Serve, Served, Visitor

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> str:
    """The options of a listener with a certificate."""
    cert, key = authority.issue("gateway")
    return f"tls_cert={cert}&tls_key={key}"


@contextlib.asynccontextmanager
async def device(served: Served, context: ssl.SSLContext | None = None) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.close()


def echo(visitor: Visitor, data: str | bytes) -> None:
    visitor.connection.send(data)


def header(address: str, port: int, *, command: int = 0x21) -> bytes:
    """Return a header of the PROXY protocol for a client."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    body = (
        packed + bytes(len(packed)) + struct.pack("!HH", port, 443) + b"\x04\0\1x"
    )  # and a field that is not looked at
    return SIGNATURE + struct.pack("!BBH", command, 0x21 if ":" in address else 0x11, len(body)) + body


class TestTls:
    async def test_websockets(self, serve: Serve, authority: Authority, tls: str) -> None:
        async with serve(listen=(f"wss://127.0.0.1:0?{tls}",)) as served:
            served.owner.on_message = echo
            async with connect(served.url, ssl=authority.client()) as client:
                assert served.url.startswith("wss://")
                for message in ("hello", "x" * 1_000_000):
                    await client.send(message)
                    assert await client.recv() == message
                connection = (await served.owner.first()).connection
                assert connection.remote.startswith("127.0.0.1:")
                connection.close(4000, "enough")
                await client.wait_closed()
                assert client.close_code == 4000

    async def test_pages_and_refusals(self, serve: Serve, authority: Authority, tls: str) -> None:
        async with (
            serve(listen=(f"wss://127.0.0.1:0?{tls}",)) as served,
            device(served, authority.client()) as (reader, writer),
        ):
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 426 ")

    async def test_lines(self, serve: Serve, authority: Authority, tls: str) -> None:
        async with serve(listen=(f"tls://127.0.0.1:0?{tls}",)) as served:
            served.owner.on_message = echo
            async with device(served, authority.client()) as (reader, writer):
                writer.write(b"hello\n")
                assert await reader.readline() == b"hello\n"
                connection = (await served.owner.first()).connection
                connection.send("x" * 1_000_000)
                connection.close(4000, "enough")
                assert await reader.read() == b"x" * 1_000_000 + b"\n"
            assert await served.listener.wait_closed(10)
            assert await served.owner.goodbye() == (4000, "enough")

    async def test_what_comes_with_the_handshake_waits_for_a_decision(
        self, serve: Serve, authority: Authority, tls: str
    ) -> None:
        async with serve(listen=(f"tls://127.0.0.1:0?{tls}",)) as served:
            arrived = asyncio.Event()

            def wait(connection: Stream, handshake: Handshake) -> object:
                served.owner.waiting.append(connection)
                arrived.set()
                return connection

            served.owner.on_arrival = wait
            async with device(served, authority.client()) as (_, writer):
                writer.write(b"early\n")
                await arrived.wait()
                served.owner.waiting[0].admit(None)
                await served.owner.until(lambda: served.owner.messages == ["early"])

    async def test_a_slow_client_is_closed_at_its_limit(self, serve: Serve, authority: Authority, tls: str) -> None:
        options = f"{tls}&client_buffer=100000"
        async with serve(listen=(f"tls://127.0.0.1:0?{options}",)) as served, device(served, authority.client()):
            connection = (await served.owner.first()).connection
            while connection.open:
                connection.send("x" * 10_000)  # asyncio's own reader takes 128 KiB and no more
                await asyncio.sleep(0)
            assert (await served.owner.goodbye())[0] == 1013

    async def test_no_tls_below_1_2(self, serve: Serve, authority: Authority, tls: str) -> None:
        old = authority.client()
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        async with serve(listen=(f"tls://127.0.0.1:0?{tls}",)) as served:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with device(served, old):
                    pass  # pragma: no cover
            await until_gone(served)
            assert served.counters == {"handshake.failed": 1}

    async def test_who_speaks_no_tls_is_cut_off(self, serve: Serve, tls: str) -> None:
        async with serve(listen=(f"wss://127.0.0.1:0?{tls}",)) as served, device(served) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
            await until_gone(served)
            assert served.counters == {"handshake.failed": 1}

    async def test_who_is_slow_to_begin_is_cut_off(self, serve: Serve, tls: str) -> None:
        async with (
            serve(listen=(f"wss://127.0.0.1:0?{tls}",), open_timeout=0.05) as served,
            device(served) as (reader, _),
        ):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            await until_gone(served)
            assert not served.owner.visitors

    async def test_who_begins_when_the_gateway_stops_is_cut_off(self, serve: Serve, tls: str) -> None:
        async with serve(listen=(f"wss://127.0.0.1:0?{tls}",)) as served, device(served) as (reader, _):
            await until(lambda: served.listener.staying)
            await served.listener.abort_clients()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""

    async def test_certificates_of_clients(self, serve: Serve, authority: Authority, tls: str) -> None:
        names = [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Pumps, Inc."),
            x509.NameAttribute(NameOID.COMMON_NAME, "pump-7"),
        ]
        options = f"{tls}&tls_client_ca={authority.cert}"
        listen = (f"tls://127.0.0.1:0?{options}", f"wss://127.0.0.1:0?{options}")
        pump = authority.client(*authority.issue("pump", *names))
        async with serve(listen=listen) as served:
            async with device(served, pump):
                await served.owner.first()
            forged = {"TLS-Client-Subject": "CN=boss"}
            async with connect(served.listener.urls[1], ssl=pump, additional_headers=forged):
                pass
            told = [
                [value for name, value in visitor.handshake.headers if name.lower() == "tls-client-subject"]
                for visitor in served.owner.visitors
            ]
            assert told == [[r"CN=pump-7,O=Pumps\, Inc."]] * 2

            with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
                async with device(served, authority.client()) as (reader, _):
                    await reader.readexactly(1)
            assert len(served.owner.visitors) == 2

    async def test_nobody_can_say_whose_certificate_he_has(self, serve: Serve) -> None:
        async with serve() as served, connect(served.url, additional_headers={"TLS-Client-Subject": "CN=boss"}):
            headers = (await served.owner.first()).handshake.headers
            assert "tls-client-subject" not in {name.lower() for name, _ in headers}

    async def test_new_certificates_are_for_new_connections(
        self, serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(listener, "REFRESH", 0.01)
        cert, key = authority.issue("changing", x509.NameAttribute(NameOID.COMMON_NAME, "old"))

        async def shown() -> str:
            async with device(served, authority.client()) as (_, writer):
                return str(writer.get_extra_info("peercert")["subject"][0][0][1])

        async with serve(listen=(f"tls://127.0.0.1:0?tls_cert={cert}&tls_key={key}",)) as served:
            served.owner.on_message = echo
            async with device(served, authority.client()) as (reader, writer):
                assert await shown() == "old"
                Path(authority.issue("other")[1]).replace(key)  # noqa: ASYNC240
                await until(lambda: "the listener goes on with what it had" in caplog.text)
                assert await shown() == "old"

                authority.issue("changing", x509.NameAttribute(NameOID.COMMON_NAME, "new"))
                while await shown() != "new":
                    pass
                writer.write(b"old ones stay\n")
                assert await reader.readline() == b"old ones stay\n"

    @pytest.mark.parametrize("key", ["tls_cert", "tls_key", "tls_client_ca"])
    async def test_what_cannot_be_read_is_an_error(self, serve: Serve, tls: str, tmp_path: Path, key: str) -> None:
        junk = tmp_path / "junk.pem"
        junk.write_text("junk")
        options = "&".join([*(part for part in tls.split("&") if not part.startswith(key)), f"{key}={junk}"])
        with pytest.raises(ConfigError, match=rf"\[gateway\] .*{key}.*: cannot use .*junk\.pem"):
            async with serve(listen=(f"tls://127.0.0.1:0?{options}",)):
                pass  # pragma: no cover


class TestProxy:
    LINES = ("tcp://127.0.0.1:0?proxy_protocol=true&trusted_proxies=127.0.0.0/8",)

    @pytest.mark.parametrize(
        ("address", "remote"), [("192.0.2.7", "192.0.2.7:5000"), ("2001:db8::7", "[2001:db8::7]:5000")]
    )
    async def test_a_proxy_says_where_a_client_is(self, serve: Serve, address: str, remote: str) -> None:
        async with serve(listen=self.LINES) as served, device(served) as (reader, writer):
            served.owner.on_message = echo
            for byte in header(address, 5000):
                writer.write(bytes([byte]))
                await writer.drain()
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            (visitor,) = served.owner.visitors
            assert visitor.handshake.remote == remote

    async def test_all_in_one_piece(self, serve: Serve) -> None:
        async with serve(listen=self.LINES) as served, device(served) as (_, writer):
            writer.write(header("192.0.2.7", 5000) + b"hello\n")
            await served.owner.until(lambda: served.owner.messages == ["hello"])

    async def test_the_checks_of_a_proxy_come_from_the_proxy(self, serve: Serve) -> None:
        async with serve(listen=self.LINES) as served, device(served) as (_, writer):
            writer.write(SIGNATURE + b"\x20\0\0\0")
            assert (await served.owner.first()).handshake.remote.startswith("127.0.0.1:")

    async def test_before_websockets_and_before_tls(self, serve: Serve, authority: Authority, tls: str) -> None:
        options = "proxy_protocol=true&trusted_proxies=127.0.0.1"
        listen = (f"wss://127.0.0.1:0?{tls}&{options}", f"ws://127.0.0.1:0?{options}")
        async with serve(listen=listen) as served:
            served.owner.on_message = echo
            for url, context in zip(served.listener.urls, (authority.client(), None), strict=True):
                sock = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
                sock.sendall(header("192.0.2.7", 5000))
                async with connect(url, sock=sock, ssl=context) as client:
                    await client.send("hello")
                    assert await client.recv() == "hello"
            assert [visitor.handshake.remote for visitor in served.owner.visitors] == ["192.0.2.7:5000"] * 2

    async def test_a_stranger_is_no_proxy(self, serve: Serve) -> None:
        listen = ("tcp://127.0.0.1:0?proxy_protocol=true&trusted_proxies=10.0.0.0/8",)
        async with serve(listen=listen) as served, device(served) as (reader, writer):
            writer.write(header("192.0.2.7", 5000) + b"hello\n")
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            await until_gone(served)
            assert served.counters == {"handshake.refused": 1, "handshake.untrusted_proxy": 1}
            assert not served.owner.visitors

    @pytest.mark.parametrize("said", [b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n", header("::1", 1)[:15] + b"\3abc"])
    async def test_a_header_that_is_none(self, serve: Serve, said: bytes) -> None:
        async with serve(listen=self.LINES) as served, device(served) as (reader, writer):
            writer.write(said)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            await until_gone(served)
            assert served.counters == {"handshake.refused": 1, "handshake.bad_proxy_header": 1}

    async def test_who_says_nothing_is_cut_off(self, serve: Serve) -> None:
        async with serve(listen=self.LINES, open_timeout=0.05) as served, device(served) as (reader, _):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            await until_gone(served)
            assert served.counters == {"closed.open_timeout": 1}

    async def test_each_client_counts_where_it_is(self, serve: Serve) -> None:
        async with serve(listen=self.LINES, address_connections=1) as served, contextlib.AsyncExitStack() as stack:
            for number in (7, 8, 7):
                _, writer = await stack.enter_async_context(device(served))
                writer.write(header(f"192.0.2.{number}", 5000))
            await until(lambda: served.counters)
            assert len(served.owner.visitors) == 2
            assert served.counters == {"handshake.address_full": 1, "handshake.refused": 1}


async def test_when_the_system_has_no_place_accepting_goes_on_later(
    serve: Serve, tls: str, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arrival, "_PAUSE", 0.01)
    loop = asyncio.get_running_loop()
    accept, failures = loop.sock_accept, [errno.EMFILE, errno.ECONNABORTED]

    async def full(sock: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise OSError(failures.pop(), "no place")
        return await accept(sock)

    monkeypatch.setattr(loop, "sock_accept", full)
    async with serve(listen=(f"tls://127.0.0.1:0?{tls}",)) as served, device(served, authority.client()):
        await served.owner.first()
        assert [record.message for record in caplog.records] == [f"cannot accept at {served.url}: no place"]


class TestForwarded:
    @pytest.mark.parametrize(
        ("proxies", "said", "remote"),
        [
            (("127.0.0.1",), "192.0.2.7", "192.0.2.7:0"),
            (("127.0.0.1",), "6.6.6.6, 192.0.2.7", "192.0.2.7:0"),
            (("127.0.0.1", "10.0.0.0/8"), "6.6.6.6, 192.0.2.7, 10.1.1.1", "192.0.2.7:0"),
            (("127.0.0.1",), "2001:db8::7", "[2001:db8::7]:0"),
            (("127.0.0.1",), "nonsense", "127.0.0.1"),
            (("10.0.0.0/8",), "192.0.2.7", "127.0.0.1"),
            ((), "192.0.2.7", "127.0.0.1"),
        ],
    )
    async def test_it_counts_from_a_trusted_proxy_alone(
        self, serve: Serve, proxies: tuple[str, ...], said: str, remote: str
    ) -> None:
        headers = {"X-Forwarded-For": said}
        async with (
            serve(trusted_proxies=proxies) as served,
            connect(served.url, additional_headers=headers, proxy=None),
        ):
            assert (await served.owner.first()).handshake.remote.startswith(remote)

    async def test_on_a_unix_socket(self, serve: Serve, run_dir: Path) -> None:
        path = run_dir / "nginx.sock"
        async with serve(listen=(f"unix:{path}?trusted_proxies=unix",)) as served:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
            async with connect("ws://localhost", sock=sock, additional_headers={"X-Forwarded-For": "192.0.2.7"}):
                assert (await served.owner.first()).handshake.remote == "192.0.2.7:0"

    async def test_each_client_counts_where_it_is(self, serve: Serve) -> None:
        async with serve(trusted_proxies=("127.0.0.1",), address_connections=1) as served:
            async with contextlib.AsyncExitStack() as stack:
                for number in (7, 8):
                    said = {"X-Forwarded-For": f"192.0.2.{number}"}
                    await stack.enter_async_context(connect(served.url, additional_headers=said, proxy=None))
                with pytest.raises(InvalidStatus, match="429"):
                    await connect(served.url, additional_headers=said, proxy=None)
            assert served.counters == {"handshake.address_full": 1, "handshake.refused": 1}
            await until_gone(served)
            async with connect(served.url, additional_headers=said, proxy=None):
                pass


async def until_gone(served: Served) -> None:
    await until(lambda: not len(served.listener))


async def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)
