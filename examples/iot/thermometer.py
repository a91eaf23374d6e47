"""A thermometer: it tells its temperature once a second, and warms up or cools down to what it is set to."""

import asyncio
import json

from wire import Thermometer


async def main() -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", 7273)
    celsius = setpoint = 20.0

    async def listen() -> None:
        nonlocal setpoint
        wire = Thermometer(0)
        while data := await reader.read(100):
            for message in wire.feed(data):
                setpoint = json.loads(message or "{}").get("setpoint", setpoint)

    listening = asyncio.create_task(listen())
    while not listening.done():
        celsius += (setpoint - celsius) / 10
        writer.write(Thermometer.encode(json.dumps({"celsius": celsius})))
        await asyncio.sleep(1)


asyncio.run(main())
