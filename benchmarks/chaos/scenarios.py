"""What is done to a cluster, and what must not come of it."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gatecrew.tests.cluster.proxy import Fault

from .ledger import quantile
from .load import until
from .stage import GATEWAYS, REGISTERS, WORKERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .stage import Stage

MIB: Final = 1 << 20
STORM: Final = 10_000  # clients that come at once, if the descriptors suffice
SCENARIOS: Final[dict[str, Scenario]] = {}


@dataclass(frozen=True)
class Scenario:
    """Something to break again and again.

    Nothing may be lost or reordered, nor come twice to who is at the speaker's gateway.
    """

    run: Callable[[Stage], Awaitable[None]]
    count: int  #: faults, if nobody says how many
    clients: int = 200
    recovery: float = float("inf")  #: seconds that 99 % of the faults may make the unluckiest message wait
    repeats_across: bool = False  #: whether listeners at another gateway may hear something twice
    cut_off: bool = False  #: whether clients may lose their connection
    proxied: bool = False
    supervised: bool = False

    def judge(self, stage: Stage) -> list[str]:
        """Return which bars were missed."""
        ledger = stage.load.ledger
        stage.check(not ledger.lost, "lost")
        stage.check(not ledger.reordered, "reordered")
        stage.check(not ledger.repeated, "repeated")
        stage.check(self.repeats_across or not ledger.repeated_across, "repeated across gateways")
        stage.check(self.cut_off or not stage.load.cut_off, f"{len(stage.load.cut_off)} clients cut off")
        stage.check(quantile(ledger.recoveries, 0.99) < self.recovery, f"recovery p99 over {self.recovery:g} s")
        return stage.failures


def scenario(count: int, **options: float) -> Callable[[Callable[[Stage], Awaitable[None]]], None]:
    def add(run: Callable[[Stage], Awaitable[None]]) -> None:
        SCENARIOS[run.__name__.replace("_", "-")] = Scenario(run, count, **options)  # type: ignore[arg-type]

    return add


@scenario(count=100, recovery=3, repeats_across=True)
async def worker_kills(stage: Stage) -> None:
    """SIGKILL of a worker; another one is started in its place."""
    for name in stage.each(*WORKERS):
        await stage.restart(name)
        await stage.settle()


@scenario(count=50, recovery=3.5, repeats_across=True)
async def worker_stops(stage: Stage) -> None:
    """SIGSTOP of a worker for three seconds: it is given up, and wakes up again."""
    for name in stage.each(*WORKERS):
        stage.crew.processes[name].signal(signal.SIGSTOP)
        await asyncio.sleep(3)
        stage.crew.processes[name].signal(signal.SIGCONT)
        await stage.settle()


@scenario(count=250, recovery=3, supervised=True)
async def reloads(stage: Stage) -> None:
    """``gatecrew reload`` again and again: each replaces the four workers."""
    command = [sys.executable, "-m", "gatecrew", "reload"]
    environment = stage.crew.environment()
    for _ in stage.each(""):
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, cwd=stage.crew.folder, capture_output=True, text=True, check=False
        )
        stage.check(done.returncode == 0, f"gatecrew reload: {done.stderr.strip()}")
        await stage.settle()


@scenario(count=50, repeats_across=True, proxied=True)
async def link_cuts(stage: Stage) -> None:
    """The links of a gateway, to all workers or to one, break, stall, lose or change bytes for 0.1 to 5 seconds."""
    done: Counter[Fault] = Counter()
    for name in stage.each(*GATEWAYS):
        fault = stage.random.choice(list(Fault))
        pid = stage.random.choice([None, *map(stage.crew.pid, WORKERS)])
        stage.proxies[name].break_(fault, pid)
        await asyncio.sleep(0.1 * 50 ** stage.random.random())
        stage.proxies[name].heal()
        await stage.settle()
        done[fault] += 1
    stage.notes.append(", ".join(f"{fault.value} {number}" for fault, number in done.items()))


@scenario(count=20, recovery=1)
async def register_kills(stage: Stage) -> None:
    """SIGKILL of a register; another one is started in its place."""
    for name in stage.each(*REGISTERS):
        await stage.restart(name)
        await stage.settle()


@scenario(count=100, repeats_across=True, cut_off=True)
async def gateway_kills(stage: Stage) -> None:
    """SIGKILL of a gateway: its clients come back when another one is in its place, and all closes are told once."""
    load = stage.load
    clients = len(load.clients)
    for name in stage.each(*GATEWAYS):
        await stage.restart(name)
        await until(lambda: len(load.clients) == clients)
        await until(lambda: stage.told_closed().keys() >= {client.id for client in load.cut_off})
        await stage.settle()
    await _closes_are_told(stage)


async def _closes_are_told(stage: Stage) -> None:
    """See that the handlers are told of each client that lost its connection, and of nobody else: once."""
    gone = {client.id for client in stage.load.cut_off}
    await until(lambda: stage.told_closed().keys() >= gone)
    told = stage.told_closed()
    twice = sum(times > 1 for times in told.values())
    untrue = len(told.keys() & {client.id for client in stage.load.clients.values()})
    untold = len(gone - told.keys())
    stage.notes.append(f"{len(gone)} clients cut off: {untold} closes not told, {twice} told twice, {untrue} not true")
    stage.check(not untold, "closes not told")
    stage.check(not twice, "closes told twice")
    stage.check(not untrue, "closes told of who is there")


@scenario(count=50, repeats_across=True, cut_off=True)
async def gateway_stops(stage: Stage) -> None:
    """SIGSTOP of a gateway for 1 to 10 seconds: it wakes up as if nothing was, or ends because others took it for lost."""
    ends = [await _stop_gateway(stage, name) for name in stage.each(*GATEWAYS)]
    stage.notes.append(f"{sum(ends)} gateways of {len(ends)} were taken for lost")
    await _closes_are_told(stage)


async def _stop_gateway(stage: Stage, name: str) -> bool:
    """Stop a gateway for a while; if it is taken for lost, see it end, start another one, and return true."""
    gateway, clients = stage.crew.processes[name], len(stage.load.clients)
    losses = _losses(stage)
    gateway.signal(signal.SIGSTOP)
    await asyncio.sleep(10 ** stage.random.random())
    gateway.signal(signal.SIGCONT)
    await stage.settle()
    if _losses(stage) == losses:
        return False
    stage.check(await until(lambda: not gateway.alive), f"{name} was taken for lost, and does not end")
    gateway.end()
    await asyncio.to_thread(stage.crew.start, name)
    await until(lambda: len(stage.load.clients) == clients)
    return True


def _losses(stage: Stage) -> int:
    """Return how many gateways were taken for lost up to now."""
    return sum(stage.crew.processes[name].log.count("is lost: the close of its clients") for name in GATEWAYS)


@scenario(count=10, clients=1000)
async def slow_consumer(stage: Stage) -> None:
    """One client of a thousand lets much be sent to it, and does not read."""
    name, load = GATEWAYS[0], stage.load
    load.waits = []
    await asyncio.sleep(5)
    before, memory, slow = quantile(load.waits, 0.99), stage.memory(name), (await stage.stats(name))["closed.slow"]
    load.waits = []
    peak = memory
    for number, _ in enumerate(stage.each(""), slow + 1):
        client = await load.connect(name, talks=False)
        client.transport.pause_reading()
        client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(100):  # ten MB, of which the gateway keeps two at most
            if client.end:
                break
            client.say("f100000")
            await asyncio.sleep(0.01)
            peak = max(peak, stage.memory(name))
        for _ in range(50):
            if (await stage.stats(name))["closed.slow"] >= number:
                break
            await asyncio.sleep(0.1)
        client.transport.abort()
    after = quantile(load.waits, 0.99)
    counted = (await stage.stats(name))["closed.slow"] - slow
    stage.notes.append(
        f"p99 of the others {1000 * before:.1f} ms before, {1000 * after:.1f} ms then; "
        f"memory {memory / MIB:.0f} MiB before, {peak / MIB:.0f} MiB at most; closed as slow: {counted}"
    )
    stage.check(after < 2 * before, "p99 doubled")
    stage.check(peak - memory < 32 * MIB, "memory")
    stage.check(counted == stage.count, "not all closed as slow")


@scenario(count=1)
async def storm(stage: Stage) -> None:
    """Ten thousand clients connect as fast as they can: each is served or refused, and the refused are counted."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    clients = min(STORM, descriptors - 1000)
    loop = asyncio.get_running_loop()
    for _ in stage.each(""):
        before = sum(map(_refusals, [await stage.stats(name) for name in GATEWAYS]))
        start = loop.time()
        coming = (stage.load.connect(GATEWAYS[number % 2], talks=False) for number in range(clients))
        came = await asyncio.gather(*coming, return_exceptions=True)
        seconds = loop.time() - start
        refused = Counter(str(error) for error in came if isinstance(error, BaseException))
        for client in came:
            if not isinstance(client, BaseException):
                client.transport.abort()
        await stage.settle()
        await asyncio.sleep(2)  # until the counters are told
        counted = sum(map(_refusals, [await stage.stats(name) for name in GATEWAYS])) - before
        served = clients - refused.total()
        stage.notes.append(
            f"{served} of {clients} served in {seconds:.1f} s; refused {dict(refused)}, counted {counted}"
        )
        stage.check(counted >= refused.total(), "turned away without a reason")


def _refusals(stats: Counter[str]) -> int:
    return sum(value for key, value in stats.items() if key == "handshake.refused" or key.startswith("closed."))
