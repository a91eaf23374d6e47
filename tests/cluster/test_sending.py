"""Sending, through two gateways and two workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .crew import until

if TYPE_CHECKING:
    from .crew import Crew, Guest

BOTH = pytest.mark.parametrize("data", ["text \N{SNOWMAN}", b"\x00\xff", "", b""])


@BOTH
def test_to_all(ann: Guest, bob: Guest, cyd: Guest, data: str | bytes) -> None:
    ann.do("send_to_all", data)

    assert [guest.got() for guest in (ann, bob, cyd)] == [[data]] * 3


def test_to_all_but_some(ann: Guest, bob: Guest, cyd: Guest) -> None:
    ann.do("send_to_all", "not to me", exclude="<me>")
    ann.do("send_to_all", "not to us", exclude=[bob.id, cyd.id])
    ann.do("send_to_all", "to everybody", exclude=[])

    assert ann.got() == ["not to us", "to everybody"]
    assert bob.got() == cyd.got() == ["not to me", "to everybody"]


def test_to_all_of_some(ann: Guest, bob: Guest, cyd: Guest, gone: str) -> None:
    ann.do("send_to_all", "to two", only=[bob.id, cyd.id, gone])
    ann.do("send_to_all", "to one", only=[bob.id, cyd.id], exclude=cyd.id)
    ann.do("send_to_all", "to nobody", only=[])

    assert (ann.got(), bob.got(), cyd.got()) == ([], ["to two", "to one"], ["to two"])


@BOTH
def test_to_a_client_wherever_it_is(ann: Guest, bob: Guest, cyd: Guest, data: str | bytes) -> None:
    ann.do("send_to_client", bob.id, data)
    ann.do("send_to_client", cyd.id, data)

    assert (ann.got(), bob.got(), cyd.got()) == ([], [data], [data])


def test_to_several_clients_once_each(ann: Guest, bob: Guest, cyd: Guest, gone: str) -> None:
    ann.do("send_to_client", [bob.id, cyd.id, bob.id, gone], "hello")

    assert (ann.got(), bob.got(), cyd.got()) == ([], ["hello"], ["hello"])


@pytest.mark.parametrize("call", ["send_to_current_client", "client.send"])
@BOTH
def test_to_oneself(ann: Guest, bob: Guest, call: str, data: str | bytes) -> None:
    ann.do(call, data)
    ann.do("send_to_client", "<me>", data)

    assert (ann.got(), bob.got()) == ([data, data], [])


@BOTH
def test_to_a_uid_at_both_gateways(ann: Guest, bob: Guest, cyd: Guest, data: str | bytes) -> None:
    for guest in (bob, cyd):
        guest.do("client.bind", "u1")

    ann.do("send_to_uid", "u1", data)

    assert (ann.got(), bob.got(), cyd.got()) == ([], [data], [data])


def test_to_several_uids(ann: Guest, bob: Guest, cyd: Guest) -> None:
    ann.do("client.bind", "u1")
    bob.do("client.bind", "u2")

    cyd.do("send_to_uid", ["u1", "u2", "u1", "nobody"], "hello")

    assert (ann.got(), bob.got(), cyd.got()) == (["hello"], ["hello"], [])


@BOTH
def test_to_a_group_with_oneself_in_it(ann: Guest, bob: Guest, cyd: Guest, data: str | bytes) -> None:
    for guest in (ann, bob):
        guest.do("client.join", "g1")

    ann.do("send_to_group", "g1", data)

    assert (ann.got(), bob.got(), cyd.got()) == ([data], [data], [])


def test_to_a_group_but_some(ann: Guest, bob: Guest, cyd: Guest) -> None:
    for guest in (ann, bob, cyd):
        guest.do("client.join", "g1")

    ann.do("send_to_group", "g1", "not to me", exclude="<me>")
    ann.do("group.send", "g1", "only to me", exclude=[bob.id, cyd.id])

    assert (ann.got(), bob.got(), cyd.got()) == (["only to me"], ["not to me"], ["not to me"])


def test_to_several_groups_once_to_who_is_in_two(ann: Guest, bob: Guest, cyd: Guest) -> None:
    for guest, group in ((ann, "g1"), (bob, "g1"), (bob, "g2"), (cyd, "g2")):
        guest.do("client.join", group)

    ann.do("send_to_group", ["g1", "g2", "nobody"], "hello", exclude="<me>")

    assert (ann.got(), bob.got(), cyd.got()) == ([], ["hello"], ["hello"])


def test_handles_send_too(ann: Guest, bob: Guest, cyd: Guest) -> None:
    bob.do("client.bind", "u1")
    cyd.do("client.join", "g1")

    ann.do("client.send", "to me")
    ann.do("uid.send", "u1", "to a uid")
    ann.do("group.send", "g1", "to a group")

    assert (ann.got(), bob.got(), cyd.got()) == (["to me"], ["to a uid"], ["to a group"])


def test_commands_of_one_handler_reach_a_client_in_their_order(ann: Guest, bob: Guest) -> None:
    ann.do("burst", bob.id, 1000)

    assert bob.got() == [str(number) for number in range(1000)]


@pytest.mark.parametrize(
    "call", [("send_to_uid", "nobody", "x"), ("send_to_group", "nobody", "x"), ("send_to_group", [], "x")]
)
def test_to_nobody_is_no_error(ann: Guest, bob: Guest, call: tuple[Any, ...]) -> None:
    ann.do(*call)

    assert (ann.got(), bob.got()) == ([], [])


def test_to_a_client_that_is_gone_is_counted(crew: Crew, ann: Guest, gone: str) -> None:
    before = crew.stats("gateway-2").get("discarded.client_gone", 0)

    ann.do("burst", gone, 1000)

    until(lambda: crew.stats("gateway-2").get("discarded.client_gone", 0) >= before + 1000)


def test_from_outside_of_a_turn(ann: Guest) -> None:
    """What a handler left behind goes on to command, and that leaves by itself."""
    ann.call("of_nobody")

    assert [ann.next(), ann.next()] == ["hello", "from no turn"]
