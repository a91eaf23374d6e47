"""Thermometers on plain sockets and browsers, in one group: what one says, all others hear."""

from gatecrew import App, Client, Request

app = App()


@app.on_connect
async def come(client: Client, request: Request) -> None:
    client.join("house")


@app.on_message
async def say(client: Client, data: str | bytes) -> None:
    app.group("house").send(data, exclude=[client])
