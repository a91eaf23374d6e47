"""How an app is put together."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import gatecrew
import pytest
from gatecrew import App, AppError, Client

if TYPE_CHECKING:
    from .conftest import House


def test_a_decorator_gives_back_what_it_was_given() -> None:
    app = App()

    @app.on_message
    async def say(client: Client, data: str | bytes) -> None: ...

    assert app.functions("message") == [say]


def test_an_object_brings_its_methods() -> None:
    class Chat:
        def on_message(self, client: Client, data: str | bytes) -> None: ...

        async def on_start(self) -> None: ...

    chat = Chat()
    app = App(chat)

    assert app.functions("message") == [chat.on_message]
    assert app.functions("start") == [chat.on_start]
    assert app.functions("close") == []


def test_an_object_without_handlers_is_a_mistake() -> None:
    with pytest.raises(AppError, match=r"none of the methods on_start, on_handshake, on_connect, .*on_stop"):
        App(object())


@pytest.mark.parametrize(
    ("kind", "handler", "called_with"),
    [
        ("on_message", lambda client: None, r"\(client, data\)"),
        ("on_message", lambda client, data, more: None, r"\(client, data\)"),
        ("on_connect", lambda client: None, r"\(client, request\)"),
        ("on_close", lambda client, code: None, r"\(client, code, reason\)"),
        ("on_error", lambda error: None, r"\(client, error\)"),
        ("on_start", lambda app: None, r"\(\)"),
        ("on_stop", lambda app: None, r"\(\)"),
    ],
)
def test_a_handler_that_cannot_be_called_is_named_with_its_place(kind: str, handler: Any, called_with: str) -> None:
    with pytest.raises(AppError, match=rf"{kind}: <lambda> \(.*test_app\.py:\d+\) is called with {called_with}"):
        getattr(App(), kind)(handler)


def test_more_parameters_with_defaults_are_fine() -> None:
    App().on_message(lambda client, data, more=1, *rest, **options: None)
    App().on_message(functools.partial(lambda more, client, data: None, 1))
    App().on_start(print)


async def test_an_async_handler_behind_a_decorator_that_is_not_is_awaited(house: House) -> None:
    """It was run in a thread like a def handler, and what that returned, a coroutine, was thrown away."""

    def plain(function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: object) -> object:
            return function(*args)

        return call

    app = App()

    @app.on_message
    @plain
    async def say(client: Client, data: str) -> None:
        client.send(data)

    await house.work(app)
    async with house.client() as client:
        await client.send("hello")

        assert await client.recv() == "hello"


def test_a_timer_needs_some_seconds_and_a_function_without_parameters() -> None:
    with pytest.raises(AppError, match="more than 0 seconds"):
        App().every(0)
    with pytest.raises(AppError, match=r"every\(2\): <lambda>"):
        App().every(2)(lambda client: None)  # type: ignore[type-var]


def test_a_timer_without_parentheses_is_told_how_to_write_it() -> None:
    with pytest.raises(AppError, match=r"as in @app\.every\(60\)"):
        App().every(print)  # type: ignore[arg-type]


def test_a_class_in_place_of_an_object_is_told() -> None:
    class Chat:
        def on_message(self, client: Client, data: str | bytes) -> None: ...

    with pytest.raises(AppError, match=r"expected an object, as in App\(Chat\(\)\)"):
        App(Chat)


def test_a_method_that_looks_like_a_handler_and_is_none_is_told() -> None:
    class Chat:
        def on_message(self, client: Client, data: str | bytes) -> None: ...

        def on_conect(self, client: Client, request: object) -> None: ...

    with pytest.raises(AppError, match=r"on_conect is none of on_start, on_handshake, on_connect"):
        App(Chat())


def test_included_handlers_and_timers_come_after_the_own_ones_even_if_given_later() -> None:
    app, first, second = App(), App(), App()
    app.include(first)
    first.include(second)
    order: list[str] = []
    second.on_message(lambda client, data: order.append("second"))
    first.on_message(lambda client, data: order.append("first"))
    app.on_message(lambda client, data: order.append("app"))
    first.every(1)(lambda: None)
    for function in app.functions("message"):
        function(None, "")

    assert order == ["app", "first", "second"]
    assert len(app.timers()) == 1


def test_no_app_includes_itself() -> None:
    app, other = App(), App()
    app.include(other)
    with pytest.raises(AppError, match="cannot include itself"):
        other.include(app)
    with pytest.raises(AppError, match="cannot include itself"):
        app.include(app)


def test_outside_of_a_worker_it_says_what_to_use() -> None:
    with pytest.raises(AppError, match="outside of a worker use Cluster"):
        App().send_to_all("hi")


def test_outside_of_an_event_there_is_no_current_client() -> None:
    with pytest.raises(LookupError, match="no current client"):
        App().send_to_current_client("hi")


def test_all_public_names_are_there_and_nothing_else() -> None:
    for name in gatecrew.__all__:
        assert getattr(gatecrew, name) is not None
    assert dir(gatecrew) == sorted(gatecrew.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Worker'"):
        _ = gatecrew.Worker
