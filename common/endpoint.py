"""Where a process tells how it is: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for whoever keeps it running.

HTTP for machines on a network that is trusted: GET only, a few connections at a time, each closed after its answer.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from .addresses import parse
from .errors import ConfigError, ListenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .observation import Observation

_log = logging.getLogger(__name__)
MAX_REQUEST: Final = 8192  #: bytes of a request
MAX_SCRAPERS: Final = 16  #: connections at a time; one more is cut off
PATIENCE: Final = 5.0  #: seconds that each may take for its request, and then to read the answer
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"  # as Prometheus calls its format
_TEXT: Final = "text/plain; charset=utf-8"

Answer = tuple[HTTPStatus, str, bytes]  # with the content type


class Endpoint:
    """One of them.

    Args:
        role: of the process.
        name: of the process.
        observe: looks at it.
    """

    def __init__(self, role: str, name: str, observe: Callable[[], Observation]) -> None:
        self._role = role
        self._name = name
        self._observe = observe
        self._page: Callable[[Observation], bytes]
        self._server: asyncio.Server | None = None
        self._scrapers: set[asyncio.Task[None]] = set()

    async def start(self, listen: str) -> str:
        """Listen at an address, the first free one of a range of ports; return which it is.

        Raises:
            ConfigError: if the library for it is not installed.
            ListenError: if the address cannot be listened on.
        """
        if importlib.util.find_spec("prometheus_client") is None:
            raise ConfigError("[metrics] listen: prometheus_client is not installed: pip install 'gatecrew[metrics]'")
        from . import metrics  # noqa: PLC0415  # an extra; and so slow to import that it must not be at the first scrape

        self._page = partial(metrics.page, self._role, self._name)
        address = parse(listen, "http", ports=True)
        host = None if address.host == "*" else address.host
        problem = ""
        for port in range(address.first, address.last + 1):
            try:
                self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_REQUEST)
            except OSError as error:
                problem = error.strerror or str(error)
                continue
            return f"{address.with_port(self._server.sockets[0].getsockname()[1])}/metrics"
        raise ListenError(f"[metrics] listen: cannot listen on {listen}: {problem}")

    async def stop(self) -> None:
        """Cut off whoever still reads, and listen no more."""
        if self._server is not None:
            self._server.close()
        for scraper in self._scrapers:
            scraper.cancel()
        if self._scrapers:
            await asyncio.wait(self._scrapers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "the server gives each connection a task"
        self._scrapers.add(task)
        try:
            if len(self._scrapers) <= MAX_SCRAPERS:
                async with asyncio.timeout(PATIENCE):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._response(head))
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it hung up, is too slow, or speaks something else
        finally:
            writer.transport.abort()
            self._scrapers.discard(task)

    def _response(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin1")
        try:
            status, kind, body = (
                self._answer(path) if method in (b"GET", b"HEAD") else _plain(HTTPStatus.METHOD_NOT_ALLOWED)
            )
        except Exception:  # noqa: BLE001  # whoever looks must not harm the process
            _log.exception("%s cannot be answered", path)
            status, kind, body = _plain(HTTPStatus.INTERNAL_SERVER_ERROR)
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(["Allow: GET, HEAD"] if status is HTTPStatus.METHOD_NOT_ALLOWED else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + (body if method == b"GET" else b"")

    def _answer(self, path: str) -> Answer:
        match path:
            case "/metrics":
                return HTTPStatus.OK, _METRICS, self._page(self._observe())
            case "/healthz":
                return _plain(HTTPStatus.OK, "ok")
            case "/readyz":
                unready = self._observe().unready
                return _plain(HTTPStatus.SERVICE_UNAVAILABLE, unready) if unready else _plain(HTTPStatus.OK, "ok")
        return _plain(HTTPStatus.NOT_FOUND)


def _plain(status: HTTPStatus, text: str = "") -> Answer:
    return status, _TEXT, f"{text or status.phrase}\n".encode()
