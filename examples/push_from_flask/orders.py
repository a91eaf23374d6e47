"""The handlers: a browser says once whose it is, with a token that the web site gave it."""

from __future__ import annotations

import json
import os

from gatecrew import App, Client, Request
from itsdangerous import BadSignature, URLSafeTimedSerializer

tokens = URLSafeTimedSerializer(os.environ["SITE_SECRET"], salt="websocket")
app = App()


@app.on_connect
async def on_connect(client: Client, request: Request) -> None:
    try:
        customer = tokens.loads(request.query.get("token", ""), max_age=60)
    except BadSignature:
        client.close(code=4401, reason="reload the page")
    else:
        client.bind(customer)
        client.send(json.dumps({"hello": customer}))
