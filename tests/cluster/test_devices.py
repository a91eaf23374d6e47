"""At most so many clients of a uid, through two gateways."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from gatecrew import BlockingCluster
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .crew import PATIENCE, Crew, until

if TYPE_CHECKING:
    from collections.abc import Iterator

GATEWAYS = ("gateway-1", "gateway-2")


def a_door(**settings: str) -> Crew:
    crew = Crew(worker_app="door_app:app", gateway_devices_per_uid="1", **settings)
    crew.start("register-1", *GATEWAYS, "worker-1")
    return crew


@pytest.fixture(scope="module")
def kicking() -> Iterator[Crew]:
    with a_door() as crew:
        yield crew


@pytest.fixture(scope="module")
def refusing() -> Iterator[Crew]:
    with a_door(gateway_devices_over="refuse") as crew:
        yield crew


class Visitors(ExitStack):
    """Clients, which leave at the end."""

    def come(self, crew: Crew, gateway: str, path: str) -> ClientConnection:
        """Let a client connect, and return it when its connect handler ran."""
        quiet: dict[str, Any] = {"compression": None, "proxy": None, "ping_interval": None, "open_timeout": PATIENCE}
        connection: ClientConnection = self.enter_context(connect(crew.processes[gateway].url + path, **quiet))
        connection.recv(PATIENCE)
        return connection


@pytest.fixture
def visitors() -> Iterator[Visitors]:
    with Visitors() as visitors:
        yield visitors


def fate(connection: ClientConnection) -> object:
    """Return whether a client may stay, or else what it was told."""
    try:
        connection.send("stay")
        return connection.recv(PATIENCE) == "did stay"
    except ConnectionClosed as closed:
        return closed.rcvd and (closed.rcvd.code, closed.rcvd.reason)


def online(crew: Crew, uid: str) -> int:
    with BlockingCluster(crew.config()) as cluster:
        return len(cluster.get_client_id_by_uid(uid))


KICKED = (1008, "too_many_devices")


def test_a_new_device_takes_the_place_of_the_oldest(kicking: Crew, visitors: Visitors) -> None:
    first = visitors.come(kicking, "gateway-1", "/?name=ann")
    second = visitors.come(kicking, "gateway-2", "/?name=ann")
    tv = visitors.come(kicking, "gateway-2", "/?name=ann&device=tv")
    until(lambda: online(kicking, "ann") == 2)

    assert [fate(connection) for connection in (first, second, tv)] == [KICKED, True, True]


def test_who_is_bound_later_counts_as_well(kicking: Crew, visitors: Visitors) -> None:
    first, second = (visitors.come(kicking, gateway, "/nameless") for gateway in GATEWAYS)
    for connection in (first, second):
        connection.send("bind bob")
        assert connection.recv(PATIENCE) == "did bind bob"
    until(lambda: online(kicking, "bob") == 1)

    assert sorted(map(str, map(fate, (first, second)))) == [str(KICKED), "True"]


def test_one_more_device_is_refused(refusing: Crew, visitors: Visitors) -> None:
    first = visitors.come(refusing, "gateway-1", "/?name=ann")

    with pytest.raises(InvalidStatus) as refused:
        visitors.come(refusing, "gateway-2", "/?name=ann")

    response = refused.value.response
    assert (response.status_code, b"too_many_devices" in (response.body or b"")) == (403, True)
    assert fate(first) is True
    first.close()
    until(lambda: online(refusing, "ann") == 0)
    until(lambda: enters(refusing, visitors, "gateway-2", "/?name=ann"))


def enters(crew: Crew, visitors: Visitors, gateway: str, path: str) -> ClientConnection | None:
    """Return a client that comes, unless it is refused."""
    try:
        return visitors.come(crew, gateway, path)
    except InvalidStatus:
        return None


def test_of_many_that_come_at_once_at_both_gateways_one_gets_in(refusing: Crew, visitors: Visitors) -> None:
    with ThreadPoolExecutor(8) as pool:
        tries = [pool.submit(enters, refusing, visitors, GATEWAYS[number % 2], "/?name=cyd") for number in range(8)]
        (inside,) = [found for attempt in tries if (found := attempt.result()) is not None]

    assert fate(inside) is True
    assert online(refusing, "cyd") == 1


def test_a_gateway_that_dies_takes_its_places_along_and_another_counts_what_it_counted(visitors: Visitors) -> None:
    names = [f"guest-{number}" for number in range(8)]
    with a_door(cluster_probe_interval="0.1", cluster_dead_after="0.6") as crew:
        kept = [visitors.come(crew, "gateway-1", f"/?name={name}") for name in names[:4]]
        for name in names[4:]:
            visitors.come(crew, "gateway-2", f"/?name={name}")

        crew.kill("gateway-2")
        until(lambda: crew.stats("gateway-2") == {})
        again = [visitors.come(crew, "gateway-1", f"/?name={name}") for name in names]
        until(lambda: [online(crew, name) for name in names] == [1] * 8)

        assert {fate(connection) for connection in kept} == {KICKED}
        assert {fate(connection) for connection in again} == {True}
