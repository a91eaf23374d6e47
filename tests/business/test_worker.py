"""A worker's life: when it is announced, when it has left, what its timers survive. How it handles events is tested with the runner."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from gatecrew import App, Client
from gatecrew.business.worker import Worker
from gatecrew.common.config import ClusterConfig, Config, WorkerConfig

from .waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import House

STUCK = """
import threading
from gatecrew import App

app = App()

@app.on_message
def hang(client, data):
    print("stuck", flush=True)
    threading.Event().wait()
"""


async def test_start_handlers_command_and_ask(house: House) -> None:
    """They ran before the worker knew of any gateway: what they sent reached nobody, and they counted no clients."""
    app = App()

    @app.on_start
    async def greet() -> None:
        app.send_to_all(f"{await app.get_all_client_id_count()} there")

    await house.work(App())
    async with house.client() as client:
        await house.work(app, "worker-2")

        assert await client.recv() == "1 there"


async def test_a_worker_is_announced_after_its_start_handlers(house: House) -> None:
    """A timer that the cluster has once stood still while a new worker, already chosen to run it, was starting."""
    first = await house.work(App())
    agent = first._hub.agent
    app = App()
    members: list[str] = []

    @app.on_start
    async def look() -> None:
        members.extend(member["name"] for member in await agent.ask_members(5))

    second = await house.work(app, "worker-2")

    assert "worker-1" in members
    assert "worker-2" not in members
    await until(lambda: second._key in agent.members)


async def test_a_worker_has_started_when_gateways_can_send_it_events(house: House) -> None:
    """The one that it replaced left before, and for a moment there was none."""
    worker = Worker(house.config, "worker-1", App())
    await worker.start()

    assert house.link(worker).alive
    await worker.stop()


async def test_a_worker_starts_before_any_register(run_dir: Path) -> None:
    config = Config(cluster=ClusterConfig(run_dir=str(run_dir)), worker=WorkerConfig(query_timeout=0.01))
    worker = Worker(config, "worker-1", App())

    await worker.start()

    await worker.stop()


async def test_a_worker_leaves_when_its_last_acks_have_come(house: House) -> None:
    """They were only handed over: a gateway that was slow just then gave the events, long handled, to another worker."""
    app = App()
    began, go = asyncio.Event(), asyncio.Event()

    @app.on_message
    async def wait(client: Client, data: str) -> None:
        began.set()
        await go.wait()

    worker = await house.work(app)
    async with house.client() as client:
        await client.send("wait")
        await began.wait()
        stopping = asyncio.create_task(worker.stop())
        await until(lambda: worker._runner._idle)
        with house.slow():
            go.set()
            await until(lambda: stopping.done() or worker._hub._gathers)
            assert not stopping.done()
        await stopping

        assert house.gateway._dispatch.bytes == 0


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
async def test_a_timer_goes_on_whatever_its_function_raises(
    house: House, errors: Callable[[], list[str]], error: type[BaseException]
) -> None:
    """A cancellation in it ended the timer, an exit the whole worker."""
    app = App()
    again = asyncio.Event()
    runs = 0

    @app.every(0.01)
    async def tick() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise error
        again.set()

    await house.work(app)
    await again.wait()

    assert len(errors()) == 1


async def test_a_timer_in_a_thread_past_its_time_limit_does_not_overlap_its_next_call(house: House) -> None:
    """A thread cannot be stopped: the next call ran beside it."""
    app = App()
    given_up, go, again = asyncio.Event(), threading.Event(), asyncio.Event()
    running: list[str] = []

    @app.every(0.01)
    def tick() -> None:
        running.append("in")
        go.wait(5)
        assert running == ["in"]
        running.clear()
        loop.call_soon_threadsafe(again.set)

    @app.on_error
    async def told(client: Client | None, error: Exception) -> None:
        given_up.set()

    loop = asyncio.get_running_loop()
    worker = await house.work(app, handler_timeout=0.05)
    await given_up.wait()
    await asyncio.sleep(0.1)  # in which it would have run again
    assert running == ["in"]
    go.set()
    await again.wait()
    again.clear()
    await again.wait()
    assert worker._runner.counters["handler.errors"] == 1


async def test_a_thread_that_commands_faster_than_the_loop_takes_it_waits(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatecrew.business.worker.MAX_POSTS", 2)
    app = App()
    await house.work(app)
    told: list[int] = []

    def command() -> None:
        for number in range(4):
            app.send_to_all(str(number))
            told.append(number)

    async with house.client() as client:
        await until(lambda: house.gateway._core.index.clients)
        thread = threading.Thread(target=command)
        thread.start()
        thread.join(0.1)  # the loop does not turn
        assert told == [0, 1]

        assert [await client.recv() for _ in range(4)] == ["0", "1", "2", "3"]
        thread.join()


async def test_a_worker_ends_though_a_def_handler_does_not(house: House, run_dir: Path) -> None:
    """Python waited for the thread, for ever, and so did whoever had told the worker to stop."""
    (run_dir / "stuck.py").write_text(STUCK)
    settings = {
        "GATECREW_CLUSTER_RUN_DIR": str(run_dir),
        "GATECREW_WORKER_APP": "stuck:app",
        "GATECREW_WORKER_DRAIN_TIMEOUT": "0.05",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gatecrew", "worker", "--name", "worker-1"),
        cwd=run_dir,
        env=os.environ | settings,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with house.client() as client:
            await client.send("go")
            assert process.stdout is not None
            assert await process.stdout.readline() == b"stuck\n"
            process.terminate()

            assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
