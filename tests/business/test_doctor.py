"""Pings between gateways and workers, and what ``gatecrew doctor`` makes of them. With stopped processes: tests/cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gatecrew import App, Client
from gatecrew.business.doctor import Findings, examine, measure
from gatecrew.common.config import ClusterConfig, Config

from .waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import House


def findings(*, registers: int = 1) -> Findings:
    """Return those of two gateways and two workers, which all get through to each other."""
    names = [(gateway, worker) for gateway in ("gateway-1", "gateway-2") for worker in ("worker-1", "worker-2")]
    return Findings(
        5.0,
        {f"tcp://10.0.0.{number}:7270": True for number in range(1, registers + 1)},
        {gateway: True for gateway, _ in names},
        {worker for _, worker in names},
        dict(zip(names, (0.61, 10.0, 123.44, 1.0), strict=True)),
    )


class TestFindings:
    def test_all_pairs_stand_in_one_table(self) -> None:
        found = findings()

        assert found.table() == [
            "GATEWAY    worker-1  worker-2",
            "gateway-1    0.6 ms   10.0 ms",
            "gateway-2  123.4 ms    1.0 ms",
        ]
        assert found.whole
        assert found.problems == []

    def test_pairs_that_do_not_answer_are_named(self) -> None:
        found = findings()
        del found.milliseconds["gateway-1", "worker-2"]
        del found.milliseconds["gateway-2", "worker-1"]

        assert found.table()[1:] == [
            "gateway-1     0.6 ms  no answer",
            "gateway-2  no answer     1.0 ms",
        ]
        assert not found.whole
        assert found.problems == ["no answer in 5 s: gateway-1 - worker-2, gateway-2 - worker-1"]
        assert found.for_programs()["pairs"][0] == {
            "gateway": "gateway-1",
            "worker": "worker-1",
            "milliseconds": 0.61,
        }
        assert [pair["milliseconds"] for pair in found.for_programs()["pairs"]] == [0.61, None, None, 1.0]

    def test_a_gateway_that_cannot_be_reached_is_named_once(self) -> None:
        found = findings()
        found.gateways["gateway-2"] = False
        for worker in found.workers:
            del found.milliseconds["gateway-2", worker]

        assert found.table()[2] == "gateway-2  no answer  no answer"
        assert found.problems == ["gateway-2 cannot be reached"]

    def test_a_register_that_cannot_be_reached_is_named(self) -> None:
        found = findings(registers=2)
        found.registers["tcp://10.0.0.2:7270"] = False

        assert not found.whole
        assert found.problems == ["the register at tcp://10.0.0.2:7270 cannot be reached"]

    def test_without_gateways_or_workers_nothing_is_well(self) -> None:
        found = Findings(5.0, {"tcp://10.0.0.1:7270": True})

        assert not found.whole
        assert found.table() == []
        assert found.problems == ["there is no gateway", "there is no worker"]


async def test_a_ping_waits_its_turn_behind_events_and_no_handler_sees_it(house: House) -> None:
    app = App()
    go = asyncio.Event()
    seen: list[str] = []

    @app.on_message
    async def wait(client: Client, data: str) -> None:
        seen.append(data)
        await go.wait()

    worker = await house.work(app, concurrency=1)
    async with house.client() as client:
        await client.send("first")
        await until(lambda: seen)
        examined = asyncio.create_task(measure(house.config, 5))
        await until(lambda: worker._runner._ready)
        go.set()
        found = await examined

        assert worker._runner.events == 2  # the connect and the message
    assert found.whole
    assert found.milliseconds.keys() == {("gateway-1", "worker-1")}
    assert seen == ["first"]


async def test_a_ping_waits_for_a_gateway_that_does_not_keep_up(house: House) -> None:
    worker = await house.work(App())
    with house.full(worker):
        house.link(worker).full = True
        examined = asyncio.create_task(measure(house.config, 5))
        await until(lambda: worker._runner._held)
    found = await examined

    assert found.whole


async def test_a_worker_that_comes_meanwhile_is_asked_too(house: House) -> None:
    examined = asyncio.create_task(measure(house.config, 5))
    await house.work(App())
    found = await examined

    assert found.problems == []


async def test_who_does_not_answer_before_the_deadline_is_named(house: House) -> None:
    worker = await house.work(App())
    await house.work(App(), "worker-2")
    with house.full(worker):
        house.link(worker).full = True
        found = await measure(house.config, 0.5)

    assert found.milliseconds.keys() == {("gateway-1", "worker-2")}
    assert found.problems == ["no answer in 0.5 s: gateway-1 - worker-1"]


async def test_a_gateway_without_workers_is_not_well(house: House) -> None:
    found = await measure(house.config, 0.2)

    assert found.problems == ["there is no worker"]
    assert found.gateways == {"gateway-1": True}


def test_without_a_register_that_is_said(run_dir: Path) -> None:
    found = examine(Config(cluster=ClusterConfig(run_dir=str(run_dir))), 0.1)

    assert found.problems == [f"no register answers at ipc://{run_dir}/register-1.sock: is the cluster running?"]
