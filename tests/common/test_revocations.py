"""What is revoked."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from gatecrew.common import revocations
from gatecrew.common.revocations import Revocations
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from random import Random

    import pytest

told = st.lists(st.tuples(st.sampled_from(["uid", "id"]), st.sampled_from("ab"), st.integers(1, 9), st.integers(1, 9)))


@given(told, st.randoms(use_true_random=False))
def test_it_does_not_matter_in_which_order_it_is_told_or_how_often(
    entries: list[tuple[str, str, int, int]], random: Random
) -> None:
    mixed = entries + entries
    random.shuffle(mixed)
    one, other = Revocations(), Revocations()
    for what, value, since, until in entries:
        one.add(what, value, since, until, 0)
    for what, value, since, until in mixed:
        other.add(what, value, since, until, 0)

    assert sorted(one.all(0)) == sorted(other.all(0))
    for uid, token_id, issued in itertools.product((None, "a"), (None, "a", "b"), range(10)):
        assert one.concern(uid, token_id, issued) == other.concern(uid, token_id, issued)


def test_what_others_told_already_is_no_news() -> None:
    revoked = Revocations()

    assert revoked.add("uid", "ann", 5, 10, 0)
    assert not revoked.add("uid", "ann", 4, 9, 0)
    assert revoked.add("uid", "ann", 6, 9, 0)
    assert not revoked.add("id", "t1", 0, 5, 5)
    assert list(revoked.all(0)) == [["uid", "ann", 6, 10]]


def test_past_a_bound_what_was_told_first_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "MAX_REVOKED", 2)
    revoked = Revocations()
    for token_id in ("t1", "t2", "t3"):
        revoked.add("id", token_id, 0, 10, 0)

    assert [value for _, value, _, _ in revoked.all(0)] == ["t2", "t3"]
    assert revoked.forgotten == 1
    assert len(revoked) == 2
