"""Everybody gets back what they say."""

from gatecrew import App, Client

app = App()


@app.on_message
async def echo(client: Client, data: str | bytes) -> None:
    client.send(data)
