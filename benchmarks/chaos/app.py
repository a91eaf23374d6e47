"""The handlers that are put through it. They record nothing, but who is gone.

``e...`` comes back; ``gGROUP ...`` goes to a group; ``jGROUP`` joins one; ``fBYTES`` brings so many bytes.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from gatecrew import App, Client, Request

CLOSED = Path("closed.txt")  #: where all workers were started: an id and a reason in each line

app = App()


@app.on_connect
async def on_connect(client: Client, request: Request) -> None:
    client.send(f"i{client.id}")


@app.on_message
async def on_message(client: Client, data: str | bytes) -> None:
    assert isinstance(data, str)
    match data[0]:
        case "e":
            client.send(data)
        case "g":
            await asyncio.sleep(0.001)  # others of this worker get in between
            app.send_to_group(data[1:].partition(" ")[0], data)
        case "j":
            client.join(data[1:])
            client.send(data)
        case "f":
            client.send("x" * int(data[1:]))


@app.on_close
def on_close(client: Client, code: int, reason: str) -> None:
    with CLOSED.open("a") as closed:
        closed.write(f"{client.id} {reason}\n")
