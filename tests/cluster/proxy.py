"""A link that can be broken: a proxy that takes the place of an ipc socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

#: What becomes of bytes on a noisy link: nowhere in ZMTP, MessagePack or UTF-8 is this byte allowed.
NOISE: Final = b"\xc1"


class Fault(Enum):
    """What may happen to a link."""

    CUT = "cut"  #: connections break, and none comes about
    STALL = "stall"  #: bytes wait
    SWALLOW = "swallow"  #: bytes disappear, and nobody is told
    NOISE = "noise"  #: other bytes arrive


class Proxy:
    """Listens at the path of a socket for who connects from now on, and passes on what is said, unless there is a fault.

    Args:
        path: of a unix socket at which somebody listens.
    """

    def __init__(self, path: Path) -> None:
        self._real = path.with_suffix(".real")
        path.rename(self._real)
        self._fault: Fault | None = None
        self._pid: int | None = None
        self._healed = asyncio.Event()
        self._connections: dict[asyncio.Task[None], int] = {}  # and the process that connected
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy of {path.name}")
        self._thread.start()
        self._server = self._do(asyncio.start_unix_server(self._serve, path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def break_(self, fault: Fault, pid: int | None = None) -> None:
        """Let a fault begin, on the links of all processes that connected here or of this one."""
        self._do(self._break(fault, pid))

    def heal(self) -> None:
        """Let the fault end. Connections that lost bytes break, as they do when TCP gives up."""
        self._do(self._heal())

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _break(self, fault: Fault, pid: int | None) -> None:
        self._fault, self._pid = fault, pid
        self._healed.clear()
        if fault is Fault.CUT:
            await self._cut()

    async def _heal(self) -> None:
        if self._fault is Fault.SWALLOW:
            await self._cut()
        self._fault = None
        self._healed.set()

    async def _cut(self) -> None:
        await _end([task for task, pid in self._connections.items() if self._pid in (None, pid)])

    async def _close(self) -> None:
        self._server.close()
        await _end(list(self._connections))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = pid = _peer(writer)
        writers = [writer]
        try:
            if self._hits(pid) is Fault.CUT:
                return
            far_reader, far_writer = await asyncio.open_unix_connection(self._real)
            writers.append(far_writer)
            ways = [self._pass_on(pid, reader, far_writer), self._pass_on(pid, far_reader, writer)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end(tasks)
        except (OSError, asyncio.CancelledError):
            pass  # nobody listens there any more, or the link is cut
        finally:
            del self._connections[task]
            for each in writers:
                each.transport.abort()

    async def _pass_on(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                match self._hits(pid):
                    case Fault.STALL:
                        await self._healed.wait()
                    case Fault.SWALLOW:
                        continue
                    case Fault.NOISE:
                        data = NOISE * len(data)
                writer.write(data)
                await writer.drain()

    def _hits(self, pid: int) -> Fault | None:
        return self._fault if self._pid in (None, pid) else None


async def _end(tasks: list[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _peer(writer: asyncio.StreamWriter) -> int:
    """Return the process at the other end."""
    sock: socket.socket = writer.get_extra_info("socket")
    pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)
