"""The small examples, each through a real cluster."""

from __future__ import annotations

import json
import threading
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING

import pytest
from gatecrew.testing import Simulation, simulate
from websockets.exceptions import ConnectionClosed

from .conftest import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

    from .conftest import Running, Start


def test_echo_sends_back_what_comes(start: Start) -> None:
    with start("echo", "echo:app").connect() as client:
        for data in ("Grüße", b"\x00\xff"):
            client.send(data)
            assert client.recv(timeout=10) == data


def test_echo_goes_on_when_its_worker_dies() -> None:
    spec = spec_from_file_location("echo", EXAMPLES / "echo" / "echo.py")
    assert spec is not None
    assert spec.loader is not None
    echo = module_from_spec(spec)
    spec.loader.exec_module(echo)

    @simulate(echo.app, workers=2)
    async def test(cluster: Simulation) -> None:
        clients = [await cluster.connect() for _ in range(5)]
        cluster.kill("worker-1")
        for client in clients:
            client.send("hello")
        assert [await client.receive() for client in clients] == ["hello"] * 5

    test()


def test_the_clock_ticks_once_a_second_for_everybody_though_there_are_three_workers(start: Start) -> None:
    running = start("clock", "--workers", "3", "--gateways", "2", "clock:app")
    with running.connect() as one, running.connect() as other:
        ticks: list[str | bytes] = []
        while len(set(ticks)) < 4:
            ticks.append(one.recv(timeout=10))

        # from three workers it would be ten; a tick that is late may fall into the second of the next
        assert len(ticks) < 8
        assert other.recv(timeout=10) in ticks


@pytest.fixture(scope="module")
def pushing(start: Start) -> Running:
    return start("push_from_flask", "-c", "gatecrew.toml", SITE_SECRET="a secret of tests")


@pytest.fixture
def site(pushing: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    for name, value in pushing.env.items():
        monkeypatch.setenv(name, value)
    spec = spec_from_file_location("push_from_flask_web", EXAMPLES / "push_from_flask" / "web.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.cluster:
        yield module.site.test_client()


def query(site: FlaskClient, customer: str) -> str:
    """Return what the site has a customer's browser put behind the address of the WebSocket."""
    return f"?token={json.loads(site.get('/token', query_string={'customer': customer}).data)['token']}"


def test_a_flask_view_pushes_to_all_browsers_of_a_customer_and_to_nobody_else(
    pushing: Running, site: FlaskClient
) -> None:
    with (
        pushing.connect(query(site, "ann")) as phone,
        pushing.connect(query(site, "ann")) as laptop,
        pushing.connect(query(site, "bob")) as other,
    ):
        for client, customer in ((phone, "ann"), (laptop, "ann"), (other, "bob")):
            assert json.loads(client.recv(timeout=10)) == {"hello": customer}
        assert site.post("/orders/7/shipped", data={"customer": "ann"}).json == {"online": True}
        assert site.post("/orders/8/shipped", data={"customer": "bob"}).json == {"online": True}

        for client, number in ((phone, 7), (laptop, 7), (other, 8)):
            assert json.loads(client.recv(timeout=10)) == {"order": number, "state": "shipped"}


def test_who_is_not_there_is_not_online(site: FlaskClient) -> None:
    assert site.post("/orders/9/shipped", data={"customer": "nobody"}).json == {"online": False}


def test_views_in_several_threads_push_at_once(pushing: Running, site: FlaskClient) -> None:
    def ship(number: int) -> None:
        site.application.test_client().post(f"/orders/{number}/shipped", data={"customer": "cleo"})

    with pushing.connect(query(site, "cleo")) as client:
        client.recv(timeout=10)
        views = [threading.Thread(target=ship, args=(number,)) for number in range(8)]
        for view in views:
            view.start()
        for view in views:
            view.join()

        assert sorted(json.loads(client.recv(timeout=10))["order"] for _ in views) == list(range(8))


def test_a_browser_without_a_good_token_is_sent_away(pushing: Running) -> None:
    with pushing.connect("?token=forged") as client, pytest.raises(ConnectionClosed, match="4401"):
        client.recv(timeout=10)
