"""The frame of a process, around small services in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from gatecrew.common import notify, process
from gatecrew.common.config import Config, GatewayConfig, WorkerConfig

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

# What a service of the tests does is the body of a class; each says on its standard output how far it got.
PROGRAM = """
import asyncio, os, resource, sys, time
from pathlib import Path
from gatecrew.common import process
from gatecrew.common.config import ClusterConfig, Config, LogConfig
from gatecrew.common.errors import AppError, ConfigError, GatecrewError

def say(text):
    print(text, flush=True)

class Service:
    def __init__(self, fail):
        self.fail = fail
        self.loop = asyncio.get_running_loop()
    async def start(self):
        say("start")
    async def stop(self):
        say("stop")

class Mine(Service):
    {body}

config = Config(
    cluster=ClusterConfig(run_dir={run_dir!r}),
    log=LogConfig(file={log!r}),
)
process.patience = lambda config: {patience}
code = process.run(config, "worker", "worker-1", Mine, at_once=lambda: say("at once"))
say("end")
sys.exit(code)
"""


@dataclass
class Started:
    """A process that runs the frame, and what it tells."""

    process: asyncio.subprocess.Process
    ear: socket.socket

    @property
    def out(self) -> asyncio.StreamReader:
        assert self.process.stdout is not None
        return self.process.stdout

    async def says(self, line: str) -> None:
        assert (await self.out.readline()).decode().strip() == line

    async def ends(self) -> tuple[int, str, str]:
        """Return its exit code and what else it wrote."""
        out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()

    async def told(self) -> dict[str, str]:
        """Return the next that it tells."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self.ear, readable.set)
        await readable.wait()
        loop.remove_reader(self.ear)
        fields = notify.receive(self.ear)
        assert fields is not None
        return fields


@dataclass
class Stage:
    """Starts processes, and ends them after the test."""

    run_dir: Path
    stack: contextlib.AsyncExitStack
    _held: int = -1

    async def start_supervised(self, body: str, *, patience: float = 20.0, restarts: int = 0) -> Started:
        """Start a process that has this one as its supervisor, until :meth:`vanish`."""
        pipe, self._held = os.pipe()
        self.stack.callback(self.vanish)
        try:
            return await self.start(body, patience=patience, stdin=pipe, restarts=str(restarts))
        finally:
            os.close(pipe)

    def vanish(self) -> None:
        """Let go of the pipe, as the system does for a supervisor that dies."""
        if self._held >= 0:
            os.close(self._held)
        self._held = -1

    async def start(
        self,
        body: str,
        *,
        patience: float = 20.0,
        stdin: int = asyncio.subprocess.DEVNULL,
        restarts: str | None = None,
        log: str = "",
    ) -> Started:
        address = str(self.run_dir / "ear")
        ear = notify.listen(address)
        self.stack.callback(ear.close)
        program = PROGRAM.format(
            body=body.replace("\n", "\n    "), run_dir=str(self.run_dir / "run"), patience=patience, log=log
        )
        started = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, notify.VARIABLE: address, **({process.RESTARTS: restarts} if restarts else {})},
        )

        async def end() -> None:
            if started.returncode is None:
                started.kill()
                await started.communicate()

        self.stack.push_async_callback(end)
        return Started(started, ear)


@pytest.fixture
async def stage(run_dir: Path) -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as stack:
        yield Stage(run_dir, stack)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_process_starts_tells_that_it_is_ready_and_alive_and_stops_at_a_signal(
    stage: Stage, number: signal.Signals
) -> None:
    started = await stage.start("async def start(self): return 'ws://127.0.0.1:7272'")

    assert await started.told() == {"READY": "1", "STATUS": "ws://127.0.0.1:7272"}
    assert await started.told() == {"WATCHDOG": "1"}
    assert await started.told() == {"WATCHDOG": "1"}
    started.process.send_signal(number)
    assert await started.told() == {"STOPPING": "1"}
    assert await started.ends() == (0, "stop\nend\n", "")


async def test_the_run_directory_is_prepared_and_private(stage: Stage) -> None:
    started = await stage.start("pass")
    await started.told()

    assert (stage.run_dir / "run").stat().st_mode & 0o777 == 0o700


async def test_a_process_may_have_as_many_sockets_as_the_system_allows(stage: Stage) -> None:
    started = await stage.start(
        "async def start(self): soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE); say(soft == hard)"
    )

    await started.says("True")


@pytest.mark.parametrize(("error", "code"), [("GatecrewError", 1), ("AppError", 1), ("ConfigError", 2)])
async def test_an_error_at_the_start_is_one_line_and_an_exit_code(stage: Stage, error: str, code: int) -> None:
    started = await stage.start(f"async def start(self): raise {error}('no luck')")

    assert await started.told() == {"STOPPING": "1"}
    assert await started.told() == {"STATUS": "no luck"}
    ended, out, err = await started.ends()
    assert (ended, out) == (code, "stop\nend\n")
    assert err == "Error: no luck\n"


async def test_an_error_is_in_the_log_file_too(stage: Stage) -> None:
    log = stage.run_dir / "log"
    started = await stage.start("async def start(self): raise GatecrewError('no luck')", log=str(log))

    assert await started.ends() == (1, "stop\nend\n", "Error: no luck\n")
    assert re.search(r" ERROR worker-1\[\d+\]: no luck\n$", log.read_text())


async def test_a_log_file_that_cannot_be_opened_is_one_line(stage: Stage) -> None:
    started = await stage.start("pass", log="/nowhere/log")

    code, _, err = await started.ends()
    assert (code, err) == (2, "Error: [log] file: cannot open /nowhere/log: No such file or directory\n")


async def test_a_supervised_process_leaves_it_to_its_supervisor_to_tell_the_error(stage: Stage) -> None:
    started = await stage.start_supervised("async def start(self): raise GatecrewError('no luck')")

    assert await started.ends() == (1, "stop\nend\n", "")


async def test_an_unexpected_error_is_logged_with_its_traceback(stage: Stage) -> None:
    started = await stage.start("async def start(self): return 1 / 0")

    await started.told()
    assert await started.told() == {"STATUS": "ZeroDivisionError: division by zero"}
    code, out, err = await started.ends()
    assert (code, out) == (1, "stop\nend\n")
    assert "Traceback" in err


async def test_a_service_that_cannot_be_made_ends_the_process(stage: Stage) -> None:
    started = await stage.start("def __init__(self, fail): raise ConfigError('bad hooks')")

    assert (await started.ends())[0] == 2


async def test_a_signal_during_the_start_cancels_it(stage: Stage) -> None:
    started = await stage.start("async def start(self): say('start'); await asyncio.sleep(1000)")
    await started.says("start")

    started.process.terminate()

    assert await started.ends() == (0, "stop\nend\n", "")
    assert await started.told() == {"STOPPING": "1"}


async def test_a_service_that_cannot_go_on_stops_with_its_error(stage: Stage) -> None:
    started = await stage.start(
        "async def start(self):\n    self.loop.call_soon(self.fail, GatecrewError('the disk is full'))\n"
        "    self.loop.call_soon(self.fail, GatecrewError('a consequence'))"
    )

    code, out, err = await started.ends()
    assert (code, out) == (1, "stop\nend\n")
    assert err == "Error: the disk is full\n"


async def test_a_service_may_end_without_an_error(stage: Stage) -> None:
    started = await stage.start("async def start(self): self.loop.call_soon(self.fail, None)")

    assert await started.ends() == (0, "stop\nend\n", "")


async def test_a_second_signal_ends_a_slow_stop_at_once(stage: Stage) -> None:
    started = await stage.start("async def stop(self): say('stop'); await asyncio.sleep(1000)")
    await started.says("start")
    started.process.terminate()
    await started.says("stop")

    started.process.terminate()

    assert await started.ends() == (1, "at once\n", "")


async def test_a_second_signal_ends_even_a_process_that_hangs(stage: Stage) -> None:
    body = "async def stop(self):\n    say('stop')\n    while True: pass"
    started = await stage.start(body)
    await started.says("start")
    started.process.terminate()
    await started.says("stop")

    started.process.terminate()

    assert await started.ends() == (1, "at once\n", "")


async def test_a_process_goes_on_telling_that_it_lives_while_it_stops(stage: Stage) -> None:
    started = await stage.start("async def stop(self): await asyncio.sleep(1000)")
    assert (await started.told())["READY"] == "1"
    started.process.terminate()

    told = [await started.told() for _ in range(3)]

    assert {"STOPPING": "1"} in told
    assert {"WATCHDOG": "1"} in told


async def test_a_process_whose_supervisor_is_gone_stops(stage: Stage) -> None:
    started = await stage.start_supervised("pass")
    await started.says("start")

    stage.vanish()

    assert await started.ends() == (0, "stop\nend\n", "")


async def test_a_process_that_hangs_ends_too_when_its_supervisor_is_gone(stage: Stage) -> None:
    body = "async def start(self): say('start'); time.sleep(1000)"
    started = await stage.start_supervised(body, patience=0.05)
    await started.says("start")

    stage.vanish()

    assert await started.ends() == (1, "", "")


async def test_what_a_supervisor_gives_is_not_passed_on_to_what_handlers_start(stage: Stage) -> None:
    body = (
        "async def start(self): say(os.environ.keys() & {'NOTIFY_SOCKET', 'GATECREW_RESTARTS'}); say(sys.stdin.read())"
    )
    started = await stage.start_supervised(body)

    await started.says("set()")
    await started.says("")


async def test_the_vitals_are_of_this_process_and_say_how_often_it_was_restarted(stage: Stage) -> None:
    body = "async def start(self): found = process.vitals(); say(found['pid'] == os.getpid()); say(found['restarts'])"
    started = await stage.start_supervised(body, restarts=3)

    await started.says("True")
    await started.says("3")


def test_the_vitals_are_plain_numbers() -> None:
    vitals = process.vitals()

    assert vitals["memory"] > 1_000_000
    assert vitals["started"] > 1_700_000_000
    assert vitals["restarts"] == 0


def test_patience_covers_what_each_role_waits_for() -> None:
    gateway = GatewayConfig(close_timeout=3.0, drain_timeout=20.0)

    assert process.patience(Config(gateway=gateway, worker=WorkerConfig(drain_timeout=1.0))) > 26.0
    assert process.patience(Config(gateway=gateway, worker=WorkerConfig(drain_timeout=30.0))) > 60.0


def test_a_meter_tells_the_growth_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    clock: Callable[[], float] = lambda: now  # noqa: E731  # it follows the variable
    monkeypatch.setattr("time.monotonic", clock)
    meter = process.Meter()

    assert meter.read(0) == 0.0
    now += 2.0
    assert meter.read(50) == 25.0
    now += 0.1
    assert meter.read(50) == 25.0  # too soon to say anything new
    now += 0.9
    assert meter.read(50) == 0.0
