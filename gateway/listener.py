"""Where clients come in: several addresses, one timer for all their connections, and the steps of going away."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ..common.addresses import parse
from ..common.errors import ListenError
from .stream import Owner, Shared
from .websocket import WebSockets

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable

    from ..common.addresses import Address
    from ..common.config import GatewayConfig
    from ..common.reasons import Reason
    from .pages import Pages

BACKLOG: Final = 4096  #: connections that wait to be accepted; with asyncio's 100 a storm of them costs seconds
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
            ``handshake.no_room`` for each that was cut off at once because there were as many as the system allows, and
            ``aborted.close_timeout`` for each that did not hang up in time.
        pages: what plain HTTP requests get.

    To stop: :meth:`stop_accepting`, :meth:`send_away`, :meth:`wait_closed`, :meth:`abort_clients`.

    """

    def __init__(
        self, config: GatewayConfig, owner: Owner, counters: Counter[str], *, pages: Pages | None = None
    ) -> None:
        self._config = config
        self._owner = owner
        self._counters = counters
        self._pages = pages
        self._servers: list[asyncio.Server] = []
        self._shared: Shared | None = None
        self._timer: asyncio.Handle | None = None
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
        config = self._config
        room = min(_room(), config.max_connections or sys.maxsize)
        self._shared = shared = Shared(config, [config], self._owner, self._counters, loop.time, room=room)
        urls = []
        try:
            for text in config.listen:
                address = parse(text, "ws")
                sockets = await _bind(text, address)
                url = address.with_port(sockets[0].getsockname()[1])
                urls.append(url)
                for sock in sockets:
                    make = WebSockets(shared, config, url, self._pages).connection
                    self._servers.append(await loop.create_server(make, sock=sock, backlog=BACKLOG))
        except BaseException:
            self.stop_accepting()
            raise
        self.urls = tuple(urls)
        self._timer = loop.call_later(shared.wheel.tick, self._look_after)

    def stop_accepting(self) -> None:
        """Close the listening sockets; whoever waits in their queues is turned away."""
        if self._shared is not None:
            self._shared.accepting = False
        for server in self._servers:
            server.close()
        self._servers.clear()

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
        raise ListenError(f"[gateway] listen: cannot listen on {text}: {error.strerror}") from error
    return sockets


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # several gateways share one port, and the kernel shares out the clients
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
