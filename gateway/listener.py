"""Where clients come in: several addresses, one timer for all their connections, and the steps of going away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import stat
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..common.addresses import parse_listen
from ..common.config import for_listener
from ..common.errors import ConfigError, ListenError
from .arrival import Reception
from .stream import Owner, Shared
from .tcp import Streams
from .tls import Certificates
from .websocket import WebSockets

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable

    from ..common.addresses import Address, Listen
    from ..common.config import GatewayConfig
    from ..common.reasons import Reason
    from .pages import Pages

BACKLOG: Final = 4096  #: connections that wait to be accepted; with asyncio's 100 a storm of them costs seconds
REFRESH: Final = 5.0  #: seconds between looks at the files of certificates
SPARE: Final = 1000  #: open files that are not for clients but for links, logs and the like
_AT_ONCE: Final = 256  # connections that are looked after in one turn of the loop


class Listener:
    """The client side of a gateway.

    Args:
        config: the ``[gateway]`` section.
        owner: gets the clients.
        counters: gets ``closed.<reason>`` for each client that was closed from this side, ``handshake.refused``,
            ``handshake.foreign_origin`` for each of them that came from another host's page,
            ``handshake.denied`` for each that a worker refused, ``handshake.token_expired`` and ``handshake.token_revoked`` for each that
            came by such a token, ``handshake.undecided`` for each that no worker decided on in time,
            ``handshake.no_room`` for each that was cut off at once because there were as many as the system allows,
            ``handshake.untrusted_proxy`` and ``handshake.bad_proxy_header`` for each that did not begin as the PROXY protocol asks,
            ``handshake.failed`` for each with which TLS did not begin, and
            ``aborted.close_timeout`` for each that did not hang up in time.
        pages: what plain HTTP requests get.
        folder: where relative paths in the options of URLs start.

    To stop: :meth:`stop_accepting`, :meth:`send_away`, :meth:`wait_closed`, :meth:`abort_clients`.

    """

    def __init__(
        self,
        config: GatewayConfig,
        owner: Owner,
        counters: Counter[str],
        *,
        pages: Pages | None = None,
        folder: Path = Path(),
    ) -> None:
        self._config = config
        self._owner = owner
        self._counters = counters
        self._pages = pages
        self._folder = folder
        self._certificates: list[Certificates] = []
        self._paths: list[tuple[str, int]] = []  # of unix sockets, with their inodes
        self._servers: list[asyncio.Server | Reception] = []
        self._shared: Shared | None = None
        self._timer: asyncio.Handle | None = None
        self._refresher: asyncio.Handle | None = None
        self.urls: tuple[str, ...] = ()  #: where it listens, with the real ports

    def __len__(self) -> int:
        """Return how many sockets are connected, in whatever phase."""
        return len(self._shared.connections) if self._shared is not None else 0

    async def start(self) -> None:
        """Listen.

        Raises:
            ListenError: if an address cannot be listened on.

        """
        loop = asyncio.get_running_loop()
        room = min(_room(), self._config.max_connections or sys.maxsize)
        configs = [_for_listener(self._config, text, self._folder) for text in self._config.listen]
        self._shared = shared = Shared(self._config, configs, self._owner, self._counters, loop.time, room=room)
        urls = []
        try:
            for config in configs:
                (text,) = config.listen
                listen = parse_listen(text)
                entrance = self._entrance(shared, config, tls=listen.tls)
                if listen.address is None:
                    sockets = [self._bind_path(text, listen.path)]
                else:
                    sockets = await _bind(text, listen.address)
                    entrance.url = listen.address.with_port(sockets[0].getsockname()[1])
                urls.append(entrance.url)
                for sock in sockets:
                    self._servers.append(await _serve(entrance, sock, listen))
        except BaseException:
            self.stop_accepting()
            raise
        self.urls = tuple(urls)
        self._timer = loop.call_later(shared.wheel.tick, self._look_after)
        if self._certificates:
            self._refresher = loop.call_later(REFRESH, self._refresh)

    def _entrance(self, shared: Shared, config: GatewayConfig, *, tls: bool) -> WebSockets | Streams:
        (url,) = config.listen
        if config.protocol == "websocket":
            entrance: WebSockets | Streams = WebSockets(shared, config, url, self._pages)
        else:
            entrance = Streams(shared, config, url)
        if tls:
            entrance.certificates = Certificates(config.tls_cert, config.tls_key, config.tls_client_ca)
            self._certificates.append(entrance.certificates)
        return entrance

    def _bind_path(self, text: str, path: str) -> socket.socket:
        """Return a unix socket; one that somebody left behind makes place for it."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            _remove_stale(path)
            sock.bind(path)
        except OSError as error:
            sock.close()
            raise _cannot(text, error) from error
        self._paths.append((path, os.stat(path).st_ino))  # noqa: PTH116
        return sock

    def stop_accepting(self) -> None:
        """Close the listening sockets; whoever waits in their queues is turned away."""
        if self._shared is not None:
            self._shared.accepting = False
        for server in self._servers:
            server.close()
        self._servers.clear()
        for path, inode in self._paths:
            with contextlib.suppress(OSError):
                if os.stat(path).st_ino == inode:  # noqa: PTH116  # else it is somebody else's by now
                    os.unlink(path)  # noqa: PTH108
        self._paths.clear()

    @property
    def staying(self) -> int:
        """How many connections are not about to leave."""
        return sum(connection.staying for connection in self._shared.connections) if self._shared is not None else 0

    async def send_away(self, reason: Reason, slots: Iterable[float]) -> None:
        """Close as many clients as there are slots, a few in each turn, and tell each its own: when to come back, in seconds."""
        connections = list(self._shared.connections) if self._shared is not None else []
        going = zip(slots, (connection for connection in connections if connection.staying), strict=False)
        while some := list(islice(going, _AT_ONCE)):
            for slot, connection in some:
                connection.shut(reason.with_retry(slot))
            await asyncio.sleep(0)

    async def wait_closed(self, timeout: float) -> bool:  # noqa: ASYNC109  (a deadline of its own, not an error)
        """Wait until no connection is left; return whether that is so after at most so many seconds."""
        shared = self._shared
        if shared is None or not shared.connections:
            return True
        empty = asyncio.Event()
        shared.emptied = empty.set
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await empty.wait()
        finally:
            shared.emptied = None
        return not shared.connections

    async def abort_clients(self) -> None:
        """Cut all connections that are left."""
        if self._shared is not None:
            for connection in list(self._shared.connections):
                connection.abort()
            await self.wait_closed(self._shared.close_timeout)  # the loop tells in its next turn
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._refresher is not None:
            self._refresher.cancel()
            self._refresher = None

    def _refresh(self) -> None:
        for certificates in self._certificates:
            certificates.refresh()
        self._refresher = asyncio.get_running_loop().call_later(REFRESH, self._refresh)

    def _look_after(self) -> None:
        """Look after the connections whose time has come."""
        shared = self._shared
        assert shared is not None, "the timer runs between start and stop"
        due = shared.wheel.due(shared.now(), _AT_ONCE)
        for connection in due:
            connection.due()
        delay = shared.wheel.tick if len(due) < _AT_ONCE else 0
        self._timer = asyncio.get_running_loop().call_later(delay, self._look_after)


def _room() -> int:
    """Return how many connections there may be: without a file to spare, whatever else the process does would fail."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if files == resource.RLIM_INFINITY else files - min(SPARE, files // 4)


async def _bind(text: str, address: Address) -> list[socket.socket]:
    """Return a socket for each address that the host stands for, all with the same port."""
    host = None if address.host == "*" else address.host
    sockets: list[socket.socket] = []
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, address.first, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        port = address.first
        for family, kind, number, _, where in dict.fromkeys(found):
            sock = socket.socket(family, kind, number)
            sockets.append(sock)
            _prepare(sock)
            name: tuple[Any, ...] = (where[0], port, *where[2:])
            sock.bind(name)
            port = sock.getsockname()[1]
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise _cannot(text, error) from error
    return sockets


async def _serve(entrance: WebSockets | Streams, sock: socket.socket, listen: Listen) -> asyncio.Server | Reception:
    if listen.tls or entrance.config.proxy_protocol:
        return Reception(entrance, sock, BACKLOG)
    loop = asyncio.get_running_loop()
    create = loop.create_unix_server if listen.address is None else loop.create_server
    return await create(entrance.connection, sock=sock, backlog=BACKLOG)


def _cannot(text: str, error: OSError) -> ListenError:
    return ListenError(f"[gateway] listen: cannot listen on {text}: {error.strerror}")


def _for_listener(config: GatewayConfig, text: str, folder: Path) -> GatewayConfig:
    try:
        return for_listener(config, text, folder)
    except ValueError as error:
        raise ConfigError(f"[gateway] listen: {text}: {error}") from None


def _remove_stale(path: str) -> None:
    """Remove a unix socket on which nobody listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            if stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116
                os.unlink(path)  # noqa: PTH108
        except OSError:  # it is not there, or bind says what is wrong
            pass


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # several gateways share one port, and the kernel shares out the clients
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
