"""Where a process tells how it is, over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from gatecrew.common import endpoint
from gatecrew.common.endpoint import MAX_REQUEST, MAX_SCRAPERS, Endpoint
from gatecrew.common.errors import ConfigError, ListenError
from gatecrew.common.observation import Observation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Seen:
    """A process that is looked at."""

    def __init__(self) -> None:
        self.unready = ""
        self.broken = False
        self.port = 0

    def observe(self) -> Observation:
        if self.broken:
            raise RuntimeError("a bug")
        return Observation(self.unready, {"connections": 3})

    async def send(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        answer = await self.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()


@pytest.fixture
async def seen() -> AsyncIterator[Seen]:
    seen = Seen()
    async with at("http://127.0.0.1:0", seen) as url:
        seen.port = int(url.rpartition(":")[2].partition("/")[0])
        yield seen


@asynccontextmanager
async def at(listen: str, seen: Seen) -> AsyncIterator[str]:
    it = Endpoint("gateway", "gateway-1", seen.observe)
    try:
        yield await it.start(listen)
    finally:
        await it.stop()


async def test_it_tells_the_metrics(seen: Seen) -> None:
    status, body = await seen.get("/metrics")

    assert status == 200
    assert 'gatecrew_connections{process="gateway-1",role="gateway"} 3.0' in body


async def test_it_tells_whether_the_process_lives_and_whether_it_can_serve(seen: Seen) -> None:
    assert await seen.get("/healthz") == (200, "ok\n")
    assert await seen.get("/readyz") == (200, "ok\n")
    seen.unready = "no worker takes events"
    assert await seen.get("/healthz") == (200, "ok\n")
    assert await seen.get("/readyz?verbose") == (503, "no worker takes events\n")


async def test_it_answers_nothing_else(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    assert (await seen.get("/"))[0] == 404
    assert (await seen.get("/metrics", "POST"))[0] == 405
    assert await seen.get("/metrics", "HEAD") == (200, "")
    assert await seen.send(b"x" * 2 * MAX_REQUEST) == b""
    seen.broken = True
    assert (await seen.get("/metrics"))[0] == 500
    assert "/metrics cannot be answered" in caplog.text


async def test_who_sends_no_request_is_cut_off(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 0.05)

    assert await seen.send(b"GET /met") == b""


async def test_so_many_look_at_a_time_and_no_more(seen: Seen) -> None:
    slow = [asyncio.create_task(seen.send(b"GET /met")) for _ in range(MAX_SCRAPERS)]
    await asyncio.sleep(0)
    while True:
        try:
            await asyncio.wait_for(seen.get("/healthz"), 5)
        except IndexError:  # no answer at all
            break
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_it_takes_the_first_free_port_of_a_range(seen: Seen) -> None:
    with pytest.raises(ListenError, match=r"\[metrics\] listen: cannot listen on http://127.0.0.1:"):
        async with at(f"http://127.0.0.1:{seen.port}", seen):
            pass
    async with at(f"http://127.0.0.1:{seen.port}-{min(seen.port + 50, 65535)}", seen) as url:
        assert url != f"http://127.0.0.1:{seen.port}/metrics"


async def test_what_is_not_installed_is_named(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ConfigError, match=r"pip install 'gatecrew\[metrics\]'"):
        async with at("http://127.0.0.1:0", seen):
            pass
