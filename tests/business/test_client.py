"""The client whose event is handled: what is known of it here, and what was changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from gatecrew.business import client as module
from gatecrew.common import wire
from hypothesis import given
from hypothesis import strategies as st

from .recorder import Recorder, make_client

if TYPE_CHECKING:
    from gatecrew.business.client import Client

INTRODUCTION = ["/chat", {"room": "a"}, "127.0.0.1:5000", "ws://127.0.0.1:7272", "json"]

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=5,
)
sessions = st.dictionaries(st.text(max_size=3), values, max_size=4)


@pytest.fixture
def client() -> Client:
    return make_client(Recorder(), "gategate")


def state(applied: int, uid: str | None, session: dict[str, Any], introduction: Any = None, again: bool = False) -> Any:
    return [applied, uid, wire.pack(session), introduction, again]


def test_it_is_introduced_with_its_first_event(client: Client) -> None:
    client.learn(state(0, "ann", {"n": 1}, INTRODUCTION, again=True))

    assert (client.path, client.query, client.remote) == ("/chat", {"room": "a"}, "127.0.0.1:5000")
    assert (client.listener, client.subprotocol) == ("ws://127.0.0.1:7272", "json")
    assert (client.uid, client.session, client.redelivered) == ("ann", {"n": 1}, True)


def test_the_request_has_its_headers_under_any_case(client: Client) -> None:
    client.learn(state(0, None, {}, INTRODUCTION))
    request = client.request([["Host", "here"], ["X-Token", "1"], ["x-token", "2"]])

    assert request.header("HOST") == "here"
    assert request.header("X-Token") == "1", "the first of them"
    assert request.header("cookie") == ""
    assert request.header("cookie", "none") == "none"
    assert request.path == "/chat"


def test_event_ids_are_those_of_the_gateways_numbers(client: Client) -> None:
    client.number = 7

    assert client.event_id == f"{client.id}:7"


def test_what_others_changed_is_learnt(client: Client) -> None:
    client.learn(state(0, "ann", {"n": 1}))
    assert client.session == {"n": 1}
    client.learn(state(0, None, {"n": 2}))

    assert (client.uid, client.session) == (None, {"n": 2})


def test_a_state_that_does_not_contain_an_own_change_is_older_than_it(client: Client) -> None:
    client.learn(state(0, "ann", {"n": 1}))
    client.rebind("bob")
    client.learn(state(0, "ann", {"n": 1}))
    assert client.uid == "bob"
    client.learn(state(1, "carl", {"n": 5}))

    assert (client.uid, client.session) == ("carl", {"n": 5})


class TestSessionChange:
    def test_a_session_that_was_not_touched_is_not_sent(self, client: Client) -> None:
        client.learn(state(0, None, {"n": 1}))
        assert client.session_change() is None
        assert client.session["n"] == 1

        assert client.session_change() is None

    def test_only_what_changed_is_sent(self, client: Client) -> None:
        client.learn(state(0, None, {"a": 1, "b": {"deep": [1]}, "c": 3}))
        client.session["b"]["deep"].append(2)
        del client.session["c"]
        client.session["d"] = 4

        assert client.session_change() == [27, client.id, {"b": {"deep": [1, 2]}, "d": 4}, ["c"], True]
        assert client.session_change() is None

    def test_another_type_is_another_value(self, client: Client) -> None:
        client.learn(state(0, None, {"a": 1}))
        client.session["a"] = True
        change = client.session_change()

        assert change is not None
        assert change[2] == {"a": True}

    @pytest.mark.parametrize("value", [object(), {1, 2}])
    def test_what_cannot_be_kept_is_an_error_of_the_handler(self, client: Client, value: object) -> None:
        client.session["a"] = value
        with pytest.raises(TypeError, match=r"session\['a'\]: cannot be kept"):
            client.session_change()

    @pytest.mark.parametrize("session", [{1: 1}, {"a": {2: 2}}, {"a": 1 << 70}])
    def test_so_are_keys_that_are_no_text_and_numbers_too_large(self, client: Client, session: Any) -> None:
        client.session.update(session)
        with pytest.raises(ValueError, match="session"):
            client.session_change()

    @given(sessions, sessions)
    def test_the_gateway_ends_up_with_what_the_handler_left(
        self, before: dict[str, Any], after: dict[str, Any]
    ) -> None:
        client = make_client(Recorder(), "gategate")
        client.learn(state(0, None, before))
        client.session.clear()
        client.session.update(after)
        change = client.session_change()
        at_gateway = dict(before)
        if change is not None:
            _, _, changed, gone, _ = change
            at_gateway = {key: value for key, value in before.items() if key not in gone} | changed

        assert wire.pack(at_gateway | after) == wire.pack(at_gateway)
        assert at_gateway.keys() == after.keys()


def test_updates_together_are_bounded_as_one_is(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DATA", 100)
    client.update_session({"a": "x" * 60})
    with pytest.raises(ValueError, match=r"a session of .* bytes with that, expected at most 100"):
        client.update_session({"b": "x" * 60})

    assert client.session.keys() == {"a"}
    client.learn(state(1, None, {"seen": "as before"}))
    assert client.session == {"seen": "as before"}


def test_setting_and_updating_by_call_is_seen_at_once(client: Client) -> None:
    client.session["in place"] = 1
    client.update_session({"by call": 2})
    assert client.session == {"in place": 1, "by call": 2}
    change = client.session_change()
    assert change is not None
    assert change[2] == {"in place": 1}, "the call sends its own"
    client.replace_session({"other": 3})

    assert client.session == {"other": 3}
    assert client.session_change() is None
