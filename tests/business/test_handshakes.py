"""Handshake handlers at a worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from gatecrew import Accept, App, AppError, Client, Refuse, Request, Token
from websockets.exceptions import InvalidStatus

from .waiting import until

if TYPE_CHECKING:
    from .conftest import House


async def refused(house: House, path: str = "/") -> int:
    with pytest.raises(InvalidStatus) as error:
        async with house.client(path):
            pass
    return error.value.response.status_code


def greeting() -> App:
    """Return an app that tells its clients who they are."""
    app = App()

    @app.on_connect
    async def hello(client: Client, request: Request) -> None:
        client.send(f"{client.uid} {client.session}")

    return app


async def test_a_blocking_handler_decides_in_a_thread(house: House) -> None:
    app = greeting()

    @app.on_handshake
    def admit(request: Request) -> Accept | Refuse:
        return Accept(uid="ann", session={"a": 1}) if request.path == "/in" else Refuse(403)

    await house.work(app)
    async with house.client("/in") as client:
        assert await client.recv() == "ann {'a': 1}"
    assert await refused(house) == 403


async def test_the_first_that_decides_decides_and_included_ones_come_last(house: House) -> None:
    app, other = greeting(), App()
    asked: list[str] = []

    @other.on_handshake
    async def last(request: Request) -> Accept:
        asked.append("last")
        return Accept(uid="bob")

    @app.on_handshake
    async def first(request: Request) -> Accept | None:
        asked.append("first")
        return Accept(uid="ann") if request.path == "/ann" else None

    app.include(other)
    await house.work(app)
    for path, uid in (("/ann", "ann"), ("/", "bob")):
        async with house.client(path) as client:
            assert await client.recv() == f"{uid} {{}}"
    assert asked == ["first", "first", "last"]


async def test_what_a_handler_commands_leaves_when_it_ends(house: House) -> None:
    app = greeting()

    @app.on_handshake
    async def tell(request: Request) -> Refuse | None:
        app.send_to_all(f"somebody is at {request.path}")
        return Refuse(429) if request.path == "/again" else None

    await house.work(app)
    async with house.client() as client:
        assert await client.recv() == "None {}"
        assert await refused(house, "/again") == 429
        assert await client.recv() == "somebody is at /again"


async def test_a_handler_past_its_time_limit_or_with_a_strange_decision_lets_nobody_in(house: House) -> None:
    app = App()
    errors: list[str] = []

    @app.on_handshake  # type: ignore[type-var]
    async def hang(request: Request) -> bool:
        if request.path == "/hang":
            await asyncio.Event().wait()
        return True

    @app.on_error
    async def failed(client: Client | None, error: Exception) -> None:
        errors.append(type(error).__name__)

    await house.work(app, handler_timeout=0.05)

    assert [await refused(house, path) for path in ("/hang", "/true")] == [500, 500]
    await until(lambda: errors == ["HandlerTimeout", "AppError"])


async def test_a_worker_that_stops_decides_on_what_it_has(house: House) -> None:
    app = greeting()
    released, asked = asyncio.Event(), asyncio.Event()

    @app.on_handshake
    async def admit(request: Request) -> Accept:
        asked.set()
        await released.wait()
        return Accept(uid="ann")

    worker = await house.work(app)
    await house.work(greeting(), "worker-2")

    async def come() -> str | bytes:
        async with house.client() as client:
            return await client.recv()

    coming = asyncio.create_task(come())
    await asked.wait()
    stopping = asyncio.create_task(worker.stop())
    await until(lambda: len(house.gateway._dispatch.workers) == 1)
    released.set()

    assert await coming == "ann {}"
    await stopping


async def test_a_handler_whose_gateway_is_lost_is_cancelled_and_another_worker_decides(house: House) -> None:
    app = greeting()
    asked: list[asyncio.Task[object] | None] = []

    @app.on_handshake
    async def admit(request: Request) -> Accept:
        asked.append(asyncio.current_task())
        if len(asked) == 1:
            await asyncio.Event().wait()
        return Accept(uid="ann")

    workers = [await house.work(app, name) for name in ("worker-1", "worker-2")]

    async def come() -> str | bytes:
        async with house.client() as client:
            return await client.recv()

    coming = asyncio.create_task(come())
    await until(lambda: asked)
    (asks,) = (worker for worker in workers if worker._runner._handshakes)
    await house.cut(asks)

    assert await coming == "ann {}"
    assert asked[0] is not None
    assert asked[0].cancelled()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Accept(uid=""), "a uid of 0 characters"),
        (lambda: Accept(uid="ann", device="x" * 513), "a device of 513 characters"),
        (lambda: Accept(groups=[""]), "a group of 0 characters"),
        (lambda: Accept(session={1: 2}), "the keys of a session are strings"),  # type: ignore[dict-item]
        (lambda: Refuse(200), "status 200, expected 400 to 599"),
        (lambda: Refuse(401, "x" * 1001), "a reason of 1001 characters"),
        (lambda: Token(5, id="").fields(), "a token id of 0 characters"),
    ],
)
def test_a_decision_that_cannot_be_is_a_mistake_in_its_line(make: object, problem: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=problem):
        make()


def test_a_handler_that_takes_something_else_is_a_mistake() -> None:
    with pytest.raises(AppError, match=r"on_handshake: <lambda> .* is called with \(request\)"):
        App().on_handshake(lambda client, request: None)  # type: ignore[type-var]


def test_a_request_has_cookies_and_offers() -> None:
    headers = [("Cookie", 'a=1; b="two"'), ("cookie", "c = 3; a=4"), ("Sec-WebSocket-Protocol", "v1, v2"), ("X", "y")]
    request = Request("/", {}, [*headers, ("Sec-WebSocket-Protocol", "v3")], "", "", None)

    assert [request.cookie(name, "none") for name in ("a", "b", "c", "d")] == ["1", "two", "3", "none"]
    assert request.subprotocols == ["v1", "v2", "v3"]
