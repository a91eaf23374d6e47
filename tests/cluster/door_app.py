"""An application that decides who may come: tests say in the query what it shall decide."""

from __future__ import annotations

import asyncio
import json
import os

from gatecrew import Accept, App, Client, Refuse, Request

app = App()


@app.on_handshake
async def look_at_the_status(request: Request) -> Refuse | None:
    """Refuse whoever asks for it; leave the others to the next handler."""
    if "status" in request.query:
        return Refuse(int(request.query["status"]), request.query.get("reason", ""), retry_after=7)
    return None


@app.on_handshake
async def look_at_the_name(request: Request) -> Accept | None:
    match request.path:
        case "/fails":
            raise RuntimeError("no such door")
        case "/hangs":
            app.group("doormen").send(f"{os.getpid()} has {request.query['name']}")
            await app.flush()
            await asyncio.Event().wait()
        case "/kills":
            os._exit(1)
        case "/nameless":
            return None
    name = request.query["name"]
    return Accept(
        uid=name,
        device=request.query.get("device", ""),
        groups=["doormen"],
        session={"name": name},
        subprotocol=request.query.get("subprotocol"),
    )


@app.on_connect
async def hello(client: Client, request: Request) -> None:
    uids = await app.group("doormen").uids()
    client.send(json.dumps([client.uid, client.session, client.subprotocol, client.uid in uids]))


@app.on_message
async def do(client: Client, data: str) -> None:
    match data.split():
        case ["bind", uid]:
            client.bind(uid)
    client.send(f"did {data}")
