"""Uids and groups, through two gateways and two workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .crew import Failed

if TYPE_CHECKING:
    from .crew import Crew, Guest

# Uids


def test_a_uid_has_clients_at_both_gateways(ann: Guest, bob: Guest, cyd: Guest) -> None:
    ann.do("bind_uid", bob.id, "u1")
    ann.do("bind_uid", "<me>", "u1")

    assert sorted(cyd.call("get_client_id_by_uid", "u1")) == sorted([ann.id, bob.id])
    assert [bob.call("get_uid_by_client_id", guest.id) for guest in (ann, bob, cyd)] == ["u1", "u1", None]


def test_the_same_uid_bound_twice_is_bound_once(ann: Guest, bob: Guest) -> None:
    for _ in range(2):
        ann.do("client.bind", "u1")

    assert bob.call("uid.clients", "u1") == [ann.id]
    ann.do("client.unbind")
    assert bob.call("uid.is_online", "u1") is False


def test_another_uid_takes_the_place_of_the_first(ann: Guest, bob: Guest) -> None:
    ann.do("client.bind", "u1")
    bob.do("bind_uid", ann.id, "u2")

    assert bob.call("get_client_id_by_uid", ["u1", "u2"]) == [ann.id]
    assert bob.call("is_uid_online", "u1") is False
    assert bob.call("get_all_uid_list") == ["u2"]
    assert ann.call("about")["uid"] == "u2"


def test_unbinding_what_is_not_bound_is_no_error(ann: Guest, bob: Guest) -> None:
    ann.do("unbind_uid", bob.id)
    ann.do("client.unbind")

    assert ann.call("get_all_uid_count") == 0


def test_a_handler_sees_its_own_binding(ann: Guest) -> None:
    assert ann.call("bind_and_tell", "u1") == "u1"
    assert ann.call("about")["uid"] == "u1"


def test_a_uid_goes_with_its_last_client(crew: Crew, ann: Guest, bob: Guest, cyd: Guest) -> None:
    for guest in (bob, cyd):
        guest.do("client.bind", "u1")

    bob.leave()
    assert ann.call("is_uid_online", "u1") is True
    cyd.leave()
    assert ann.call("is_uid_online", "u1") is False
    assert ann.call("get_uid_by_client_id", cyd.id) is None


# Groups


def test_a_group_has_clients_of_both_gateways(ann: Guest, bob: Guest, cyd: Guest) -> None:
    ann.do("client.join", "g1")
    ann.do("join_group", bob.id, "g1")
    ann.do("group.join", "g1", cyd.id)

    assert sorted(ann.call("get_client_id_list_by_group", "g1")) == sorted([ann.id, bob.id, cyd.id])


def test_a_client_is_in_a_group_once(ann: Guest, bob: Guest) -> None:
    for _ in range(2):
        ann.do("client.join", "g1")

    bob.do("send_to_group", "g1", "hello")

    assert ann.got() == ["hello"]
    assert bob.call("group.count", "g1") == 1
    ann.do("client.leave", "g1")
    assert bob.call("group.count", "g1") == 0


def test_leaving_a_group_that_one_is_not_in_is_no_error(ann: Guest, bob: Guest) -> None:
    bob.do("client.join", "g1")

    ann.do("client.leave", "g1")
    ann.do("leave_group", "<me>", "g2")
    ann.do("group.leave", "g1", ann.id)

    assert ann.call("get_all_group_client_id_list") == {"g1": [bob.id]}


def test_an_empty_group_is_no_group(ann: Guest, bob: Guest) -> None:
    bob.do("client.join", "g1")
    assert ann.call("get_all_group_id_list") == ["g1"]

    ann.do("leave_group", bob.id, "g1")

    assert ann.call("get_all_group_id_list") == []
    assert ann.call("get_client_id_list_by_group", "g1") == []


def test_a_dissolved_group_has_nobody_anywhere(ann: Guest, bob: Guest, cyd: Guest) -> None:
    for guest in (ann, bob, cyd):
        guest.do("client.join", "g1")
        guest.do("client.join", "g2")

    ann.do("ungroup", "g1")
    ann.do("send_to_group", "g1", "hello")
    ann.do("group.ungroup", "nobody")

    assert (ann.got(), bob.got(), cyd.got()) == ([], [], [])
    assert bob.call("get_all_group_client_id_count") == {"g2": 3}


def test_a_client_that_is_gone_has_left_its_groups(ann: Guest, bob: Guest) -> None:
    for guest in (ann, bob):
        guest.do("client.join", "g1")

    bob.leave()

    assert ann.call("get_client_id_list_by_group", "g1") == [ann.id]


def test_who_is_gone_is_bound_to_nothing_and_joins_nothing(ann: Guest, gone: str) -> None:
    ann.do("bind_uid", gone, "u1")
    ann.do("unbind_uid", gone)
    ann.do("join_group", gone, "g1")
    ann.do("leave_group", gone, "g1")

    assert ann.call("get_all_uid_list") == ann.call("get_all_group_id_list") == []


# What is wrong with a call is raised in its line


@pytest.mark.parametrize(
    "call",
    [
        ("send_to_client", "nobody", "x"),
        ("send_to_client", ["nobody"], "x"),
        ("bind_uid", "nobody", "u"),
        ("unbind_uid", "nobody"),
        ("join_group", "nobody", "g"),
        ("leave_group", "nobody", "g"),
        ("set_session", "nobody", {}),
        ("update_session", "nobody", {}),
        ("close_client", "nobody"),
        ("destroy_client", "nobody"),
        ("client", "nobody"),
        ("is_online", "nobody"),
        ("get_uid_by_client_id", "nobody"),
        ("get_session", "nobody"),
        ("send_to_all", "x", ["nobody"]),
        ("send_to_all", "x", None, "nobody"),
        ("send_to_all", "x", [], ["nobody"]),
        ("send_to_group", "g", "x", ["nobody"]),
    ],
)
def test_what_is_no_client_id_is_an_error(ann: Guest, call: tuple[Any, ...]) -> None:
    with pytest.raises(Failed, match="ClientIdError: not a client id: 'nobody'"):
        ann.call(*call)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("client.bind", ""), "ValueError: a uid of 0 characters"),
        (("client.join", 5), "TypeError: a group is a string, not int"),
        (("send_to_group", ["g", ""], "x"), "ValueError: a group of 0 characters"),
        (("send_to_all", {"a": 1}), "TypeError: a message is str .* json.dumps makes text of it"),
        (("send_to_all", "\ud800"), "UnicodeEncodeError: "),
        (("send_to_client", 5, "x"), "TypeError: a client is a Client or its id, not int"),
        (("set_session", "<me>", [1]), "TypeError: a session is a dict, not list"),
        (("client.close", None, 1006), "ValueError: close code 1006, expected 1000 or one from 3000 to 4999"),
    ],
)
def test_what_cannot_be_is_an_error(ann: Guest, call: tuple[Any, ...], error: str) -> None:
    with pytest.raises(Failed, match=error):
        ann.call(*call)
