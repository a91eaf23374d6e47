"""What a client is when it opens."""

from __future__ import annotations

from typing import cast

from gatecrew.common import wire
from gatecrew.gateway.client import EMPTY_SESSION, STRANGER, Client, Connection


def test_a_new_client_is_unknown_to_every_worker_and_has_nothing() -> None:
    client = Client("abc", cast("Connection", None), ["/"])

    assert client.told == STRANGER
    assert client.open
    assert client.uid is None
    assert client.groups == set()
    assert client.events == []
    assert wire.unpack(client.session) == {}


def test_the_empty_session_is_an_empty_map() -> None:
    assert wire.pack({}) == EMPTY_SESSION


def test_a_client_is_shown_by_its_id() -> None:
    assert repr(Client("abc", cast("Connection", None), [])) == "client abc"
