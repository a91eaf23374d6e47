"""A gateway that stops lets its clients go, a few at a time, to the other gateways."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from .crew import a_crew

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .crew import Crew, Guest

CLIENTS = 60


@pytest.fixture
def crew() -> Iterator[Crew]:
    with a_crew("register-1", "gateway-1", "gateway-2", "worker-1", gateway_reconnect_rate="50") as crew:
        yield crew


def answers(guest: Guest) -> bool:
    """Return whether the client still gets answers."""
    try:
        return bool(guest.call("about"))
    except ConnectionClosed:
        return False


def test_clients_are_told_in_turn_when_to_come_back_and_work_until_then(crew: Crew) -> None:
    watcher = crew.connect("gateway-2")
    guests = [crew.connect("gateway-1") for _ in range(CLIENTS)]
    for guest in guests:
        watcher.do("client.join", f"watch {guest.id}")

    crew.processes["gateway-1"].signal(signal.SIGTERM)

    staying = guests
    rounds = 0
    while staying := [guest for guest in staying if answers(guest)]:
        rounds += len(staying) < CLIENTS
    assert rounds, "some were told, and the others went on working"
    slots = []
    for guest in guests:
        code, reason = guest.closed()
        assert code == 1012
        slots.append(int(re.fullmatch(r"gateway_stopping retry=(\d+)", reason)[1]))  # type: ignore[index]
        crew.connect("gateway-2")
    assert 0 < min(slots) < max(slots)
    assert crew.ended("gateway-1") == 0
    closes = Counter(json.loads(watcher.next())["id"] for _ in guests)
    assert closes == Counter(guest.id for guest in guests)
    assert watcher.got() == [], "each close is told once"


def test_gateways_that_all_stop_do_not_wait_for_each_other(crew: Crew) -> None:
    guests = [crew.connect(gateway) for gateway in ("gateway-1", "gateway-2") for _ in range(CLIENTS)]

    for name in ("gateway-1", "gateway-2"):
        crew.processes[name].signal(signal.SIGTERM)

    told = [guest.closed() for guest in guests]
    assert {code for code, _ in told} == {1012}
    assert crew.ended("gateway-1") == crew.ended("gateway-2") == 0


def test_with_no_register_there_a_gateway_still_lets_go_and_leaves(crew: Crew) -> None:
    guests = [crew.connect("gateway-1") for _ in range(3)]
    crew.kill("register-1")

    assert crew.stop("gateway-1") == 0

    assert {guest.closed()[0] for guest in guests} == {1012}
