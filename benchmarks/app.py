"""The handlers under test: the conventions of wsload."""

from __future__ import annotations

from gatecrew import App, Client

app = App()


@app.on_message
async def on_message(client: Client, data: str | bytes) -> None:
    match data[:1]:
        case "e":
            client.send(data)
        case "a":
            app.send_to_all(data)
        case "b":
            app.send_to_group("all", data)
        case "j":
            client.join("all")
            client.send("j")
