"""What a gateway answers, and what to."""

from __future__ import annotations

from typing import Any, cast

import pytest
from gatecrew.common import wire
from gatecrew.common.errors import LinkError
from gatecrew.common.messages import Ask
from gatecrew.gateway.answers import answer
from gatecrew.gateway.client import Client, Connection
from gatecrew.gateway.index import Index


@pytest.fixture
def index() -> Index:
    """Ann twice, Bob once and somebody unknown; the first three in red, Bob also in blue."""
    index = Index()
    for name, uid in (("a1", "ann"), ("a2", "ann"), ("b", "bob"), ("x", None)):
        client = Client(name, cast("Connection", None), [])
        client.session = wire.pack({"name": name})
        index.add(client)
        if uid is not None:
            index.bind(client, uid)
            index.join(client, "red")
    index.join(index.clients["b"], "blue")
    return index


def in_any_order(found: Any) -> Any:
    """Return an answer with its lists sorted: their order means nothing."""
    if isinstance(found, dict):
        return {key: in_any_order(value) for key, value in found.items()}
    return sorted(found) if isinstance(found, list) else found


@pytest.mark.parametrize(
    ("ask", "argument", "expected"),
    [
        (Ask.SYNC, None, True),
        (Ask.ONLINE, "a1", True),
        (Ask.ONLINE, "gone", False),
        (Ask.UID_ONLINE, "ann", True),
        (Ask.UID_ONLINE, "cy", False),
        (Ask.CLIENT_COUNT, None, 4),
        (Ask.CLIENT_COUNT, ["red"], 3),
        (Ask.CLIENT_COUNT, ["empty"], 0),
        (Ask.CLIENTS, None, ["a1", "a2", "b", "x"]),
        (Ask.CLIENTS, ["red"], ["a1", "a2", "b"]),
        (Ask.CLIENTS, ["empty"], []),
        (Ask.UIDS, None, ["ann", "bob"]),
        (Ask.UIDS, ["red"], ["ann", "bob"]),
        (Ask.UIDS, ["blue"], ["bob"]),
        (Ask.UIDS, ["empty"], []),
        (Ask.CLIENTS_OF_UIDS, ["ann"], ["a1", "a2"]),
        (Ask.CLIENTS_OF_UIDS, ["bob", "ann", "cy", "bob"], ["a1", "a2", "b"]),
        (Ask.CLIENTS_OF_UIDS, [], []),
        (Ask.UID_OF_CLIENT, "b", "bob"),
        (Ask.UID_OF_CLIENT, "x", None),
        (Ask.UID_OF_CLIENT, "gone", None),
        (Ask.GROUPS, None, ["blue", "red"]),
        (Ask.GROUP_CLIENTS, None, {"red": ["a1", "a2", "b"], "blue": ["b"]}),
        (Ask.GROUP_COUNTS, None, {"red": 3, "blue": 1}),
        (Ask.GROUP_UIDS, None, {"red": ["ann", "bob"], "blue": ["bob"]}),
        (Ask.SESSION, "b", {"name": "b"}),
        (Ask.SESSION, "gone", None),
        (Ask.SESSIONS, ["blue"], {"b": {"name": "b"}}),
        (Ask.SESSIONS, None, {name: {"name": name} for name in ("a1", "a2", "b", "x")}),
        (Ask.SESSIONS, ["empty"], {}),
    ],
)
def test_every_question_has_its_answer(index: Index, ask: Ask, argument: object, expected: object) -> None:
    found = answer(index, int(ask), argument)

    assert in_any_order(found) == expected
    assert wire.unpack(wire.pack(found)) == found


def test_none_of_the_questions_is_left_out(index: Index) -> None:
    for ask in set(Ask) - {Ask.ROUND_TRIP, Ask.CONNECTIONS, Ask.DISCARDS}:  # which are for operators
        answer(index, ask, [] if ask == Ask.CLIENTS_OF_UIDS else None)


@pytest.mark.parametrize("ask", [99, -1, "CLIENTS", None, [1], {}])
def test_a_question_that_there_is_not_is_an_error_of_the_asker(index: Index, ask: object) -> None:
    with pytest.raises(LinkError, match=r"asks question .*, which there is not"):
        answer(index, ask, None)


@pytest.mark.parametrize(
    ("ask", "argument"),
    [
        (Ask.CLIENTS, "red"),
        (Ask.ONLINE, 5),
        (Ask.SESSION, {}),
        (Ask.CLIENTS_OF_UIDS, "ann"),
        (Ask.CLIENTS_OF_UIDS, None),
        (Ask.CLIENTS_OF_UIDS, ["ann", 5]),
        (Ask.CLIENTS_OF_UIDS, [["ann"]]),
    ],
)
def test_a_question_about_something_else_is_an_error_of_the_asker(index: Index, ask: Ask, argument: object) -> None:
    with pytest.raises(LinkError, match=f"asks question {int(ask)} about"):
        answer(index, int(ask), argument)
