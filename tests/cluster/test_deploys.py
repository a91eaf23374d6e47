"""Deploys while clients talk: new code, new processes, more of them and fewer."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest
from gatecrew.common import supervisor
from gatecrew.common.errors import GatecrewError
from gatecrew.register import status
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect as connect_sync

from .crew import PATIENCE, Crew, a_crew, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from websockets.asyncio.client import ClientConnection

# Each message is written down when its handler ends, with the connection on which it came.
APP = """
import asyncio
from gatecrew import App

app = App()
version = "first"
ledger = open("ledger", "a", buffering=1)

@app.on_start
async def start():
    await asyncio.sleep(0)

@app.on_message
async def note(client, data):
    await asyncio.sleep(600 if data == "hang" else 0.002)
    ledger.write(f"{data} {client.id} {version}\\n")
"""
NAMES = ["gateway-1", "gateway-2", "register-1", "worker-1", "worker-2"]
TALKERS = 4
_names = count(1)


class Talker:
    """A client that numbers its messages, and goes on where it was when it has to connect again.

    It sends a few and then a ping. The pong says that the gateway has read them, so it never sends them again, and each must be
    handled once. Those without a pong when the gateway closes the connection it does send again: these may be handled twice.
    """

    def __init__(self, url: str) -> None:
        self.name = f"talker-{next(_names)}"
        self.said = 0  #: a gateway has read all numbers up to this one
        self.unsure: set[int] = set()  #: were sent more than once
        self.codes: list[int] = []  #: with which its connections were closed
        self._url = url
        self._enough = False
        self._said_more = asyncio.Event()
        self._task = asyncio.create_task(self._talk())

    async def more(self) -> None:
        """Return when it has said something more."""
        async with asyncio.timeout(PATIENCE):
            await self._said_more.wait()

    async def end(self) -> None:
        """Say no more, and leave."""
        self._enough = True
        await self._task

    async def _talk(self) -> None:
        while not self._enough:
            # a listener that is closed turns away who waits to be accepted
            with suppress(OSError, InvalidHandshake, EOFError, TimeoutError):
                async with connect(self._url, compression=None, proxy=None, ping_interval=None) as connection:
                    with suppress(ConnectionClosed):
                        await self._talk_on(connection)
                if not self._enough:
                    self.codes.append(connection.close_code or 1006)

    async def _talk_on(self, connection: ClientConnection) -> None:
        while not self._enough:
            numbers = range(self.said + 1, self.said + 6)
            try:
                for number in numbers:
                    await connection.send(f"{self.name} {number}")
                await (await connection.ping())
            except ConnectionClosed:
                self.unsure.update(numbers)
                raise
            self.said = numbers[-1]
            self._said_more.set()
            self._said_more.clear()
            await asyncio.sleep(0.03)  # the processes that start need the cores too


class Site:
    """A cluster of two gateways on one port and two workers, under a supervisor, in a folder with its application."""

    def __init__(self, crew: Crew, url: str, process: subprocess.Popen[str]) -> None:
        self.crew = crew
        self.url = url
        self.process = process
        self.run_dir = crew.folder / "run"

    def write(self, app: str) -> None:
        (self.crew.folder / "ledger.py").write_text(app)

    def members(self) -> list[tuple[str, int]]:
        """Return the name and the process of each that the registers know."""
        try:
            return sorted((member["name"], member["pid"]) for member in status.ask(self.crew.config()))
        except GatecrewError:  # the register starts again
            return []

    async def pids(self) -> dict[str, int]:
        """Return the process of each name, once the registers know what runs and nothing else."""
        members: list[tuple[str, int]] = []
        async with asyncio.timeout(PATIENCE):
            while [name for name, _ in members] != NAMES:
                members = await asyncio.to_thread(self.members)
        return dict(members)

    async def tell(self, command: str, *to: str) -> str:
        """Give the supervisor a command, and return what it has done."""
        return await asyncio.to_thread(supervisor.ask, self.run_dir, command, *to, limit=60)

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[list[Talker]]:
        """Let clients talk, and see in the end that nothing that they said is lost."""
        talkers = [Talker(self.url) for _ in range(TALKERS)]
        try:
            await asyncio.gather(*(talker.more() for talker in talkers))
            yield talkers
            await asyncio.gather(*(talker.more() for talker in talkers))
        finally:
            await asyncio.gather(*(talker.end() for talker in talkers))
        for talker in talkers:
            await asyncio.to_thread(until, partial(self._has_all, talker))
            self._check(talker)

    def versions(self, talker: Talker) -> list[str]:
        """Return the versions of the application that handled its messages."""
        return list(dict.fromkeys(version for _, _, version in self._handled(talker)))

    def _check(self, talker: Talker) -> None:
        handled = self._handled(talker)
        connections: dict[str, list[int]] = {}
        for number, connection, _ in handled:
            connections.setdefault(connection, []).append(number)
        numbers = [number for number, _, _ in handled]

        assert set(numbers) <= {*range(1, talker.said + 1), *talker.unsure}
        assert {number for number, times in Counter(numbers).items() if times > 1} <= talker.unsure
        for said in connections.values():
            assert said == list(range(said[0], said[0] + len(said))), "in order, and none is missing"

    def _handled(self, talker: Talker) -> list[tuple[int, str, str]]:
        """Return number, connection and version of each of its messages, as they were handled."""
        lines = (self.crew.folder / "ledger").read_text().splitlines()
        handled = [line.split() for line in lines if line.startswith(f"{talker.name} ")]
        return [(int(number), connection, version) for _, number, connection, version in handled]

    def _has_all(self, talker: Talker) -> bool:
        return {number for number, _, _ in self._handled(talker)} >= set(range(1, talker.said + 1))


@contextmanager
def a_site(**settings: str) -> Iterator[Site]:
    with socket.socket() as port:  # as long as it is bound, nobody else is given this port
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            port.setsockopt(socket.SOL_SOCKET, option, 1)
        port.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{port.getsockname()[1]}"
        numbers = {"gateway_processes": "2", "worker_processes": "2"}
        with Crew(gateway_listen=url, worker_app="ledger:app", **{**numbers, **settings}) as crew:
            (crew.folder / "ledger.py").write_text(APP)
            with (crew.folder / "supervisor.log").open("w") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "gatecrew", "start"],
                    cwd=crew.folder,
                    env=crew.environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            with process:
                try:
                    assert process.stdout is not None
                    assert process.stdout.readline().startswith("ready: ")
                    yield Site(crew, url, process)
                finally:
                    process.terminate()
                    try:
                        process.wait(PATIENCE)
                    finally:
                        process.kill()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def running_site() -> Iterator[Site]:
    with a_site() as site:
        yield site


@pytest.fixture
def site(running_site: Site) -> Site:
    """A site that tests share: they leave it with as many processes, and with the same application."""
    until(lambda: [name for name, _ in running_site.members()] == NAMES)
    return running_site


async def test_a_reload_loses_nothing_and_disconnects_nobody(site: Site) -> None:
    async with site.traffic() as talkers:
        site.write(APP.replace("first", "second"))
        try:
            assert await site.tell("reload") == "2 workers replaced"
        finally:
            site.write(APP)

    assert [talker.codes for talker in talkers] == [[]] * TALKERS
    for talker in talkers:
        assert site.versions(talker)[-1] == "second"
    await site.tell("reload")


async def test_a_new_version_whose_start_handler_fails_ends_the_reload_and_the_old_one_goes_on(site: Site) -> None:
    before = await site.pids()
    async with site.traffic() as talkers:
        site.write(APP.replace("await asyncio.sleep(0)\n", "raise OSError('no database')\n"))
        try:
            error = r"^worker-1 ended with exit code 1: .*ledger\.py:11: OSError: no database; the old ones go on$"
            with pytest.raises(GatecrewError, match=error):
                await site.tell("reload")
        finally:
            site.write(APP)

    assert await site.pids() == before
    assert [talker.codes for talker in talkers] == [[]] * TALKERS


async def test_a_rolling_restart_loses_nothing(site: Site) -> None:
    before = await site.pids()
    async with site.traffic() as talkers:
        assert await site.tell("restart") == "1 register, 2 gateways, 2 workers replaced"

    assert not set((await site.pids()).values()) & set(before.values())
    for talker in talkers:
        assert set(talker.codes) == {1012}


async def test_scaling_up_and_down_loses_nothing(site: Site) -> None:
    async with site.traffic() as talkers:
        assert await site.tell("scale", "gateways=3", "workers=3") == "now 3 gateways, 3 workers"
        await asyncio.gather(*(talker.more() for talker in talkers))
        assert [talker.codes for talker in talkers] == [[]] * TALKERS
        assert await site.tell("scale", "gateways=1", "workers=1") == "now 1 gateway, 1 worker"
        await asyncio.gather(*(talker.more() for talker in talkers))
        assert {code for talker in talkers for code in talker.codes} <= {1012}
        assert await site.tell("scale", "gateways=2", "workers=2") == "now 2 gateways, 2 workers"


@pytest.mark.parametrize("name", ["register-1", "gateway-1", "worker-1"])
async def test_a_process_that_is_told_to_stop_loses_nothing_and_is_started_again(site: Site, name: str) -> None:
    pid = (await site.pids())[name]
    async with site.traffic() as talkers:
        os.kill(pid, signal.SIGTERM)

        await asyncio.to_thread(until, lambda: dict(site.members()).get(name, pid) != pid)
        assert {code for talker in talkers for code in talker.codes} <= {1012}


async def test_a_worker_that_is_killed_during_a_rolling_restart_is_replaced_too(site: Site) -> None:
    before = await site.pids()
    restart = asyncio.create_task(site.tell("restart"))
    os.kill(before["worker-2"], signal.SIGKILL)

    assert await restart == "1 register, 2 gateways, 2 workers replaced"
    assert not set((await site.pids()).values()) & set(before.values())


# At once


@pytest.mark.parametrize(("name", "number"), [("gateway-1", signal.SIGINT), ("worker-1", signal.SIGTERM)])
def test_a_second_signal_ends_a_process_that_drains_at_once(name: str, number: signal.Signals) -> None:
    slow = {"gateway_drain_timeout": "600", "gateway_close_timeout": "600", "worker_drain_timeout": "600"}
    with a_crew("register-1", "gateway-1", "worker-1", worker_handler_timeout="0", **slow) as crew:
        guest = crew.connect()
        guest.send("hold", 600)
        guest.next()
        crew.processes[name].signal(signal.SIGTERM)
        crew.processes[name].stopping()

        crew.processes[name].signal(number)

        assert crew.ended(name) == 1
        for other in list(crew.processes):
            crew.kill(other)


def test_a_second_signal_to_the_supervisor_ends_all_at_once() -> None:
    slow = {"gateway_drain_timeout": "600", "worker_handler_timeout": "0"}
    with a_site(gateway_processes="1", worker_processes="1", **slow) as site, connect_sync(site.url) as client:
        until(lambda: len(site.members()) == 3)
        pids = [pid for _, pid in site.members()]
        client.send("hang")
        assert client.ping().wait(PATIENCE)
        site.process.terminate()
        assert site.process.stdout is not None
        assert site.process.stdout.readline() == "stopping; Ctrl-C again kills at once\n"

        site.process.send_signal(signal.SIGINT)

        assert site.process.wait(PATIENCE) == 1
        until(lambda: not any(alive(pid) for pid in pids))
