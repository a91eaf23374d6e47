"""What the cluster is measured against: one process, the sans-I/O core of websockets on uvloop, and nothing else.

    python bare.py PORT

It has no keep-alive, no write limits and no orderly close. It speaks the conventions of wsload: ``e`` is sent back
through ``send_text``; ``a`` is made a frame once and written to every transport; the rest is ignored.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

ECHO = ord("e")
ALL = ord("a")

transports: dict[asyncio.Transport, None] = {}  # in the order of their opening


class Bare(asyncio.Protocol):
    """One client's socket."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.protocol = ServerProtocol()

    def data_received(self, data: bytes) -> None:
        protocol = self.protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
                transports[self.transport] = None
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                data = bytes(event.data)
                if data[0] == ECHO:
                    protocol.send_text(data)
                elif data[0] == ALL:
                    write_to_all(data)
        if output := protocol.data_to_send():
            self.transport.write(b"".join(output))
        if protocol.close_expected():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        transports.pop(self.transport, None)


def write_to_all(data: bytes) -> None:
    """The loop that fan-out is measured against."""
    frame = Frame(Opcode.TEXT, data).serialize(mask=False)
    for transport in transports:
        transport.write(frame)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
