"""Routers, hooks and pings of the gateways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .crew import Crew, until

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN = "gateway-own"


@pytest.fixture(scope="module")
def routed_crew() -> Iterator[Crew]:
    with Crew() as crew:
        crew.start("register-1", "worker-1", "worker-2")
        begun = [
            crew.begin("gateway", "gateway-random", gateway_router="random"),
            crew.begin("gateway", "gateway-least", gateway_router="least_loaded"),
            crew.begin("gateway", OWN, gateway_router="routing:by_path", gateway_hooks="routing"),
            crew.begin("gateway", "gateway-pings", gateway_ping_data="there?", gateway_ping_interval="0.2"),
        ]
        for process in begun:
            process.ready()
        crew.connect(OWN, "worker-1", "/worker-1")
        crew.connect(OWN, "worker-2", "/worker-2")
        yield crew


@pytest.fixture
def crew(routed_crew: Crew) -> Iterator[Crew]:
    yield routed_crew
    routed_crew.leave()


@pytest.mark.parametrize("gateway", ["gateway-random", "gateway-least"])
def test_a_client_may_move_and_keeps_order_and_session(crew: Crew, gateway: str) -> None:
    guest = crew.connect(gateway)
    workers = set()
    for number in range(40):
        calls = [guest.send("push", f"{number} {n}", 1) for n in range(3)]
        workers |= {guest.call("about")["pid"]}
        for n, call in enumerate(calls):
            assert guest.result(call)["notes"][-1] == f"{number} {n}"

    notes = [f"{number} {n}" for number in range(40) for n in range(3)]
    assert guest.call("about")["session"] == {"notes": notes}
    assert gateway != "gateway-random" or len(workers) == 2


def test_the_least_loaded_gets_what_comes(crew: Crew) -> None:
    busy, other = crew.connect("gateway-least"), crew.connect("gateway-least")
    held = busy.send("hold", 0.5)
    busy.next()

    workers = {other.call("about")["pid"] for _ in range(5)}

    assert workers == {crew.pid("worker-1"), crew.pid("worker-2")} - {busy.result(held)["pid"]}


def test_a_router_of_ones_own_chooses(crew: Crew) -> None:
    for name in ("worker-1", "worker-2"):
        guest = crew.connect(OWN, path=f"/{name}")
        assert {guest.call("about")["pid"] for _ in range(5)} == {crew.pid(name)}


def test_a_router_that_fails_is_told_and_clients_are_served_all_the_same(crew: Crew) -> None:
    guest = crew.connect(OWN, path="/nobody")

    assert guest.call("about")["pid"] in (crew.pid("worker-1"), crew.pid("worker-2"))
    assert "[gateway] router fails, its clients are placed as by sticky" in crew.processes[OWN].log


def test_hooks_hear_of_workers(crew: Crew) -> None:
    log = crew.processes[OWN]
    assert "hook: worker-1 connected" in log.log

    crew.start("worker-3")
    until(lambda: "hook: worker-3 connected" in log.log)
    crew.stop("worker-3")

    until(lambda: "hook: worker-3 is gone: left" in log.log)
    assert "[gateway] hooks: worker_gone failed" in log.log
    assert crew.connect(OWN, path="/worker-1").call("about")["pid"] == crew.pid("worker-1")


def test_pings_may_be_messages_and_any_message_answers(crew: Crew) -> None:
    guest = crew.connect("gateway-pings")

    for _ in range(4):
        assert guest.next() == "there?"
        guest.call("about")

    assert guest.closed() == (3008, "no answer to pings")
