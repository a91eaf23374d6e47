"""What each command is made of, and what it refuses. What it does is tested through a whole cluster."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from gatecrew.common import messages as op
from gatecrew.common.errors import ClientIdError
from gatecrew.common.ids import new_client_id

from .recorder import Recorder, make_client

if TYPE_CHECKING:
    from gatecrew.business.client import Api

A, B = "aaaaaaaa", "bbbbbbbb"
ONE, TWO, OTHER = new_client_id(A), new_client_id(A), new_client_id(B)


@pytest.mark.parametrize(
    ("call", "args", "sent"),
    [
        ("send_to_all", ("hi",), [(None, [op.SEND_ALL, "hi", []])]),
        ("send_to_all", (b"hi", None, ONE), [(None, [op.SEND_ALL, b"hi", [ONE]])]),
        ("send_to_all", ("hi", [ONE, TWO], TWO), [(A, [op.SEND, ONE, "hi"])]),
        ("send_to_client", (ONE, "hi"), [(A, [op.SEND, ONE, "hi"])]),
        (
            "send_to_client",
            ([ONE, OTHER, TWO, ONE], "hi"),
            [(A, [op.SEND, [ONE, TWO], "hi"]), (B, [op.SEND, OTHER, "hi"])],
        ),
        ("send_to_client", ([], "hi"), []),
        ("send_to_uid", ("ann", "hi"), [(None, [op.SEND_UID, ["ann"], "hi"])]),
        ("send_to_uid", (["ann", "bob"], "hi"), [(None, [op.SEND_UID, ["ann", "bob"], "hi"])]),
        ("send_to_group", ("g", "hi", [ONE]), [(None, [op.SEND_GROUP, ["g"], "hi", [ONE]])]),
        ("send_to_group", (["g", "h"], "hi"), [(None, [op.SEND_GROUP, ["g", "h"], "hi", []])]),
        ("bind_uid", (ONE, "ann"), [(A, [op.BIND, ONE, "ann", "", False])]),
        ("unbind_uid", (OTHER,), [(B, [op.UNBIND, OTHER, False])]),
        ("join_group", (ONE, "g"), [(A, [op.JOIN, ONE, "g"])]),
        ("leave_group", (ONE, "g"), [(A, [op.LEAVE, ONE, "g"])]),
        ("ungroup", ("g",), [(None, [op.UNGROUP, "g"])]),
        ("set_session", (ONE, {"a": 1}), [(A, [op.SET_SESSION, ONE, {"a": 1}, False])]),
        ("update_session", (ONE, {"a": 1}), [(A, [op.UPDATE_SESSION, ONE, {"a": 1}, [], False])]),
        ("close_client", (ONE,), [(A, [op.CLOSE_CLIENT, ONE, None, 1000, ""])]),
        ("close_client", (ONE, "bye", 4000, "why"), [(A, [op.CLOSE_CLIENT, ONE, "bye", 4000, "why"])]),
        ("destroy_client", (ONE,), [(A, [op.DESTROY_CLIENT, ONE])]),
    ],
)
def test_what_is_sent(call: str, args: tuple[Any, ...], sent: list[Any]) -> None:
    api = Recorder()
    getattr(api, call)(*args)

    assert api.commands == sent


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("send_to_client", ("data",)),
        ("bind_uid", ("uid",)),
        ("unbind_uid", ()),
        ("join_group", ("group",)),
        ("leave_group", ("group",)),
        ("set_session", ({},)),
        ("update_session", ({},)),
        ("close_client", ()),
        ("destroy_client", ()),
    ],
)
def test_what_is_no_client_is_refused_and_nothing_is_sent(call: str, args: tuple[Any, ...]) -> None:
    api = Recorder()
    with pytest.raises(ClientIdError, match="not a client id: 'ann'"):
        getattr(api, call)("ann", *args)
    with pytest.raises(TypeError, match="a client is a Client or its id, not float"):
        getattr(api, call)(1.5, *args)

    assert api.commands == []


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
def test_a_close_code_that_may_not_be_sent_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match="expected 1000 or one from 3000 to 4999"):
        Recorder().close_client(ONE, code=code)


@pytest.mark.parametrize(
    ("code", "reason", "wrong"),
    [(1000, b"bye", "a reason is a str, not bytes"), (3000.0, "", "'float'"), ("3000", "", "'str'")],
)
def test_a_code_is_a_whole_number_and_a_reason_is_text(code: Any, reason: Any, wrong: str) -> None:
    """A code of 3000.0, or a reason in bytes, was taken, and the gateway then refused the worker that it came from."""
    api = Recorder()
    with pytest.raises(TypeError, match=wrong):
        api.close_client(ONE, code=code, reason=reason)

    assert api.commands == []


@pytest.mark.parametrize("call", ["send_to_all", "send_to_group"])
def test_who_is_left_out_has_an_id_that_can_be_sent(call: str) -> None:
    """Text that UTF-8 cannot say, or the number of a user of the application, was taken and ended the lane to each gateway."""
    api = Recorder()
    send = partial(getattr(api, call), *([] if call == "send_to_all" else ["group"]), "hi")
    with pytest.raises(ClientIdError):
        send(exclude=["\ud800"])
    with pytest.raises(TypeError, match="a client is a Client or its id, not SimpleNamespace"):
        send(exclude=SimpleNamespace(id=5))

    assert api.commands == []


def test_a_client_may_stand_for_its_id() -> None:
    api = Recorder()
    client = make_client(api, A)
    api.join_group(client, "g")
    api.send_to_all("hi", exclude=[client, api.client(OTHER)])

    assert api.commands == [(A, [op.JOIN, client.id, "g"]), (None, [op.SEND_ALL, "hi", [client.id, OTHER]])]


@pytest.mark.parametrize(
    ("by_handle", "by_call"),
    [
        (lambda api: api.client(ONE).send("hi"), lambda api: api.send_to_client(ONE, "hi")),
        (lambda api: api.client(ONE).bind("ann"), lambda api: api.bind_uid(ONE, "ann")),
        (lambda api: api.client(ONE).unbind(), lambda api: api.unbind_uid(ONE)),
        (lambda api: api.client(ONE).join("g"), lambda api: api.join_group(ONE, "g")),
        (lambda api: api.client(ONE).leave("g"), lambda api: api.leave_group(ONE, "g")),
        (lambda api: api.client(ONE).close("bye"), lambda api: api.close_client(ONE, "bye")),
        (lambda api: api.client(ONE).destroy(), lambda api: api.destroy_client(ONE)),
        (lambda api: api.group("g").send("hi", exclude=[ONE]), lambda api: api.send_to_group("g", "hi", [ONE])),
        (lambda api: api.group("g").join(ONE), lambda api: api.join_group(ONE, "g")),
        (lambda api: api.group("g").leave(ONE), lambda api: api.leave_group(ONE, "g")),
        (lambda api: api.group("g").ungroup(), lambda api: api.ungroup("g")),
        (lambda api: api.uid("ann").send("hi"), lambda api: api.send_to_uid("ann", "hi")),
    ],
)
def test_a_handle_does_what_the_call_does(by_handle: Any, by_call: Any) -> None:
    one, other = Recorder(), Recorder()
    by_handle(one)
    by_call(other)

    assert one.commands == other.commands
    assert len(one.commands) == 1


def test_handles_of_one_client_are_equal() -> None:
    api: Api = Recorder()

    assert api.client(ONE) == api.client(ONE)
    assert api.client(ONE) != api.client(TWO)
    assert len({api.client(ONE), api.client(ONE), api.client(TWO)}) == 2
