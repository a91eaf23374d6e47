"""Questions, which both gateways answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .crew import Guest


def in_order(lists: dict[str, list[str]]) -> dict[str, list[str]]:
    return {key: sorted(values) for key, values in lists.items()}


def test_who_is_online(ann: Guest, bob: Guest, gone: str) -> None:
    assert [ann.call("is_online", one) for one in (ann.id, bob.id, gone)] == [True, True, False]
    assert ann.call("client.is_online") is True


def test_all_clients(ann: Guest, bob: Guest, cyd: Guest, gone: str) -> None:
    assert ann.call("get_all_client_id_count") == 3
    assert sorted(bob.call("get_all_client_id_list")) == sorted([ann.id, bob.id, cyd.id])


def test_all_uids(ann: Guest, bob: Guest, cyd: Guest) -> None:
    for guest, uid in ((ann, "u1"), (bob, "u1"), (cyd, "u2")):
        guest.do("client.bind", uid)

    assert ann.call("get_all_uid_count") == 2
    assert sorted(bob.call("get_all_uid_list")) == ["u1", "u2"]
    assert sorted(bob.call("get_client_id_by_uid", ["u1", "u2", "u1", "u3"])) == sorted([ann.id, bob.id, cyd.id])
    assert bob.call("get_client_id_by_uid", []) == []
    assert bob.call("is_uid_online", "u2") is True


def test_who_is_in_a_group(ann: Guest, bob: Guest, cyd: Guest) -> None:
    for guest in (ann, bob):
        guest.do("client.bind", "u1")
    for guest in (ann, bob, cyd):
        guest.do("client.join", "g1")

    assert cyd.call("get_client_id_count_by_group", "g1") == cyd.call("group.count", "g1") == 3
    assert sorted(cyd.call("group.clients", "g1")) == sorted([ann.id, bob.id, cyd.id])
    assert cyd.call("get_uid_count_by_group", "g1") == cyd.call("group.uid_count", "g1") == 1
    assert cyd.call("get_uid_list_by_group", "g1") == cyd.call("group.uids", "g1") == ["u1"]


def test_all_groups(ann: Guest, bob: Guest, cyd: Guest) -> None:
    for guest in (ann, bob):
        guest.do("client.bind", "u1")
        guest.do("client.join", "g1")
    for guest in (ann, cyd):
        guest.do("client.join", "g2")

    assert sorted(bob.call("get_all_group_id_list")) == ["g1", "g2"]
    assert in_order(bob.call("get_all_group_client_id_list")) == {
        "g1": sorted([ann.id, bob.id]),
        "g2": sorted([ann.id, cyd.id]),
    }
    assert bob.call("get_all_group_client_id_count") == {"g1": 2, "g2": 2}
    assert bob.call("get_all_group_uid_list") == {"g1": ["u1"], "g2": ["u1"]}
    assert bob.call("get_all_group_uid_count") == {"g1": 1, "g2": 1}


def test_who_is_in_any_of_several_groups_counts_once(ann: Guest, bob: Guest, cyd: Guest) -> None:
    for guest, groups in ((ann, ("g1", "g2")), (bob, ("g2",)), (cyd, ("g3",))):
        guest.do("client.bind", "u1")
        for group in groups:
            guest.do("client.join", group)
    several = ["g1", "g2", "g4"]

    assert cyd.call("get_client_id_count_by_group", several) == 2
    assert sorted(cyd.call("get_client_id_list_by_group", several)) == sorted([ann.id, bob.id])
    assert cyd.call("get_uid_count_by_group", several) == 1
    assert cyd.call("get_uid_list_by_group", several) == ["u1"]
    assert sorted(cyd.call("get_client_sessions_by_group", several)) == sorted([ann.id, bob.id])


def test_groups_without_a_uid_have_none(ann: Guest, bob: Guest) -> None:
    bob.do("client.join", "g1")

    assert ann.call("get_all_group_uid_list") == {"g1": []}
    assert ann.call("get_all_group_uid_count") == {"g1": 0}


def test_about_nobody_the_answer_is_empty(ann: Guest, gone: str) -> None:
    assert ann.call("is_uid_online", "nobody") is False
    assert ann.call("get_client_id_by_uid", "nobody") == []
    assert ann.call("get_uid_by_client_id", gone) is None
    assert ann.call("get_session", gone) is None
    assert ann.call("get_client_id_count_by_group", "nobody") == ann.call("get_uid_count_by_group", "nobody") == 0
    assert ann.call("get_client_id_list_by_group", "nobody") == ann.call("get_uid_list_by_group", "nobody") == []
    assert ann.call("get_client_sessions_by_group", "nobody") == {}
    assert ann.call("get_all_group_client_id_list") == ann.call("get_all_group_uid_list") == {}


def test_a_client_of_a_gateway_that_there_never_was_is_offline(ann: Guest) -> None:
    stranger = "a" * 24

    ann.do("send_to_client", stranger, "hello")
    assert ann.call("is_online", stranger) is False
    assert ann.call("get_session", stranger) is None


def test_a_handler_sees_what_it_commanded_itself(ann: Guest, bob: Guest) -> None:
    bob.do("client.join", "g1")

    assert ann.call("join_and_count", "g1") == 2
