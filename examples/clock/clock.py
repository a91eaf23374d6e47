"""Everybody gets the time, each second: from one worker, however many there are."""

from datetime import UTC, datetime

from gatecrew import App

app = App()


@app.every(1, once=True)
async def tick() -> None:
    app.send_to_all(datetime.now(UTC).strftime("%H:%M:%S"))
