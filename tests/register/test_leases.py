"""Leases and the stream of their changes."""

from __future__ import annotations

from typing import Any

import pytest
from gatecrew.common.errors import LinkError
from gatecrew.register.leases import ANNOUNCE_EVERY, MAX_MEMBERS, Leases, time_to_live
from gatecrew.register.view import Changes, Member
from hypothesis import given
from hypothesis import strategies as st

TTL = 3.0
NOTHING = Changes([], [])


def member(key: str, name: str = "worker-1") -> Member:
    return Member("worker", name, key, "", {})


A, B = member("a"), member("b", "worker-2")


def leases(*members: Member) -> Leases:
    """Return leases that began at second 0, of which everybody was told."""
    made = Leases("epoch", TTL, 0.0)
    for one in members:
        made.heartbeat(one, {}, 0.0)
    made.drain()
    return made


def test_a_first_heartbeat_makes_a_member_and_the_next_ones_keep_it() -> None:
    some = leases()
    assert some.heartbeat(A, {}, 0.0)
    assert not some.heartbeat(A, {}, 1.0)
    assert some.drain() == Changes([A], [])
    assert some.members() == [A]
    assert len(some) == 1


def test_who_is_silent_for_the_time_to_live_is_gone() -> None:
    some = leases(A, B)
    some.heartbeat(B, {}, 2.0)
    for second in (1.0, 2.0, 3.0):
        assert some.expire(second) == []
    assert some.expire(3.1) == [A]
    assert some.drain() == Changes([], [A])
    assert some.members() == [B]


def test_who_leaves_is_gone_at_once() -> None:
    some = leases(A)
    assert some.leave("a") == A
    assert some.leave("a") is None
    assert some.drain() == Changes([], [A])


def test_a_successor_of_the_same_name_is_there_beside_the_old_process() -> None:
    new = member("new")
    some = leases(A)
    some.heartbeat(new, {}, 1.0)
    assert some.members() == [A, new]
    some.leave("a")
    assert some.members() == [new]


def test_who_came_and_went_between_two_drains_is_not_spoken_of() -> None:
    some = leases(A)
    some.heartbeat(B, {}, 0.0)
    some.leave("b")
    some.leave("a")
    some.heartbeat(A, {}, 0.0)
    assert some.drain() == NOTHING
    assert some.number == 1


def test_changes_are_numbered_without_gaps() -> None:
    some = leases()
    numbers = []
    for one in (A, B):
        some.heartbeat(one, {}, 0.0)
        some.drain()
        some.drain()
        numbers.append(some.number)
    assert numbers == [1, 2]


def test_a_member_says_one_thing_of_itself() -> None:
    some = leases(A)
    with pytest.raises(LinkError, match="something else of itself"):
        some.heartbeat(A._replace(address="tcp://127.0.0.1:1"), {}, 1.0)


def test_a_key_that_left_and_comes_back_as_somebody_else_is_told_as_both() -> None:
    some = leases(A)
    some.leave("a")
    other = A._replace(address="tcp://127.0.0.1:1")
    some.heartbeat(other, {}, 0.0)
    assert some.drain() == Changes([other], [A])


def test_there_is_room_for_thousands_and_no_more() -> None:
    some = leases(*(member(str(number)) for number in range(MAX_MEMBERS)))
    with pytest.raises(LinkError, match=f"there are {MAX_MEMBERS} members already"):
        some.heartbeat(A, {}, 0.0)
    assert not some.heartbeat(member("0"), {}, 1.0)


def test_a_register_that_was_stopped_itself_holds_that_against_nobody() -> None:
    some = leases(A, B)
    some.expire(1.0)
    some.heartbeat(B, {}, 61.0)
    assert some.expire(61.0) == []
    assert [report["age"] for report in some.report(61.0)] == [1.0, 0.0]
    assert some.expire(62.0) == []
    assert some.expire(63.1) == [A]


def test_a_report_has_the_last_stats_and_their_age() -> None:
    some = leases(A)
    some.heartbeat(A, {"pid": 7}, 1.0)
    assert some.report(1.5) == [
        {"role": "worker", "name": "worker-1", "key": "a", "address": "", "meta": {}, "stats": {"pid": 7}, "age": 0.5}
    ]


@pytest.mark.parametrize(("dead_after", "ttl"), [(0.02, 3.0), (2.0, 3.0), (10.0, 11.0)])
def test_a_lease_outlasts_a_silent_link_and_two_lost_heartbeats(dead_after: float, ttl: float) -> None:
    assert time_to_live(dead_after) == ttl
    assert ttl > dead_after
    assert ttl > 2 * ANNOUNCE_EVERY


KEYS = st.sampled_from("abcdef")
HEARTBEAT = st.tuples(st.just("heartbeat"), KEYS)
LEAVE = st.tuples(st.just("leave"), KEYS)
WAIT = st.tuples(st.just("wait"), st.floats(0.0, TTL / 3))
DRAIN = st.tuples(st.just("drain"), st.none())


@given(st.lists(HEARTBEAT | LEAVE | WAIT | DRAIN, max_size=60))
def test_a_snapshot_and_the_changes_after_it_tell_who_is_alive(steps: list[tuple[str, Any]]) -> None:
    some, now = Leases("epoch", TTL, 0.0), 0.0
    renewed: dict[str, float] = {}
    watchers: list[dict[str, Member]] = []  # one from each drain on, who starts with a snapshot
    for verb, what in [*steps, ("drain", None)]:
        if verb == "heartbeat":
            assert some.heartbeat(member(what), {}, now) == (what not in renewed)
            renewed[what] = now
        elif verb == "leave":
            assert (some.leave(what) is not None) == (what in renewed)
            renewed.pop(what, None)
        elif verb == "wait":
            now += what
            late = {key for key, at in renewed.items() if now - at > TTL}
            assert {one.key for one in some.expire(now)} == late
            renewed = {key: at for key, at in renewed.items() if key not in late}
        else:
            joined, left = some.drain()
            for known in watchers:
                for one in left:
                    del known[one.key]
                for one in joined:
                    assert one.key not in known
                    known[one.key] = one
            watchers.append({one.key: one for one in some.members()})
    for known in watchers:
        assert known.keys() == renewed.keys()
