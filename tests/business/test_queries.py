"""What each question is made of, and how answers are put together. What they say is tested through a whole cluster."""

from __future__ import annotations

from typing import Any

import pytest
from gatecrew.common.ids import new_client_id
from gatecrew.common.messages import Ask

from .recorder import Recorder

GATEWAY = "aaaaaaaa"
ID = new_client_id(GATEWAY)


@pytest.mark.parametrize(
    ("call", "args", "question", "answers", "answer"),
    [
        ("is_online", (ID,), (GATEWAY, Ask.ONLINE, ID), [True], True),
        ("is_online", (ID,), (GATEWAY, Ask.ONLINE, ID), [], False),
        ("is_uid_online", ("u",), (None, Ask.UID_ONLINE, "u"), [False, True], True),
        ("get_all_client_id_count", (), (None, Ask.CLIENT_COUNT, None), [1, 2], 3),
        ("get_client_id_count_by_group", ("g",), (None, Ask.CLIENT_COUNT, ["g"]), [], 0),
        ("get_all_client_id_list", (), (None, Ask.CLIENTS, None), [["a"], ["b"]], ["a", "b"]),
        ("get_client_id_list_by_group", ("g",), (None, Ask.CLIENTS, ["g"]), [["a"], []], ["a"]),
        ("get_all_uid_count", (), (None, Ask.UIDS, None), [["u", "v"], ["v"]], 2),
        ("get_uid_count_by_group", ("g",), (None, Ask.UIDS, ["g"]), [["u"], ["u"]], 1),
        ("get_client_id_list_by_group", (["g", "h"],), (None, Ask.CLIENTS, ["g", "h"]), [["a"]], ["a"]),
        ("get_all_uid_list", (), (None, Ask.UIDS, None), [["u", "v"], ["v"]], ["u", "v"]),
        ("get_uid_list_by_group", ("g",), (None, Ask.UIDS, ["g"]), [["u"], ["v"]], ["u", "v"]),
        ("get_client_id_by_uid", ("u",), (None, Ask.CLIENTS_OF_UIDS, ["u"]), [["a"], ["b"]], ["a", "b"]),
        ("get_client_id_by_uid", (["u", "v"],), (None, Ask.CLIENTS_OF_UIDS, ["u", "v"]), [["a"]], ["a"]),
        ("get_uid_by_client_id", (ID,), (GATEWAY, Ask.UID_OF_CLIENT, ID), ["u"], "u"),
        ("get_uid_by_client_id", (ID,), (GATEWAY, Ask.UID_OF_CLIENT, ID), [], None),
        ("get_all_group_id_list", (), (None, Ask.GROUPS, None), [["g"], ["g", "h"]], ["g", "h"]),
        (
            "get_all_group_client_id_list",
            (),
            (None, Ask.GROUP_CLIENTS, None),
            [{"g": ["a"]}, {"g": ["b"], "h": ["b"]}],
            {"g": ["a", "b"], "h": ["b"]},
        ),
        (
            "get_all_group_client_id_count",
            (),
            (None, Ask.GROUP_COUNTS, None),
            [{"g": 1}, {"g": 2, "h": 1}],
            {"g": 3, "h": 1},
        ),
        (
            "get_all_group_uid_list",
            (),
            (None, Ask.GROUP_UIDS, None),
            [{"g": ["u"]}, {"g": ["u", "v"]}],
            {"g": ["u", "v"]},
        ),
        (
            "get_all_group_uid_count",
            (),
            (None, Ask.GROUP_UIDS, None),
            [{"g": ["u"]}, {"g": ["u"], "h": []}],
            {"g": 1, "h": 0},
        ),
        ("get_session", (ID,), (GATEWAY, Ask.SESSION, ID), [{"n": 1}], {"n": 1}),
        ("get_session", (ID,), (GATEWAY, Ask.SESSION, ID), [], None),
        (
            "get_all_client_sessions",
            (),
            (None, Ask.SESSIONS, None),
            [{"a": {}}, {"b": {"n": 1}}],
            {"a": {}, "b": {"n": 1}},
        ),
        ("get_client_sessions_by_group", ("g",), (None, Ask.SESSIONS, ["g"]), [{"a": {}}], {"a": {}}),
        ("flush", (), (None, Ask.SYNC, None), [True, True], True),
    ],
)
async def test_what_is_asked_and_how_answers_are_put_together(
    call: str, args: tuple[Any, ...], question: tuple[Any, ...], answers: list[Any], answer: object
) -> None:
    api = Recorder(*answers)
    found = await getattr(api, call)(*args)

    assert api.questions == [question]
    assert found == answer or call == "flush"


@pytest.mark.parametrize(
    ("by_handle", "by_call"),
    [
        (lambda api: api.client(ID).is_online(), lambda api: api.is_online(ID)),
        (lambda api: api.group("g").count(), lambda api: api.get_client_id_count_by_group("g")),
        (lambda api: api.group("g").clients(), lambda api: api.get_client_id_list_by_group("g")),
        (lambda api: api.group("g").uids(), lambda api: api.get_uid_list_by_group("g")),
        (lambda api: api.group("g").uid_count(), lambda api: api.get_uid_count_by_group("g")),
        (lambda api: api.group("g").sessions(), lambda api: api.get_client_sessions_by_group("g")),
        (lambda api: api.uid("u").is_online(), lambda api: api.is_uid_online("u")),
        (lambda api: api.uid("u").clients(), lambda api: api.get_client_id_by_uid("u")),
    ],
)
async def test_a_handle_asks_what_the_call_asks(by_handle: Any, by_call: Any) -> None:
    one, other = Recorder(), Recorder()

    assert await by_handle(one) == await by_call(other)
    assert one.questions == other.questions
