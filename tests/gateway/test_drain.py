"""How the clients of a gateway that stops are let go: the plan of one batch after the other."""

from __future__ import annotations

from itertools import pairwise

import pytest
from gatecrew.gateway.drain import EVERY, LONGEST, batch
from hypothesis import given
from hypothesis import strategies as st


def drained(clients: int, others: int, rate: float, left: float) -> list[tuple[float, float]]:
    """Return of each client the time at which it was told, and the time at which it comes back."""
    plan: list[tuple[float, float]] = []
    now = booked = 0.0
    while len(plan) < clients:
        slots = batch(clients - len(plan), others, rate, left - now, booked - now)
        plan += [(now, now + slot) for slot in slots]
        booked = plan[-1][1]
        now += EVERY
    return plan


def test_clients_go_as_fast_as_the_others_can_take_them() -> None:
    plan = drained(2000, others=2, rate=500, left=10)

    assert [sum(told == now for told, _ in plan) for now in (0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75)] == [250] * 8
    assert max(back - told for told, back in plan) == pytest.approx(EVERY)
    assert plan[-1][1] == pytest.approx(2.0)


def test_slots_keep_the_pace_if_there_is_no_time_to_wait() -> None:
    plan = drained(10_000, others=1, rate=500, left=10)

    assert plan[-1][0] < 10
    assert plan[-1][1] == pytest.approx(20.0)


def test_few_clients_go_at_once() -> None:
    assert batch(100, others=1, rate=500, left=10, booked=0) == pytest.approx([0.002 * n for n in range(1, 101)])


def test_without_another_gateway_all_go_at_once_and_come_back_one_after_the_other() -> None:
    slots = batch(10_000, others=0, rate=500, left=10, booked=0)

    assert len(slots) == 10_000
    assert slots[-1] == pytest.approx(20.0)


def test_if_the_others_stop_too_the_rest_goes_at_once_and_after_those_who_went_before() -> None:
    slots = batch(1000, others=0, rate=500, left=10, booked=0.2)

    assert len(slots) == 1000
    assert slots[0] > 0.2
    assert slots[-1] == pytest.approx(2.2)


def test_when_the_time_is_over_all_go() -> None:
    assert len(batch(1000, others=1, rate=1, left=-1, booked=0)) == 1000


def test_nobody_has_no_slot() -> None:
    assert batch(0, others=1, rate=500, left=10, booked=0) == []


@given(
    clients=st.integers(1, 5000),
    others=st.integers(0, 50),
    rate=st.integers(1, 10_000),
    left=st.floats(0, 20),
)
def test_each_is_told_in_time_of_a_slot_of_its_own(clients: int, others: int, rate: int, left: float) -> None:
    plan = drained(clients, others, rate, left)

    assert len(plan) == clients
    assert plan[-1][0] <= left
    assert all(0 < back - told <= LONGEST + 1e-9 for told, back in plan)
    gaps = [after - before for (_, before), (_, after) in pairwise(plan)]
    assert all(gap > -1e-9 for gap in gaps)
    needed = clients / (rate * max(others, 1))
    if needed < LONGEST:
        pace = needed / clients
        assert all(pace - 1e-9 < gap < pace + EVERY for gap in gaps), "no faster than the others can take them"
