"""Sessions: dicts that the gateways hold and handlers change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .crew import Guest


def test_what_a_handler_changes_in_place_is_saved(ann: Guest, bob: Guest) -> None:
    ann.do("push", "one", 2)
    ann.do("push", "two", 1)

    session = {"notes": ["one", "one", "two"]}
    assert ann.call("about")["session"] == bob.call("get_session", ann.id) == session
    ann.do("drop", "notes")
    assert ann.call("about")["session"] == bob.call("get_session", ann.id) == {}


def test_it_is_set_as_a_whole(ann: Guest, bob: Guest) -> None:
    ann.do("push", "one", 1)

    bob.do("set_session", ann.id, {"a": {"deep": [1, None, 2.5, True]}})

    assert ann.call("about")["session"] == ann.call("get_session", ann.id) == {"a": {"deep": [1, None, 2.5, True]}}


def test_an_update_leaves_the_other_keys(ann: Guest, bob: Guest) -> None:
    ann.do("set_session", "<me>", {"a": 1, "b": 1})

    bob.do("update_session", ann.id, {"b": 2, "c": 2})

    assert ann.call("about")["session"] == bob.call("get_session", ann.id) == {"a": 1, "b": 2, "c": 2}


def test_changes_of_two_workers_to_different_keys_both_stay(ann: Guest, bob: Guest) -> None:
    for number in range(20):
        theirs = bob.send("update_session", ann.id, {f"bob {number}": 1})
        ann.call("push", "mine", 1)
        bob.result(theirs)
    bob.do("flush")

    assert ann.call("get_session", ann.id) == {f"bob {number}": 1 for number in range(20)} | {"notes": ["mine"] * 20}
    assert ann.call("about")["session"] == ann.call("get_session", ann.id)


def test_calls_and_changes_in_place_mix(ann: Guest) -> None:
    assert ann.call("set_and_edit") == {"a": 1, "b": 2, "c": 3}
    assert ann.call("get_session", ann.id) == ann.call("about")["session"] == {"a": 1, "b": 2, "c": 3}


def test_a_handler_that_raises_leaves_it_as_it_was(ann: Guest, bob: Guest) -> None:
    ann.do("push", "one", 1)

    ann.send("change_all_and_fail", flush=False, raises=True)

    assert ann.next() == "sorry: ValueError: changed my mind"
    assert ann.call("about")["session"] == bob.call("get_session", ann.id) == {"notes": ["one"]}


def test_what_was_flushed_stays_when_a_handler_raises(ann: Guest, bob: Guest) -> None:
    ann.send("change_all_and_fail", flush=True, raises=True)

    assert [ann.next() for _ in range(3)] == ["half", "half", "sorry: ValueError: changed my mind"]
    about = ann.call("about")
    assert (about["session"], about["uid"]) == ({"half": "done"}, "half")
    assert bob.call("get_session", ann.id) == {"half": "done"}


def test_what_it_cannot_hold_fails_the_handler(ann: Guest) -> None:
    ann.send("sessions_are_data")

    said = ann.next()
    assert isinstance(said, str)
    assert said.startswith("sorry: TypeError: ")
    assert ann.call("about")["session"] == {}


def test_of_all_and_of_a_group(ann: Guest, bob: Guest, cyd: Guest) -> None:
    sessions: dict[str, dict[str, Any]] = {guest.id: {"n": n} for n, guest in enumerate((ann, bob, cyd))}
    for client_id, session in sessions.items():
        ann.do("set_session", client_id, session)
    for guest in (ann, bob):
        guest.do("client.join", "g1")

    assert cyd.call("get_all_client_sessions") == sessions
    of_group = {guest.id: sessions[guest.id] for guest in (ann, bob)}
    assert cyd.call("get_client_sessions_by_group", "g1") == cyd.call("group.sessions", "g1") == of_group


def test_a_new_client_has_an_empty_one(ann: Guest, bob: Guest) -> None:
    assert ann.call("about")["session"] == bob.call("get_session", ann.id) == {}


@pytest.mark.parametrize("call", ["set_session", "update_session"])
def test_of_a_client_that_is_gone_is_not_kept(ann: Guest, gone: str, call: str) -> None:
    ann.do(call, gone, {"a": 1})

    assert ann.call("get_session", gone) is None
