"""What was carried out already is known by its origin and number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatecrew.gateway.repeats import Repeats
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from random import Random


def test_a_number_is_new_once() -> None:
    repeats = Repeats()

    assert [repeats.seen("event", number) for number in (1, 1, 2, 1, 2, 4, 3)] == [
        False,
        True,
        False,
        True,
        True,
        False,
        True,
    ]


def test_origins_do_not_know_of_each_other() -> None:
    repeats = Repeats()

    assert [repeats.seen(origin, 7) for origin in "abab"] == [False, False, True, True]


def test_the_origin_that_was_heard_of_longest_ago_is_forgotten() -> None:
    repeats = Repeats(2)
    repeats.seen("a", 1)
    repeats.seen("b", 1)
    repeats.seen("a", 1)
    repeats.seen("c", 1)

    assert len(repeats) == 2
    assert [repeats.seen(origin, 1) for origin in "ac"] == [True, True]
    assert not repeats.seen("b", 1)


@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(1, 9), unique=True).map(sorted)),
    st.randoms(use_true_random=False),
    st.integers(1, 3),
)
def test_however_often_they_come_again_parts_are_carried_out_once_and_in_order(
    sent: dict[str, list[int]], random: Random, times: int
) -> None:
    """Each sender sends the parts of each origin in order, from the first on, and may break off; then the next one does."""
    repeats = Repeats()
    done: dict[str, list[int]] = {origin: [] for origin in sent}
    runs = [(origin, iter(numbers)) for origin, numbers in sent.items() for _ in range(times)]
    while runs:
        origin, run = random.choice(runs)
        number = next(run, None)
        if number is None:
            runs.remove((origin, run))
        elif not repeats.seen(origin, number):
            done[origin].append(number)

    assert done == sent
