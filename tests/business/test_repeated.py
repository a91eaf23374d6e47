"""What handlers command has its effect once, though links are cut and events are handled again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from gatecrew import App, Client
from gatecrew.business.hub import MUCH
from gatecrew.common import messages as op
from gatecrew.common.errors import PartialAnswer, TurnDropped

if TYPE_CHECKING:
    from .conftest import House

MESSAGES = 300


async def test_what_was_flushed_has_its_effect_once_though_its_event_comes_again(house: House) -> None:
    app = App()
    flushed = asyncio.Event()

    @app.on_message
    async def answer(client: Client, data: str) -> None:
        client.send("thinking")
        await app.flush()
        flushed.set()
        if data == "hang" and not client.redelivered:
            await asyncio.Event().wait()
        client.send(f"{data} {client.redelivered}")

    worker = await house.work(app)
    async with house.client() as client:
        await client.send("hang")
        await flushed.wait()
        await house.cut(worker)
        await client.send("next")

        assert [await client.recv() for _ in range(4)] == ["thinking", "hang True", "thinking", "next False"]


async def test_what_is_for_other_gateways_has_its_effect_once_though_the_ack_was_lost(house: House) -> None:
    there = await house.expand()
    app = App()
    handled: list[bool] = []

    @app.on_connect
    async def hello(client: Client, request: object) -> None:
        client.join("all")
        client.send("hello")

    @app.on_message
    async def say(client: Client, data: str) -> None:
        handled.append(client.redelivered)
        app.group("all").send(data)

    worker = await house.work(app)
    async with house.client() as ann, house.client(gateway=there) as bob:
        assert await ann.recv() == await bob.recv() == "hello"
        with house.losing(worker):
            await ann.send("1")
            assert await bob.recv() == "1"
        assert await ann.recv() == "1"
        await ann.send("2")

        assert await bob.recv() == "2"
        assert handled == [False, True, False]
        assert there.counters["commands.repeated"] == 1


async def test_what_is_too_much_for_one_batch_with_the_ack_has_its_effect_once(house: House) -> None:
    app = App()
    handled: list[bool] = []

    @app.on_message
    async def say(client: Client, data: str) -> None:
        handled.append(client.redelivered)
        client.send(data)
        app.send_to_uid("nobody", bytes(2 * MUCH))

    worker = await house.work(app)
    async with house.client() as client:
        with house.losing(worker, op.ACK):
            await client.send("1")
            assert await client.recv() == "1"
        await client.send("2")

        assert await client.recv() == "2"
        assert handled == [False, True, False]


async def test_an_error_handlers_commands_are_not_taken_for_what_the_failed_one_flushed(house: House) -> None:
    there = await house.expand()
    app = App()

    @app.on_message
    async def fail(client: Client, data: str) -> None:
        app.send_to_all("flushed")
        await app.flush()
        raise ValueError(data)

    @app.on_error
    async def sorry(client: Client | None, error: Exception) -> None:
        app.send_to_all("sorry")

    await house.work(app)
    async with house.client() as ann, house.client(gateway=there) as bob:
        await ann.send("fail")

        for client in (ann, bob):
            assert [await client.recv(), await client.recv()] == ["flushed", "sorry"]


async def test_an_error_handler_lets_nothing_go_when_its_gateway_was_lost(house: House) -> None:
    there = await house.expand()
    app = App()
    inside, go = asyncio.Event(), asyncio.Event()
    refused: list[Exception] = []

    @app.on_message
    async def fail(client: Client, data: str) -> None:
        if not client.redelivered:
            raise ValueError(data)
        app.send_to_all("from the second run")

    @app.on_error
    async def wait(client: Client | None, error: Exception) -> None:
        app.send_to_all("of a void turn")
        inside.set()
        await go.wait()
        with pytest.raises(TurnDropped) as dropped:
            await app.flush()
        refused.append(dropped.value)

    worker = await house.work(app)
    async with house.client() as ann, house.client(gateway=there) as bob:
        await ann.send("fail")
        await inside.wait()
        await house.cut(worker)
        go.set()

        assert await bob.recv() == "from the second run"
        assert [str(error) for error in refused] == ["its gateway is gone: what was commanded is not sent"]


@pytest.mark.parametrize("which", ["own", "other", "both"])
async def test_whichever_links_are_cut_nothing_is_lost_doubled_or_reordered(house: House, which: str) -> None:
    there = await house.expand()
    app = App()

    @app.on_connect
    async def hello(client: Client, request: object) -> None:
        client.join("all")
        client.send("hello")

    @app.on_message
    async def say(client: Client, data: str) -> None:
        app.group("all").send(data)
        if int(data) % 3 == 0:
            with contextlib.suppress(PartialAnswer):  # it leaves, but whose link is cut does not confirm it
                await app.flush()
        app.group("all").send(f"{data} again")

    worker = await house.work(app)
    async with house.client() as ann, house.client(gateway=there) as bob:
        assert await ann.recv() == await bob.recv() == "hello"
        for number in range(MESSAGES):
            await ann.send(str(number))
            if number % 50 == 25:
                await asyncio.sleep(0.01)
                if which != "own":
                    house.end_lane(worker, there)
                if which != "other":
                    house.end_lane(worker)

        expected = [text for number in range(MESSAGES) for text in (f"{number}", f"{number} again")]
        async with asyncio.timeout(20):
            assert [await ann.recv() for _ in expected] == expected
            assert [await bob.recv() for _ in expected] == expected
