"""How fast a counter rises."""

from __future__ import annotations

from gatecrew.common.rate import Rate


def test_it_is_that_of_the_time_since_the_last_look() -> None:
    rate = Rate(10.0)

    assert rate.of(100, 12.0) == 50.0
    assert rate.of(100, 13.0) == 0.0
    assert rate.of(110, 17.0) == 2.5


def test_looks_in_quick_succession_say_the_same() -> None:
    rate = Rate(0.0)
    rate.of(10, 1.0)

    assert rate.of(10, 1.1) == 10.0
    assert rate.of(10, 1.4) == 10.0
