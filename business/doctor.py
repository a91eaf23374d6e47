"""What ``gatecrew doctor`` finds out: whether events get through between each gateway and each worker, and how fast."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from ..common.errors import PartialAnswer
from ..common.ids import new_key
from ..common.link import Node
from ..common.messages import Ask
from ..register import status
from ..register.agent import link_settings
from .hub import Hub

if TYPE_CHECKING:
    from ..common.config import Config
    from ..register.agent import Member

LOOK_EVERY: Final = 0.02  #: seconds between looks at who is there now
ASK_AGAIN: Final = 0.1  #: seconds after which a pair that has no link yet is asked again


@dataclass
class Findings:
    """Who was seen, and who got through to whom. Gateways and workers are named, registers have their addresses."""

    timeout: float  #: seconds that all had
    registers: dict[str, bool]  #: whether each can be reached
    gateways: dict[str, bool] = field(default_factory=dict)  #: the same
    workers: set[str] = field(default_factory=set)
    milliseconds: dict[tuple[str, str], float] = field(default_factory=dict)  #: from gateway to worker and back

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All gateways and workers that should get through to each other."""
        return list(product(sorted(self.gateways), sorted(self.workers)))

    @property
    def whole(self) -> bool:
        """Whether all is well."""
        return bool(self.pairs) and all(self.registers.values()) and self.milliseconds.keys() >= set(self.pairs)

    @property
    def problems(self) -> list[str]:
        """What is not well."""
        if not any(self.registers.values()):
            return [f"no register answers at {' or '.join(self.registers)}: is the cluster running?"]
        found = [f"the register at {address} cannot be reached" for address, up in self.registers.items() if not up]
        found += ["there is no gateway"] * (not self.gateways) + ["there is no worker"] * (not self.workers)
        found += [f"{name} cannot be reached" for name, up in sorted(self.gateways.items()) if not up]
        silent = [
            f"{gateway} - {worker}"
            for gateway, worker in self.pairs
            if self.gateways[gateway] and (gateway, worker) not in self.milliseconds
        ]
        return [*found, f"no answer in {self.timeout:g} s: {', '.join(silent)}"] if silent else found

    def table(self) -> list[str]:
        """Return the lines of a table for people: a row for each gateway, a column for each worker."""
        if not self.pairs:
            return []
        workers = sorted(self.workers)
        rows = [[gateway, *(self._cell(gateway, worker) for worker in workers)] for gateway in sorted(self.gateways)]
        return status.aligned([["GATEWAY", *workers], *rows], words=1)

    def _cell(self, gateway: str, worker: str) -> str:
        milliseconds = self.milliseconds.get((gateway, worker))
        return "no answer" if milliseconds is None else f"{milliseconds:.1f} ms"

    def for_programs(self) -> dict[str, Any]:
        """Return the same as JSON can say it: ``milliseconds`` is None for a pair that does not answer."""
        return {
            "registers": self.registers,
            "gateways": self.gateways,
            "pairs": [
                {"gateway": gateway, "worker": worker, "milliseconds": self.milliseconds.get((gateway, worker))}
                for gateway, worker in self.pairs
            ],
        }


def examine(config: Config, timeout: float) -> Findings:
    """Send an event through each pair of a gateway and a worker; return what came of it, after ``timeout`` seconds at the latest."""
    return asyncio.run(measure(config, timeout))


async def measure(config: Config, timeout: float) -> Findings:  # noqa: ASYNC109  # a bound for answers, no cancellation
    """Do the same in a loop that runs already."""
    registers = config.cluster.register_addresses()
    findings = Findings(timeout, dict.fromkeys(registers, False))
    hub = Hub(Node("caller", "doctor", new_key()), link_settings(config), registers, timeout=timeout)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as tasks:
                asking: dict[tuple[str, str], asyncio.Task[None]] = {}  # by the keys of gateway and worker
                while not findings.whole:
                    for gateway, worker in _see(hub, findings):
                        if (gateway.key, worker.key) not in asking:
                            asked = tasks.create_task(_ping(hub, findings, gateway, worker))
                            asking[gateway.key, worker.key] = asked
                    await asyncio.sleep(LOOK_EVERY)
                for asked in asking.values():  # a process that was replaced has its name in common with another
                    asked.cancel()
    finally:
        await hub.close()
    return findings


def _see(hub: Hub, findings: Findings) -> list[tuple[Member, Member]]:
    """Note who is there, and return all pairs of them. Who was seen once has to answer, or another of that name."""
    findings.registers = hub.agent.reachable
    members = hub.agent.members.values()
    gateways = [member for member in members if member.role == "gateway"]
    workers = [member for member in members if member.role == "worker"]
    findings.workers |= {worker.name for worker in workers}
    linked = {gateway.name for gateway in hub.gateways.values() if gateway.alive}
    findings.gateways = {name: name in linked for name in {*findings.gateways, *(one.name for one in gateways)}}
    return list(product(gateways, workers))


async def _ping(hub: Hub, findings: Findings, gateway: Member, worker: Member) -> None:
    """Ask a gateway until it has got through to a worker."""
    while True:
        with suppress(PartialAnswer):
            milliseconds = await hub.ask(
                gateway.key, Ask.ROUND_TRIP, worker.key, lambda answers: answers and answers[0]
            )
            if isinstance(milliseconds, float):
                findings.milliseconds[gateway.name, worker.name] = milliseconds
                findings.gateways[gateway.name] = True  # the link may have come about since they were looked at
                return
        await asyncio.sleep(ASK_AGAIN)
