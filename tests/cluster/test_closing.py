"""Clients that are closed, close, or vanish, and what their close handlers see."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from .crew import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from .crew import Crew, Guest

Watched = tuple["Guest", "Callable[[], dict[str, Any]]"]


@pytest.fixture
def watched(crew: Crew, bob: Guest) -> Watched:
    """A client, and a function that returns what Bob is told when it is gone."""
    guest = crew.connect("gateway-1", "worker-1", "/room?a=b")
    bob.do("client.join", f"watch {guest.id}")

    def seen() -> dict[str, Any]:
        return dict(json.loads(bob.next()))

    return guest, seen


def test_a_client_says_why_it_goes(watched: Watched) -> None:
    guest, seen = watched
    guest.do("client.bind", "u1")
    guest.do("client.join", "g1")
    guest.do("push", "note", 1)

    guest.connection.close(4001, "b\N{LATIN SMALL LETTER Y WITH DIAERESIS}e")

    closed = seen()
    assert (closed["code"], closed["reason"]) == (4001, "b\N{LATIN SMALL LETTER Y WITH DIAERESIS}e")
    assert (closed["id"], closed["uid"], closed["session"]) == (guest.id, "u1", {"notes": ["note"]})
    assert (closed["path"], closed["query"], closed["online"]) == ("/room", {"a": "b"}, False)
    assert (closed["event_id"], closed["redelivered"]) == (f"{guest.id}:8", False)  # connect, six calls, close


def test_a_client_that_vanishes_is_1006(watched: Watched) -> None:
    guest, seen = watched

    guest.connection.socket.shutdown(socket.SHUT_RDWR)

    closed = seen()
    assert (closed["id"], closed["code"], closed["reason"]) == (guest.id, 1006, "")


@pytest.mark.parametrize("call", ["client.close", "close_current_client"])
def test_the_server_closes_after_a_last_message(watched: Watched, call: str) -> None:
    guest, seen = watched

    guest.send("client.send", "one more")
    guest.send(call, b"last", 4000, "enough")

    assert (guest.next(), guest.next()) == ("one more", b"last")
    assert guest.closed() == (4000, "enough")
    closed = seen()
    assert (closed["id"], closed["code"], closed["reason"]) == (guest.id, 4000, "enough")


def test_another_client_is_closed(watched: Watched, bob: Guest) -> None:
    guest, seen = watched

    bob.call("close_client", guest.id)

    assert guest.closed() == (1000, "")
    closed = seen()
    assert (closed["id"], closed["code"]) == (guest.id, 1000)


def test_a_reason_that_is_too_long_is_cut(ann: Guest) -> None:
    ann.send("client.close", reason="\N{SNOWMAN}" * 100)

    assert ann.closed() == (1000, "\N{SNOWMAN}" * 41)


def test_a_client_may_be_closed_when_it_connects(crew: Crew) -> None:
    guest = crew.connect(path="/closed")

    assert guest.next() == "not you"
    assert guest.closed() == (4003, "of all people")


@pytest.mark.parametrize("call", ["client.destroy", "destroy_current_client"])
def test_a_client_is_cut_off(watched: Watched, call: str) -> None:
    guest, seen = watched

    guest.send(call)

    assert guest.closed() == (1006, "")
    closed = seen()
    assert (closed["id"], closed["code"], closed["reason"]) == (guest.id, 1006, "")


def test_another_client_is_cut_off(watched: Watched, bob: Guest) -> None:
    guest, seen = watched

    bob.call("destroy_client", guest.id)

    assert guest.closed() == (1006, "")
    assert seen()["id"] == guest.id


@pytest.mark.parametrize("call", ["close_client", "destroy_client"])
def test_to_close_who_is_gone_is_no_error(ann: Guest, gone: str, call: str) -> None:
    ann.do(call, gone)


def test_what_is_sent_after_a_close_is_lost(ann: Guest, bob: Guest) -> None:
    bob.do("close_client", ann.id, "last")
    bob.do("send_to_client", ann.id, "too late")

    assert ann.next() == "last"
    assert ann.closed() == (1000, "")


# Clients that break the rules, or do not read


def masked(head: int, payload: bytes) -> bytes:
    """Return a frame of a client, under a mask of zeros."""
    return bytes((head, 0x80 | len(payload))) + bytes(4) + payload


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (masked(0xC1, b"reserved bit"), 1002),
        (masked(0x83, b"unknown opcode"), 1002),
        (b"\x81\x02hi", 1002),
        (masked(0x81, b"\xff"), 1007),
        (b"\x81\xff" + (100_001).to_bytes(8) + bytes(4), 1009),
    ],
    ids=["a reserved bit", "an unknown opcode", "no mask", "no UTF-8", "too big"],
)
def test_who_breaks_the_rules_is_closed_and_nobody_else(watched: Watched, cyd: Guest, sent: bytes, code: int) -> None:
    guest, seen = watched

    guest.connection.socket.sendall(sent)

    assert guest.closed()[0] == code
    closed = seen()
    assert (closed["id"], closed["code"]) == (guest.id, code)
    assert cyd.call("is_online", cyd.id) is True


def test_the_largest_message_is_taken(ann: Guest) -> None:
    ann.connection.send(bytes(100_000))

    assert ann.next() == bytes(100_000)


def test_who_does_not_read_is_closed_and_counted_and_nobody_else_waits(
    crew: Crew, watched: Watched, bob: Guest
) -> None:
    guest, seen = watched
    before = crew.stats("gateway-1").get("closed.slow", 0)

    bob.do("flood", guest.id, 100, 200_000)  # it takes up to 16 of them, and the system some

    closed = seen()
    assert (closed["id"], closed["code"]) == (guest.id, 1013)
    assert closed["reason"].startswith("too slow")
    assert guest.closed() == (1006, ""), "a close frame behind so much would not arrive"
    until(lambda: crew.stats("gateway-1").get("closed.slow", 0) == before + 1)
