"""How long to wait after failures."""

from __future__ import annotations

from gatecrew.common.backoff import Backoff
from hypothesis import given
from hypothesis import strategies as st

chance = st.floats(0, 1, exclude_max=True)


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(first=1.0, longest=10.0)

    assert [backoff.failed(0.0, 0.0) for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_time_of_health_is_forgiving() -> None:
    backoff = Backoff(first=1.0, longest=10.0, healthy=60.0)
    for _ in range(4):
        backoff.failed(59.9, 0.0)

    assert backoff.failed(60.0, 0.0) == 1.0
    assert backoff.failed(0.0, 0.0) == 2.0


def test_chance_shortens_a_delay_by_up_to_a_half() -> None:
    assert Backoff(first=1.0).failed(0.0, 0.5) == 0.75


def test_thousands_of_failures_are_no_problem() -> None:
    backoff = Backoff(failures=100_000)

    assert backoff.failed(0.0, 0.0) == backoff.longest


@given(st.lists(st.tuples(st.floats(0, 1000), chance), max_size=100))
def test_a_delay_is_within_its_bounds(failures: list[tuple[float, float]]) -> None:
    backoff = Backoff()

    for uptime, random in failures:
        assert backoff.first / 2 <= backoff.failed(uptime, random) <= backoff.longest
