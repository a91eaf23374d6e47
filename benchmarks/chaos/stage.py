"""What a scenario acts on: a cluster of real processes, the load on it, and what was seen."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

from gatecrew.tests.cluster.crew import ROLES, Crew
from gatecrew.tests.cluster.proxy import Proxy

from .app import CLOSED
from .load import Load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from random import Random

GATEWAYS: Final = ("gateway-1", "gateway-2")
WORKERS: Final = ("worker-1", "worker-2", "worker-3", "worker-4")
REGISTERS: Final = ("register-1", "register-2")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Stage:
    """One run of a scenario."""

    crew: Crew
    load: Load
    random: Random
    count: int  #: of faults
    proxies: dict[str, Proxy] = field(default_factory=dict)  #: by gateway
    notes: list[str] = field(default_factory=list)  #: for people
    faults: int = 0
    failures: list[str] = field(default_factory=list)  #: bars that were missed, beside those that the ledger knows

    def each(self, *names: str) -> Iterator[str]:
        """Choose one of these processes for each fault."""
        for _ in range(self.count):
            self.fault()
            yield self.random.choice(names)

    def fault(self) -> None:
        """Take note that something is being broken."""
        self.faults += 1
        self.load.ledger.fault(monotonic())

    async def restart(self, name: str) -> None:
        """Kill a process and start another one of this name."""
        self.crew.kill(name)
        await asyncio.to_thread(self.crew.start, name)

    async def settle(self) -> None:
        """Wait until nobody waits any more for what was said up to now, and a little longer."""
        await self.load.caught_up()
        await asyncio.sleep(self.random.uniform(0.1, 0.5))

    async def stats(self, name: str) -> Counter[str]:
        """Return the counters of a process."""
        stats = await asyncio.to_thread(self.crew.stats, name)
        return Counter({key: value for key, value in stats.items() if isinstance(value, int)})

    def memory(self, name: str) -> int:
        """Return the resident bytes of a process."""
        return int(Path(f"/proc/{self.crew.pid(name)}/statm").read_text().split()[1]) * PAGE

    def told_closed(self) -> Counter[str]:
        """Return how often the handlers were told of each client that it is gone, by id."""
        path = self.crew.folder / CLOSED
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(line.split()[0] for line in lines)

    def check(self, true: bool, failure: str) -> None:
        """Take note of a bar that was missed."""
        if not true:
            self.failures.append(failure)


@asynccontextmanager
async def a_stage(
    clients: int,
    rate: int,
    count: int,
    random: Random,
    *,
    proxied: bool,
    supervised: bool,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Stage]:
    """Start a cluster and the load, and end both; on the way out the load comes to rest, so that the books can be closed."""
    chosen = {
        "cluster_registers": ",".join("ipc" for _ in REGISTERS),
        "worker_app": "gatecrew.benchmarks.chaos.app:app",
        "log_level": "warning",
        **(settings or {}),
    }
    with ExitStack() as proxies, ExitStack() as stack:  # through the proxies the cluster leaves, too
        crew = stack.enter_context(Crew(**chosen))
        stack.enter_context(_logs_beside_errors(crew))
        stage = Stage(crew, Load(lambda gateway: crew.processes[gateway].url), random, count)
        if supervised:
            url = await asyncio.to_thread(stack.enter_context, _supervisor(crew))
            stage.load = Load(lambda gateway: url)
        else:
            await asyncio.to_thread(crew.start, *REGISTERS, *GATEWAYS)
            if proxied:
                for name in GATEWAYS:
                    (path,) = (crew.folder / "run").glob(f"{name}-*.sock")
                    stage.proxies[name] = proxies.enter_context(Proxy(path))
            await asyncio.to_thread(crew.start, *WORKERS)
        stack.callback(_end, stage)
        stack.callback(stage.load.leave)
        await asyncio.gather(*(stage.load.connect(GATEWAYS[number % 2]) for number in range(clients)))
        talk = asyncio.create_task(stage.load.talk(rate))
        await asyncio.sleep(1)
        yield stage
        await stage.load.quiet()
        await talk


@contextmanager
def _logs_beside_errors(crew: Crew) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        for path in sorted(crew.folder.glob("*.log")):
            error.add_note(f"{path.stem}: {path.read_text()[-2000:]}")
        raise


def _end(stage: Stage) -> None:
    """Stop all processes, and look whether one was unwell."""
    crew = stage.crew
    for name in [name for role in ROLES for name in crew.names(role)]:
        code = crew.stop(name)
        stage.check(code == 0, f"{name} ended with {code}")
    for path in sorted(crew.folder.glob("*.log")):
        _, traceback, text = path.read_text().partition("Traceback")
        stage.check(not traceback, f"{path.stem}: {traceback}{text[:4000]}")


@contextmanager
def _supervisor(crew: Crew) -> Iterator[str]:
    """Run the same processes under a supervisor, and return where clients connect."""
    environment = crew.environment(gateway_processes=str(len(GATEWAYS)), worker_processes=str(len(WORKERS)))
    command = [sys.executable, "-m", "gatecrew", "start"]
    with (crew.folder / "supervisor.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=crew.folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("ready"):
            raise RuntimeError("the supervisor does not start")
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait(60)
