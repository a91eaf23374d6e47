from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from gatecrew import App, Client, Cluster, Request
from gatecrew.testing import Closed, Failed, Simulation, Stuck, simulate

if TYPE_CHECKING:
    from pathlib import Path

app = App()
closes: list[tuple[str, int, str]] = []


@app.on_connect
async def enter(client: Client, request: Request) -> None:
    client.join("all")
    if "uid" in request.query:
        client.bind(request.query["uid"])


@app.on_message
async def say(client: Client, data: str) -> None:
    match data.split():
        case ["count"]:
            client.send(str(await app.group("all").count()))
        case ["wait", seconds]:
            await asyncio.sleep(float(seconds))
            client.send("waited")
        case ["everybody", text]:
            app.group("all").send(text)
        case ["again?"]:
            client.send(str(client.redelivered))
        case _:
            client.send(data)


@app.on_close
async def leave(client: Client, code: int, reason: str) -> None:
    closes.append((client.id, code, reason))


@simulate(app)
async def test_a_client_gets_what_handlers_send(cluster: Simulation) -> None:
    ann = await cluster.connect()
    ann.send("hello")
    ann.send("x" * 100_000)

    assert await ann.receive() == "hello"
    assert await ann.receive() == "x" * 100_000
    assert ann.received == ["hello", "x" * 100_000]


@simulate(app, gateways=2, workers=2)
async def test_commands_and_questions_reach_all_gateways(cluster: Simulation) -> None:
    ann, bob = await cluster.connect("gateway-1"), await cluster.connect("gateway-2")
    ann.send("everybody hi")
    assert [await ann.receive(), await bob.receive()] == ["hi", "hi"]
    bob.send("count")
    assert await bob.receive() == "2"


@simulate(app)
async def test_time_jumps(cluster: Simulation) -> None:
    began = time.monotonic()
    ann = await cluster.connect()
    ann.send("wait 20")
    before = cluster.time

    assert await ann.receive() == "waited"
    assert 20 <= cluster.time - before < 21
    assert time.monotonic() - began < 20


@simulate(app, workers=2)
async def test_what_a_killed_worker_had_is_handled_by_another(cluster: Simulation) -> None:
    clients = [await cluster.connect() for _ in range(10)]
    for client in clients:
        client.send("wait 0.5")
        client.send("again?")
    await cluster.sleep(0.1)
    cluster.kill("worker-1")

    answers = [[await client.receive(), await client.receive()] for client in clients]
    assert sorted({answer for _, answer in answers}) == ["False", "True"]


@simulate(app, workers=2)
async def test_a_frozen_worker_goes_on_where_it_was(cluster: Simulation) -> None:
    clients = [await cluster.connect() for _ in range(10)]
    cluster.freeze("worker-1")
    for client in clients:
        client.send("hello")
    await cluster.sleep(1)
    came = [client for client in clients if client.received]
    cluster.thaw("worker-1")

    assert [await client.receive() for client in clients] == ["hello"] * 10
    assert 0 < len(came) < 10


@simulate(app)
async def test_a_cut_wire_loses_nothing_in_the_end(cluster: Simulation) -> None:
    ann = await cluster.connect()
    cluster.cut("worker-1", "gateway-1")
    ann.send("hello")
    await cluster.sleep(1)
    assert ann.received == []
    cluster.heal("worker-1", "gateway-1")

    assert await ann.receive() == "hello"


@simulate(app, workers=2)
async def test_a_reload_loses_nothing(cluster: Simulation) -> None:
    ann = await cluster.connect()
    reloading = asyncio.create_task(cluster.reload())
    for number in range(50):
        ann.send(str(number))
        await cluster.sleep(0.01)
    await reloading

    assert [await ann.receive() for _ in range(50)] == [str(number) for number in range(50)]


@simulate(app)
async def test_a_close_is_told_to_both_sides(cluster: Simulation) -> None:
    ann, bob = await cluster.connect(), await cluster.connect()
    ann.close(4000, "bye")
    bob.vanish()

    assert await ann.wait_closed() == (4000, "bye")
    await cluster.until(lambda: {(ann.id, 4000, "bye"), (bob.id, 1006, "")} <= set(closes))
    with pytest.raises(Closed, match="closed with 4000 bye"):
        ann.send("more")
    with pytest.raises(Closed):
        await ann.receive()


@simulate(app, gateways=2)
async def test_a_gateway_takes_its_clients_along(cluster: Simulation) -> None:
    ann, bob = await cluster.connect("gateway-1"), await cluster.connect("gateway-2")
    cluster.kill("gateway-1")
    await cluster.stop("gateway-2")

    assert await ann.wait_closed() == (1006, "")
    assert (await bob.wait_closed())[0] == 1012
    with pytest.raises(KeyError, match="there is no process gateway-1"):
        await cluster.connect("gateway-1")
    await cluster.start("gateway-1")
    assert (await cluster.connect("gateway-1")).open


@simulate(app)
async def test_a_program_from_outside_sees_the_cluster(cluster: Simulation) -> None:
    ann = await cluster.connect(path="/?uid=ann")
    await cluster.sleep(1)
    async with Cluster(cluster.config) as outside:
        assert await outside.get_all_uid_list() == ["ann"]
        outside.uid("ann").send("from outside")
    assert await ann.receive() == "from outside"


@simulate(app)
async def test_who_waits_in_vain_is_told_for_what(cluster: Simulation) -> None:
    ann = await cluster.connect()
    with pytest.raises(TimeoutError, match=r"<client 1 at gateway-1> received nothing within 5 s"):
        await ann.receive(timeout=5)
    with pytest.raises(TimeoutError, match="does not come true within 5 s"):
        await cluster.until(lambda: False, timeout=5)


@simulate(app)
async def test_fixtures_come_as_ever(cluster: Simulation, tmp_path: Path) -> None:
    assert str(tmp_path)


def test_handlers_may_be_plain_functions_in_threads() -> None:
    threaded = App()

    @threaded.on_message
    def say(client: Client, data: str) -> None:
        client.join("all")
        client.send(f"{data} {threaded.wait(threaded.group('all').count())}")

    async def test(cluster: Simulation) -> str | bytes:
        ann = await cluster.connect()
        ann.send("hello")
        return await ann.receive()

    assert Simulation(threaded).run(test) == "hello 1"


def test_the_same_seed_gives_the_same_story() -> None:
    async def story(cluster: Simulation) -> list[object]:
        clients = [await cluster.connect(f"gateway-{number % 2 + 1}") for number in range(6)]
        for client in clients:
            client.send("everybody hi")
        await cluster.sleep(0.001)
        cluster.kill("worker-2")
        await cluster.sleep(5)
        return [cluster.time, cluster.world.callbacks, cluster.random.random(), *(client.id for client in clients)]

    def run(seed: int) -> list[object]:
        return Simulation(app, gateways=2, workers=2, seed=seed).run(story)

    assert run(1) == run(1) != run(2)


def test_errors_that_nobody_awaits_fail_the_test() -> None:
    async def test(cluster: Simulation) -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await cluster.sleep(1)

    with pytest.raises(Failed, match=r"test: Exception in callback .*ZeroDivisionError"):
        Simulation(app).run(test)


async def test_a_simulation_in_a_loop_is_refused() -> None:
    with pytest.raises(RuntimeError, match="call it from a plain function"):
        Simulation(app).run(lambda cluster: cluster.sleep(1))


def test_waiting_for_what_can_never_come_ends() -> None:
    from gatecrew.testing.clock import World

    world = World(1)
    loop = world.loop("test")
    with pytest.raises(Stuck):
        world.run(loop.create_future())
    world.close()
