"""A turn: what a handler commands, gathered until it ends."""

from __future__ import annotations

import pytest
from gatecrew.business import turn as module
from gatecrew.business.turn import Turn
from gatecrew.common.errors import TurnDropped

from .recorder import Recorder, make_client

HERE, THERE = "heregate", "theregat"


def test_what_is_for_the_clients_gateway_is_kept_apart_from_what_is_for_others() -> None:
    turn = Turn(make_client(Recorder(), HERE), 7)
    turn.record(HERE, [1])
    turn.record(THERE, [2])

    assert turn.take() == ([[1]], [(THERE, [2])])


def test_what_is_for_all_goes_to_the_own_gateway_in_its_order_and_to_the_others() -> None:
    turn = Turn(make_client(Recorder(), HERE), 7)
    turn.record(HERE, [1])
    turn.record(None, [2])
    turn.record(HERE, [3])

    assert turn.take() == ([[1], [2], [3]], [(None, [2])])


def test_without_a_client_no_gateway_is_the_own_one() -> None:
    turn = Turn()
    turn.record(None, [1])
    turn.record(HERE, [2])

    assert turn.take() == ([], [(None, [1]), (HERE, [2])])


def test_what_was_taken_is_gone() -> None:
    turn = Turn()
    turn.record(None, [1])
    turn.take()

    assert turn.take() == ([], [])


def test_past_its_bound_nothing_more_is_recorded_before_the_rest_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COMMANDS", 100)
    turn = Turn(make_client(Recorder(), HERE), 7)
    turn.record(HERE, [1, "x" * 100])
    with pytest.raises(ValueError, match="let them leave in between"):
        turn.record(THERE, [2])
    with pytest.raises(ValueError, match="let them leave in between"):
        turn.save()  # so that no change is noted that is not commanded then

    assert turn.take() == ([[1, "x" * 100]], [])
    turn.save()
    turn.record(THERE, [3])


def test_the_parts_of_an_event_are_numbered_from_1_in_each_run_and_on_through_its_error_handler() -> None:
    client = make_client(Recorder(), HERE)
    client.number = 3
    first, second = Turn(client, 7), Turn(client, 8)

    assert [turn.stamp() for turn in (first, first, second)] == [(f"{client.id}:3", number) for number in (1, 2, 1)]
    assert Turn(client, 7, parts=first.parts).stamp() == (f"{client.id}:3", 3)
    assert Turn().stamp() is None


def test_a_handler_that_was_given_up_is_told_so_when_it_goes_on() -> None:
    turn = Turn()
    turn.dropped = "the handler ran past its time limit"
    with pytest.raises(TurnDropped, match="past its time limit"):
        turn.record(None, [1])


class TestChangesOfTheClient:
    def test_a_changed_session_is_saved_with_the_turn(self) -> None:
        client = make_client(Recorder(), HERE)
        turn = Turn(client, 7)
        client.session["name"] = "ann"

        own, _ = turn.take()

        assert own == [[27, client.id, {"name": "ann"}, [], True]]
        assert turn.take() == ([], []), "it is saved once"

    def test_what_a_handler_keeps_of_the_session_is_no_part_of_it_when_it_has_ended(self) -> None:
        """A list put into the session that grew afterwards was saved with the client's next event."""
        client = make_client(Recorder(), HERE)
        kept: list[int] = []
        client.session["list"] = kept
        Turn(client, 7).take()
        kept.append(1)
        own, _ = Turn(client, 7).take(last=True)
        assert own[0][2] == {"list": [1]}
        kept.append(2)

        assert client.session == {"list": [1]}
        assert Turn(client, 8).take() == ([], [])

    def test_an_undone_turn_leaves_uid_and_session_as_they_were(self) -> None:
        client = make_client(Recorder(), HERE)
        client.rebind("ann")
        client.replace_session({"a": 1})
        turn = Turn(client, 7)
        turn.save()
        client.rebind("bob")
        client.update_session({"b": 2})
        client.session["c"] = 3
        turn.undo()

        assert (client.uid, client.session) == ("ann", {"a": 1})
        assert turn.take() == ([], [])

    def test_what_left_before_stays_when_the_rest_is_undone(self) -> None:
        client = make_client(Recorder(), HERE)
        turn = Turn(client, 7)
        turn.save()
        client.rebind("ann")
        turn.take()  # as a flush does
        turn.save()
        client.rebind("bob")
        turn.undo()

        assert client.uid == "ann"
