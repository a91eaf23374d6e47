"""What the chat's app answers, without a browser."""

from __future__ import annotations

import itertools
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.client import ClientConnection

    from .conftest import Running, Start


@pytest.fixture(scope="module")
def chat(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Running:
    database = tmp_path_factory.mktemp("chat") / "chat.sqlite"
    return start("chat", "-c", "gatecrew.toml", CHAT_DB=f"sqlite:///{database}")


@pytest.fixture
def client(chat: Running) -> Iterator[ClientConnection]:
    with chat.connect() as connection:
        yield connection


def ask(client: ClientConnection, kind: str, **fields: Any) -> Any:
    """Send a message and return the next one that is not about who is online."""
    client.send(json.dumps({"type": kind, **fields}))
    return told(client)


def told(client: ClientConnection) -> Any:
    while True:
        message = json.loads(client.recv(timeout=10))
        if message["type"] not in ("online", "rooms"):
            return message


def hello(client: ClientConnection, name: str) -> None:
    assert ask(client, "hello", name=name, token=f"of {name}")["type"] == "welcome"


def test_nothing_is_answered_before_hello(client: ClientConnection) -> None:
    for kind in ("open", "say", "above", "leave"):
        assert ask(client, kind, to="#lobby")["why"] == "Say hello first."


@pytest.mark.parametrize("data", ["", "[]", "{", "[" * 5000, '{"type": []}', '{"type": "dance"}', b"\x00\xff"])
def test_rubbish_is_refused(client: ClientConnection, data: str | bytes) -> None:
    client.send(data)

    assert told(client)["type"] == "refused"


@pytest.mark.parametrize("name", ["", "  ", "a" * 25, "a#b", "@a", "a|b", "a\u202eb", "a\0b", "\ud800", 7, None])
def test_names_that_would_confuse_are_refused(client: ClientConnection, name: object) -> None:
    assert ask(client, "hello", name=name, token="secret")["of"] == "hello"


def test_a_name_belongs_to_whoever_holds_its_token(chat: Running) -> None:
    with chat.connect() as owner, chat.connect() as again, chat.connect() as thief:
        assert ask(owner, "hello", name="Zoë", token="one")["name"] == "Zoë"
        assert ask(again, "hello", name="zoë", token="one")["name"] == "Zoë"
        assert ask(thief, "hello", name="ZOË", token="two")["why"] == "This name is taken."


def test_one_connection_is_one_person(client: ClientConnection) -> None:
    hello(client, "single")

    assert ask(client, "hello", name="double", token="of double")["why"] == "You have a name already."


def test_who_comes_back_gets_what_was_said_after_the_position(client: ClientConnection) -> None:
    hello(client, "reader")
    assert ask(client, "open", to="#position", position=None)["entries"] == []
    positions = []
    for number in range(3):
        said = ask(client, "say", to="#position", id=f"{number}", text=f"text {number}")
        positions.append([said["epoch"], said["entry"]["offset"]])

    answer = ask(client, "open", to="#position", position=positions[0])

    assert [entry["text"] for entry in answer["entries"]] == ["text 1", "text 2"]
    assert (answer["fresh"], answer["position"]) == (False, positions[2])


def test_who_missed_a_lot_gets_the_newest(client: ClientConnection) -> None:
    hello(client, "late")
    ask(client, "open", to="#missed", position=None)
    first = ask(client, "say", to="#missed", id="0", text="0")
    for number in range(1, 60):
        ask(client, "say", to="#missed", id=f"{number}", text=f"{number}")

    answer = ask(client, "open", to="#missed", position=[first["epoch"], 1])

    assert [entry["offset"] for entry in answer["entries"]] == list(range(11, 61))
    assert (answer["fresh"], answer["more"]) == (True, True)
    above = ask(client, "above", to="#missed", offset=11)
    assert [entry["offset"] for entry in above["entries"]] == list(range(1, 11))
    assert above["more"] is False


@pytest.mark.parametrize("position", [["elsewhere", 3], ["", -1], [1, 2], ["", True], [], "x", {"a": 1}])
def test_a_position_that_is_none_gets_the_newest(client: ClientConnection, position: object) -> None:
    hello(client, "stranger")

    assert ask(client, "open", to="#nowhere", position=position)["fresh"] is True


def test_nothing_is_lost_between_what_was_read_and_what_is_said_then(chat: Running) -> None:
    with chat.connect() as writer, chat.connect() as reader:
        hello(writer, "busy")
        ask(writer, "open", to="#busy", position=None)
        hello(reader, "curious")
        done = threading.Event()

        def write() -> None:
            for number in itertools.count():
                writer.send(json.dumps({"type": "say", "to": "#busy", "id": f"{number}", "text": "x"}))
                if number > 8:  # so many are under way
                    told(writer)
                if done.is_set():
                    return

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(60):
                reader.send(json.dumps({"type": "open", "to": "#busy", "position": None}))
                offsets = []
                while (answer := told(reader))["type"] != "entries":
                    offsets.append(answer["entry"]["offset"])  # said after the reading, it may overtake the answer
                end = answer["position"][1]
                while not (new := [offset for offset in offsets if offset > end]):
                    offsets.append(told(reader)["entry"]["offset"])
                assert new[0] == end + 1
                reader.send(json.dumps({"type": "leave", "to": "#busy"}))
        finally:
            done.set()
            thread.join()


def test_what_is_said_twice_under_one_id_is_one_message(client: ClientConnection) -> None:
    hello(client, "twice")
    ask(client, "open", to="#twice", position=None)

    first, second = (ask(client, "say", to="#twice", id="same", text="once") for _ in range(2))

    assert first["entry"]["offset"] == second["entry"]["offset"] == 1
    assert len(ask(client, "open", to="#twice", position=None)["entries"]) == 1


def test_two_people_may_use_the_same_id(chat: Running) -> None:
    with chat.connect() as one, chat.connect() as other:
        for client, name in ((one, "ida"), (other, "ines")):
            hello(client, name)
            ask(client, "open", to="#ids", position=None)
        ask(one, "say", to="#ids", id="same", text="ida's")
        told(other)
        assert ask(other, "say", to="#ids", id="same", text="ines's")["entry"]["offset"] == 2


def test_a_text_has_a_bound(client: ClientConnection) -> None:
    hello(client, "long")
    ask(client, "open", to="#long", position=None)

    assert ask(client, "say", to="#long", id="1", text="x" * 2000)["type"] == "said"
    refused = ask(client, "say", to="#long", id="2", text="x" * 2001)
    assert (refused["id"], refused["why"]) == ("2", "That is too long: 2001 characters, at most 2000 are possible.")


def test_only_what_is_open_can_be_written_to(client: ClientConnection) -> None:
    hello(client, "outside")

    assert ask(client, "say", to="#lobby", id="1", text="x")["why"] == "Open this conversation first."
    ask(client, "open", to="#lobby", position=None)
    client.send(json.dumps({"type": "leave", "to": "#lobby"}))
    assert ask(client, "say", to="#lobby", id="1", text="x")["why"] == "Open this conversation first."


def test_nobody_can_be_written_to_who_is_not_there(client: ClientConnection) -> None:
    hello(client, "lonely")

    assert ask(client, "open", to="@nobody at all", position=None)["why"] == "There is nobody of this name."
    assert ask(client, "open", to="#Loud", position=None)["why"] == "Names of rooms are in small letters."
    assert ask(client, "open", to="lobby", position=None)["of"] == "open"


def test_a_private_message_waits_for_who_is_away(chat: Running) -> None:
    with chat.connect() as away:
        hello(away, "ulla")
    with chat.connect() as sender:
        hello(sender, "uwe")
        ask(sender, "open", to="@ulla", position=None)
        assert ask(sender, "say", to="@ulla", id="1", text="for later")["to"] == "@ulla"

    with chat.connect() as back:
        assert ask(back, "hello", name="ulla", token="of ulla")["people"] == ["uwe"]
        answer = ask(back, "open", to="@uwe", position=None)

    assert [(entry["from"], entry["text"]) for entry in answer["entries"]] == [("uwe", "for later")]


def test_one_may_write_to_oneself(client: ClientConnection) -> None:
    hello(client, "ego")
    ask(client, "open", to="@ego", position=None)

    assert ask(client, "say", to="@ego", id="1", text="a note")["to"] == "@ego"
    assert ask(client, "ping") == {"type": "pong"}  # and not a second "said"


def test_a_new_room_is_told_to_all(chat: Running) -> None:
    with chat.connect() as founder, chat.connect() as other:
        hello(founder, "founder")
        hello(other, "other")
        founder.send(json.dumps({"type": "open", "to": "#brand new"}))
        while (message := json.loads(other.recv(timeout=10)))["type"] != "rooms":
            pass

    assert "#brand new" in message["rooms"]
