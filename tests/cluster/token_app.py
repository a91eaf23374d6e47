"""An application whose clients come by tokens."""

from __future__ import annotations

import json

from gatecrew import App, Client, JwtAuth, Request, TokenError

SECRET = "a secret of 32 bytes or more, as it should be"

app = App()
auth = JwtAuth(SECRET, algorithms=["HS256"])
app.on_handshake(auth)


@app.on_connect
async def hello(client: Client, request: Request) -> None:
    client.send(json.dumps([client.uid, client.subprotocol]))


@app.on_message
async def do(client: Client, data: str) -> None:
    match data.split():
        case ["renew", token]:
            try:
                await auth.renew(client, token)
            except TokenError as error:
                client.send(str(error))
                return
        case ["revoke", "uid", uid]:
            auth.revoke(app, uid=uid)
        case ["revoke", "id", token_id]:
            auth.revoke(app, token_id=token_id)
    client.send("done")
