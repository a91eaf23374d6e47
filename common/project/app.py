"""A lobby: what one client says, all hear."""

from gatecrew import App, Client, Request

app = App()


@app.on_connect
async def hello(client: Client, request: Request) -> None:
    """Let a client in; ``request`` has its path, query and headers."""
    client.join("lobby")
    client.send("welcome")


@app.on_message
async def say(client: Client, data: str | bytes) -> None:
    """Send what a client says to everybody in the lobby."""
    app.group("lobby").send(data)
