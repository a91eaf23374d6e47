"""What may be sent and how things may be called."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from gatecrew.business import checks
from gatecrew.common import messages as op
from gatecrew.common import wire
from gatecrew.common.errors import ClientIdError
from gatecrew.common.ids import new_client_id


class Text(str):
    __slots__ = ()


class TestPayload:
    @pytest.mark.parametrize("data", ["", "text", "Ünïcödé 🙂", b"", b"\x00\xff"])
    def test_text_and_bytes_are_taken_as_they_are(self, data: str | bytes) -> None:
        assert checks.payload(data) is data

    @pytest.mark.parametrize(
        ("data", "taken"), [(bytearray(b"ab"), b"ab"), (memoryview(b"ab"), b"ab"), (Text("ab"), "ab")]
    )
    def test_what_is_nearly_that_becomes_it(self, data: object, taken: str | bytes) -> None:
        assert checks.payload(data) == taken
        assert type(checks.payload(data)) is type(taken)

    @pytest.mark.parametrize("data", [None, 1, {"a": 1}, ["a"]])
    def test_anything_else_is_a_mistake_that_says_what_to_do(self, data: object) -> None:
        with pytest.raises(TypeError, match=r"json\.dumps"):
            checks.payload(data)

    def test_half_a_surrogate_pair_cannot_be_sent(self) -> None:
        with pytest.raises(UnicodeEncodeError):
            checks.payload("\ud800")

    def test_there_is_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks, "MAX_DATA", 3)
        assert checks.payload("abc") == "abc"
        with pytest.raises(ValueError, match="at most 3"):
            checks.payload(b"abcd")


class TestNames:
    def test_a_number_is_no_uid(self) -> None:
        with pytest.raises(TypeError, match="a uid is a string, not int: 42"):
            checks.name("uid", 42)

    @pytest.mark.parametrize("name", ["", "x" * 513, "\udc80"])
    def test_a_name_has_1_to_512_characters_that_can_be_sent(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"characters|surrogates"):
            checks.name("group", name)

    def test_one_or_many(self) -> None:
        assert checks.names("uid", "ann") == ["ann"]
        assert checks.names("uid", iter(["ann", "bob"])) == ["ann", "bob"]
        with pytest.raises(TypeError):
            checks.names("uid", ["ann", 1])  # type: ignore[list-item]
        with pytest.raises(TypeError):
            checks.names("uid", 1)  # type: ignore[arg-type]


class TestByGateway:
    def test_ids_are_sorted_by_the_gateways_that_hold_them_each_once(self) -> None:
        one, two, other = new_client_id("aaaaaaaa"), new_client_id("aaaaaaaa"), new_client_id("bbbbbbbb")
        assert checks.by_gateway([one, other, two, one]) == {"aaaaaaaa": [one, two], "bbbbbbbb": [other]}

    def test_what_is_no_id_is_refused(self) -> None:
        with pytest.raises(ClientIdError):
            checks.by_gateway(["ann"])


class TestSessionMap:
    def test_it_is_what_will_be_read_again(self) -> None:
        assert checks.session_map({"a": (1, 2), "b": {"c": None}}) == {"a": [1, 2], "b": {"c": None}}

    @pytest.mark.parametrize("session", [[], "a", None, {"a": object()}, {"a": {1, 2}}])
    def test_what_cannot_be_kept_is_a_type_error(self, session: Any) -> None:
        with pytest.raises(TypeError):
            checks.session_map(session)

    def test_there_is_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks, "MAX_DATA", 100)
        with pytest.raises(ValueError, match=r"a session of .* bytes, expected at most 100"):
            checks.session_map(dict.fromkeys("abcd", "x" * 20))

    @pytest.mark.parametrize("session", [{1: "a"}, {"a": {1: 2}}, {b"a": 1}, {"a": 1 << 70}])
    def test_keys_are_text_and_numbers_have_64_bits(self, session: Any) -> None:
        with pytest.raises(ValueError, match="session"):
            checks.session_map(session)

    def test_what_is_taken_is_not_too_deep_for_any_message(self) -> None:
        """A session just deep enough to be packed by itself was taken, and ended the lane that it was to travel on."""
        deepest: object = None
        session: dict[str, Any] = {"deep": []}
        with contextlib.suppress(ValueError):
            while True:
                deepest = checks.session_map(session)
                session = {"deep": [session["deep"]]}

        # the answer to the question for the sessions of all clients; too deep for Python to compare
        (payload,) = wire.encode([[op.ANSWER, 1, {new_client_id("aaaaaaaa"): deepest}]])
        assert wire.encode(wire.decode(wire.frame(wire.DATA, 1, payload=payload))) == [payload]
