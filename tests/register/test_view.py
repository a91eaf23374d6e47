"""The union of what several registers say."""

from __future__ import annotations

from itertools import permutations

import pytest
from gatecrew.common.errors import LinkError
from gatecrew.register.view import Changes, Member, View
from hypothesis import given
from hypothesis import strategies as st

HOLD = 6.0
NOTHING = Changes([], [])
REGISTERS = ("one", "two", "three")


def member(key: str) -> Member:
    return Member("worker", f"worker-{key}", key, "", {})


A, B, C = map(member, "abc")
KEYS = st.sampled_from("abcdef")
MEMBERS = st.lists(KEYS.map(member), unique_by=lambda one: one.key)


def view(**known: list[Member]) -> View:
    """Return a view to which these registers gave a snapshot at second 0."""
    made = View(HOLD)
    for register, members in known.items():
        made.snapshot(register, members, 0.0)
    return made


def test_a_snapshot_brings_its_members() -> None:
    assert View(HOLD).snapshot("one", [A, B], 0.0) == Changes([A, B], [])


def test_a_member_that_two_registers_know_joins_once() -> None:
    assert view(one=[A]).snapshot("two", [A, B], 0.0) == Changes([B], [])


def test_a_member_leaves_when_the_last_register_says_so() -> None:
    both = view(one=[A], two=[A])
    assert both.change("one", [], ["a"]) == NOTHING
    assert both.change("two", [], ["a"]) == Changes([], [A])
    assert both.members == {}


def test_changes_say_who_came_and_who_went() -> None:
    assert view(one=[A]).change("one", [B], ["a"]) == Changes([B], [A])


def test_a_leaving_that_was_never_known_changes_nothing() -> None:
    assert view(one=[A]).change("one", [], ["x"]) == NOTHING


def test_a_restarted_register_makes_nobody_leave_before_they_had_time_to_announce_themselves() -> None:
    one = view(one=[A, B])
    one.lost("one", 1.0)
    assert one.snapshot("one", [], 2.0) == NOTHING
    assert one.change("one", [A], []) == NOTHING
    assert one.expire(2.0 + HOLD - 0.1) == NOTHING
    assert one.expire(2.0 + HOLD) == Changes([], [B])
    assert one.members == {"a": A}


def test_a_second_restart_does_not_prolong_the_hold() -> None:
    two = view(one=[A], two=[A])
    two.lost("one", 0.0)
    two.snapshot("two", [], 1.0)
    two.snapshot("two", [], 5.0)
    assert two.expire(1.0 + HOLD) == Changes([], [A])


def test_everything_stays_while_no_register_can_be_heard() -> None:
    one = view(one=[A, B])
    one.lost("one", 1.0)
    assert not one.heard
    assert one.expire(1e9) == NOTHING
    assert one.members == {"a": A, "b": B}


def test_the_hold_begins_when_a_register_can_be_heard_again() -> None:
    one = view(one=[A])
    one.lost("one", 1.0)
    one.snapshot("one", [], 1000.0)
    assert one.expire(1000.0 + HOLD - 0.1) == NOTHING
    assert one.expire(1000.0 + HOLD) == Changes([], [A])


def test_a_lost_register_does_not_keep_alive_whom_another_declares_gone() -> None:
    two = view(one=[A], two=[A])
    two.lost("one", 0.0)
    assert two.change("two", [], ["a"]) == Changes([], [A])


def test_what_only_a_lost_register_knew_is_held_and_goes() -> None:
    two = view(one=[A], two=[])
    assert two.lost("one", 1.0) == NOTHING
    assert two.members == {"a": A}
    assert two.expire(1.0 + HOLD) == Changes([], [A])


def test_losing_a_register_that_was_never_heard_changes_nothing() -> None:
    one = view(one=[A])
    one.lost("two", 1.0)
    assert one.expire(1e9) == NOTHING


@given(st.dictionaries(st.sampled_from(REGISTERS), MEMBERS))
def test_the_order_of_registers_does_not_matter(known: dict[str, list[Member]]) -> None:
    unions = [view(**{register: known[register] for register in order}).members for order in permutations(known)]
    assert all(union == unions[0] for union in unions)


@given(st.dictionaries(st.sampled_from(REGISTERS), MEMBERS, min_size=1), st.data())
def test_merging_twice_changes_nothing(known: dict[str, list[Member]], data: st.DataObject) -> None:
    union = view(**known)
    before = dict(union.members)
    again = data.draw(st.sampled_from(sorted(known)))
    assert union.snapshot(again, known[again], 1.0) == NOTHING
    assert union.change(again, known[again], []) == NOTHING
    assert union.members == before
    assert union.expire(1e9) == NOTHING


SNAPSHOT = st.tuples(st.just("snapshot"), st.sampled_from(REGISTERS), MEMBERS)
CHANGE = st.tuples(st.just("change"), st.sampled_from(REGISTERS), MEMBERS, st.lists(KEYS, unique=True))
LOST = st.tuples(st.just("lost"), st.sampled_from(REGISTERS))
WAIT = st.tuples(st.just("wait"), st.floats(0.0, 2 * HOLD))


@given(st.lists(SNAPSHOT | CHANGE | LOST | WAIT, max_size=40))
def test_whatever_happens_the_changes_tell_the_union_and_the_vouched_for_are_in_it(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    union, now = View(HOLD), 0.0
    told: dict[str, Member] = {}  # what somebody knows who only hears of the changes
    vouched: dict[str, set[str]] = {}
    for step in steps:
        changes = NOTHING
        match step:
            case ("snapshot", register, members):
                changes = union.snapshot(register, members, now)
                vouched[register] = {one.key for one in members}
            case ("change", register, joined, left) if register in vouched:
                changes = union.change(register, joined, left)
                vouched[register] = (vouched[register] - set(left)) | {one.key for one in joined}
            case ("lost", register):
                changes = union.lost(register, now)
                vouched.pop(register, None)
            case ("wait", seconds):
                now += seconds
                changes = union.expire(now)
        for one in changes.left:
            del told[one.key]  # only those leave who were there
        for one in changes.joined:
            assert one.key not in told
            told[one.key] = one
        assert told == union.members
        assert set().union(*vouched.values()) <= union.members.keys()
        assert union.heard == bool(vouched)
    union.expire(now + HOLD)
    if vouched:
        assert union.members.keys() == set().union(*vouched.values())


def test_a_member_is_read_from_what_came_over_the_wire() -> None:
    assert Member.read(["gateway", "gateway-1", "abc", "ipc:///tmp/x", {"a": 1}]) == Member(
        "gateway", "gateway-1", "abc", "ipc:///tmp/x", {"a": 1}
    )


@pytest.mark.parametrize(
    "rubbish",
    [
        None,
        "worker",
        [],
        ["worker", "w", "k", ""],
        ["worker", "w", "k", "", {}, 1],
        ["worker", "w", "k", "", []],
        ["worker", b"w", "k", "", {}],
        ["worker", "w", "", "", {}],
        ["worker", "", "k", "", {}],
        ["", "w", "k", "", {}],
        ["worker", "w" * 513, "k", "", {}],
        ["worker", "w", "k", "", {"a": "b" * 5000}],
    ],
)
def test_what_is_no_member_is_refused(rubbish: object) -> None:
    with pytest.raises(LinkError, match="without a proper role, name"):
        Member.read(rubbish)


def test_a_member_shows_its_role_name_and_key() -> None:
    assert repr(A) == "worker worker-a (a)"
