"""Deadlines and pings."""

from __future__ import annotations

from gatecrew.gateway.keepalive import UNSET, KeepAlive, Wheel
from hypothesis import given
from hypothesis import strategies as st

TICK = 0.5


class Item:
    def __init__(self) -> None:
        self.slot = UNSET


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.integers(0, 9), st.floats(0, 30)),
            st.tuples(st.just("cancel"), st.integers(0, 9), st.just(0.0)),
            st.tuples(st.just("wait"), st.just(0), st.floats(0, 20)),
        )
    ),
    st.integers(1, 5),
)
def test_a_deadline_is_never_early_and_late_by_less_than_a_tick(
    steps: list[tuple[str, int, float]], limit: int
) -> None:
    wheel: Wheel[Item] = Wheel(TICK)
    items = [Item() for _ in range(10)]
    deadlines: dict[Item, float] = {}
    now = 0.0
    for verb, number, amount in steps:
        if verb == "set":
            wheel.set(items[number], now + amount)
            deadlines[items[number]] = now + amount
        elif verb == "cancel":
            wheel.cancel(items[number])
            deadlines.pop(items[number], None)
        else:
            now += amount
            while due := wheel.due(now, limit):
                assert len(due) <= limit
                for item in due:
                    assert deadlines.pop(item) <= now
                    assert item.slot == UNSET
            assert all(deadline > now - TICK for deadline in deadlines.values())
        assert len(wheel) == len(deadlines)


def test_the_earliest_come_first() -> None:
    wheel: Wheel[Item] = Wheel(TICK)
    late, early = Item(), Item()
    wheel.set(late, 20)
    wheel.set(early, 10)

    assert [early] == wheel.due(100, 1)
    assert [late] == wheel.due(100, 1)
    assert wheel.due(100, 1) == []


def test_an_item_may_be_cancelled_twice() -> None:
    wheel: Wheel[Item] = Wheel(TICK)
    item = Item()
    wheel.set(item, 1)
    wheel.cancel(item)
    wheel.cancel(item)

    assert len(wheel) == 0


def test_a_silent_client_is_given_up_after_the_pings_it_may_miss() -> None:
    rule = KeepAlive(25, 2, b"ping")

    assert rule.next(0, paused=False) == 1
    assert rule.next(1, paused=False) == 2
    assert rule.next(2, paused=False) is None


@given(st.integers(0, 10))
def test_nobody_is_given_up_whose_answers_are_not_read(unanswered: int) -> None:
    assert KeepAlive(25, 2, b"ping").next(unanswered, paused=True) == 0


@given(st.floats(0, 1))
def test_first_pings_are_spread_over_half_an_interval(chance: float) -> None:
    assert 12.5 <= KeepAlive(25, 2, b"ping").first(chance) <= 25
