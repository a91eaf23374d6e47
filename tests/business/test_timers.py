"""Which worker runs a timer that the whole cluster has once."""

from __future__ import annotations

from gatecrew.business.timers import Turns
from hypothesis import given
from hypothesis import strategies as st

KEYS = st.sets(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=6)


def test_the_only_worker_runs_it_after_the_wait() -> None:
    turns = Turns("me", wait=2)
    turns.seen(["clock"], ["me"], now=10)

    assert not turns.holds("clock", now=11.9)
    assert turns.holds("clock", now=12)


def test_who_is_alone_again_waits_again() -> None:
    """Another one may have run it meanwhile, and must have stopped."""
    turns = Turns("a", wait=2)
    other = next(key for key in map(str, range(100)) if not _chosen("a", ["a", key]))
    turns.seen(["clock"], ["a"], now=0)
    turns.seen(["clock"], ["a", other], now=5)
    assert not turns.holds("clock", now=9)
    turns.seen(["clock"], ["a"], now=10)

    assert not turns.holds("clock", now=11)
    assert turns.holds("clock", now=12)


def test_a_worker_that_nobody_knows_of_runs_nothing() -> None:
    turns = Turns("me", wait=0)
    turns.seen(["clock"], [], now=0)
    turns.seen(["clock"], ["other"], now=1)

    assert not turns.holds("clock", now=100)


@given(KEYS)
def test_exactly_one_of_those_who_see_each_other_holds_it(keys: set[str]) -> None:
    assert sum(_chosen(key, sorted(keys)) for key in keys) == 1


@given(KEYS, st.text("xyz", min_size=1, max_size=4))
def test_a_worker_that_joins_takes_it_over_or_changes_nothing(keys: set[str], new: str) -> None:
    before = {key for key in keys if _chosen(key, keys)}
    after = {key for key in keys | {new} if _chosen(key, keys | {new})}

    assert after in (before, {new})


def _chosen(key: str, keys: set[str] | list[str]) -> bool:
    turns = Turns(key, wait=0)
    turns.seen(["clock"], keys, now=0)
    return turns.holds("clock", now=0)
