"""A gateway that stops lets its clients go, a few at a time, to the other gateways."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed

from .crew import a_crew

if TYPE_CHECKING:
    from .crew import Guest

NAMES = ("register-1", "gateway-1", "gateway-2", "worker-1")
CLIENTS = 60


def answers(guest: Guest) -> bool:
    """Return whether the client still gets answers."""
    try:
        return bool(guest.call("about"))
    except ConnectionClosed:
        return False


def test_clients_are_told_in_turn_when_to_come_back_and_are_served_until_then() -> None:
    with a_crew(*NAMES, gateway_reconnect_rate="30") as crew:
        watcher = crew.connect("gateway-2")
        guests = [crew.connect("gateway-1") for _ in range(CLIENTS)]
        for guest in guests:
            watcher.do("client.join", f"watch {guest.id}")

        crew.processes["gateway-1"].signal(signal.SIGTERM)

        closes = [json.loads(watcher.next())["id"]]
        assert [guest for guest in guests if guest.id not in closes and answers(guest)]
        slots = []
        for guest in guests:
            code, reason = guest.closed()
            told = re.fullmatch(r"gateway_stopping retry=(\d+)", reason)
            assert code == 1012
            assert told
            slots.append(int(told[1]))
            assert crew.connect("gateway-2").hello
        assert 0 < min(slots) < max(slots)
        assert crew.ended("gateway-1") == 0
        closes += [json.loads(watcher.next())["id"] for _ in guests[1:]]
        assert sorted(closes) == sorted(guest.id for guest in guests)
        assert watcher.got() == [], "each close is told once"


def test_gateways_that_all_stop_do_not_wait_for_each_other() -> None:
    """At one client a second this would take a minute."""
    with a_crew(*NAMES, gateway_reconnect_rate="1", gateway_drain_timeout="600") as crew:
        guests = [crew.connect(name) for name in ("gateway-1", "gateway-2") for _ in range(CLIENTS)]

        for name in ("gateway-1", "gateway-2"):
            crew.processes[name].signal(signal.SIGTERM)

        assert {guest.closed()[0] for guest in guests} == {1012}
        assert crew.ended("gateway-1") == crew.ended("gateway-2") == 0


def test_without_a_register_the_time_for_it_is_bounded_all_the_same() -> None:
    with a_crew(*NAMES, gateway_reconnect_rate="1", gateway_drain_timeout="0.5") as crew:
        guests = [crew.connect("gateway-1") for _ in range(CLIENTS)]
        crew.kill("register-1")

        assert crew.stop("gateway-1") == 0

        assert {guest.closed()[0] for guest in guests} == {1012}
