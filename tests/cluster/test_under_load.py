"""Processes and links that fail, and crowds that come, while clients send numbered messages: none is lost or overtaken."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import pytest
from gatecrew.benchmarks.chaos.load import Load

from .crew import a_crew, until
from .proxy import Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from .crew import Crew

NAMES = ("register-1", "register-2", "gateway-1", "gateway-2", "worker-1", "worker-2")
SETTINGS = {
    "cluster_registers": "ipc,ipc",
    "cluster_dead_after": "1",
    "cluster_probe_interval": "0.2",
    "worker_app": "gatecrew.benchmarks.chaos.app:app",
}


@pytest.fixture(scope="module")
def proxied_crew() -> Iterator[tuple[Crew, Proxy]]:
    with contextlib.ExitStack() as stack, a_crew(**SETTINGS) as crew:  # which leaves through the proxy
        crew.start(*NAMES[:4])
        (path,) = (crew.folder / "run").glob("gateway-1-*.sock")
        proxy = stack.enter_context(Proxy(path))
        crew.start(*NAMES[4:])
        yield crew, proxy


@pytest.fixture
def crew(proxied_crew: tuple[Crew, Proxy]) -> Crew:
    """A cluster all of whose processes a test leaves alive."""
    return proxied_crew[0]


@pytest.fixture
def proxy(proxied_crew: tuple[Crew, Proxy]) -> Proxy:
    """What is between the first gateway and the workers."""
    return proxied_crew[1]


@contextlib.asynccontextmanager
async def a_load(crew: Crew) -> AsyncIterator[Load]:
    """Let forty clients talk, and see in the end that they heard everything, in order and once."""
    load = Load(lambda gateway: crew.processes[gateway].url)
    await asyncio.gather(*(load.connect(NAMES[2 + number % 2]) for number in range(40)))
    talk = asyncio.create_task(load.talk(500))
    await load.caught_up()
    yield load
    await load.quiet()
    await talk
    load.leave()
    ledger = load.ledger
    assert (ledger.lost, ledger.reordered, ledger.repeated, ledger.repeated_across) == (0, 0, 0, 0)
    assert ledger.sent > 100


# Processes


@pytest.mark.parametrize("name", ["register-1", "gateway-2"])
async def test_a_process_hangs_and_wakes_up(crew: Crew, name: str) -> None:
    async with a_load(crew) as load:
        crew.processes[name].signal(signal.SIGSTOP)
        await asyncio.sleep(1.2)  # longer than dead_after; a gateway is taken for lost after two seconds
        crew.processes[name].signal(signal.SIGCONT)

    assert load.cut_off == []


async def test_a_gateway_is_killed_and_the_clients_of_the_other_lose_nothing(crew: Crew) -> None:
    async with a_load(crew) as load:
        crew.kill("gateway-2")
        await asyncio.to_thread(crew.start, "gateway-2")
        await asyncio.to_thread(until, lambda: len(load.clients) == 40)

        assert {client.gateway for client in load.cut_off} == {"gateway-2"}


# Links


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [(Fault.CUT, 0.3), (Fault.CUT, 3.0), (Fault.STALL, 0.3), (Fault.STALL, 2.0), (Fault.SWALLOW, 0.3)],
    ids=lambda value: getattr(value, "value", value),
)
async def test_a_gateway_cannot_be_reached_for_a_while(crew: Crew, proxy: Proxy, fault: Fault, seconds: float) -> None:
    async with a_load(crew) as load:
        proxy.break_(fault)
        await asyncio.sleep(seconds)
        proxy.heal()

    assert load.cut_off == []


async def test_one_worker_cannot_reach_one_gateway_for_a_while(crew: Crew, proxy: Proxy) -> None:
    async with a_load(crew) as load:
        proxy.break_(Fault.CUT, crew.pid("worker-1"))
        await asyncio.sleep(3)
        proxy.heal()

    assert load.cut_off == []


async def test_a_link_on_which_other_bytes_arrive_is_dropped_and_made_anew(crew: Crew, proxy: Proxy) -> None:
    async with a_load(crew) as load:
        proxy.break_(Fault.NOISE, crew.pid("worker-1"))
        await asyncio.sleep(0.3)
        proxy.heal()

    assert load.cut_off == []
    await asyncio.to_thread(until, lambda: crew.stats("gateway-1")["workers"] == 2)  # it may stay away for five seconds


# Crowds


def closed_as_slow(crew: Crew) -> int:
    return int(crew.stats("gateway-1").get("closed.slow", 0))


async def test_one_of_many_does_not_read_and_the_others_do_not_notice(crew: Crew) -> None:
    before = await asyncio.to_thread(closed_as_slow, crew)
    async with a_load(crew) as load:
        slow = await load.connect("gateway-1", talks=False)
        slow.transport.pause_reading()
        for _ in range(100):
            slow.say("f100000")
        await asyncio.to_thread(until, lambda: closed_as_slow(crew) == before + 1)
        slow.transport.abort()

    assert load.cut_off == []


async def test_a_storm_of_connections_is_served(crew: Crew) -> None:
    async with a_load(crew) as load:
        storm = await asyncio.gather(*(load.connect(NAMES[2 + number % 2], talks=False) for number in range(500)))
        for client in storm:
            client.transport.abort()

    assert load.cut_off == []
