"""The answers to one question, gathered from several gateways."""

from __future__ import annotations

from gatecrew.business.gather import Gather
from hypothesis import given
from hypothesis import strategies as st


def test_it_is_complete_when_all_have_answered() -> None:
    told: list[bool] = []
    gather = Gather({"a": "gateway-1", "b": "gateway-2"})
    gather.finished = lambda: told.append(True)
    gather.answered("b", 2)
    assert not gather.complete
    gather.answered("a", 1)

    assert gather.complete
    assert gather.answers == [1, 2], "in the order of those who were asked"
    assert told == [True]
    assert gather.missing == []


def test_who_fails_is_named() -> None:
    gather = Gather({"a": "gateway-1", "b": "gateway-2"})
    gather.answered("a", 1)
    gather.failed("b")

    assert gather.complete
    assert (gather.answers, gather.missing) == ([1], ["gateway-2"])


def test_who_says_why_it_does_not_answer_is_quoted() -> None:
    gather = Gather({"a": "gateway-1", "b": "gateway-2"})
    gather.refused("a", "too much")
    gather.refused("c", "was not asked")
    assert not gather.complete
    gather.answered("b", 2)

    assert gather.complete
    assert gather.refusals == ["gateway-1: too much"]


def test_who_leaves_is_not_missed() -> None:
    gather = Gather({"a": "gateway-1", "b": "gateway-2"})
    gather.answered("a", 1)
    gather.left("a")
    gather.left("b")

    assert gather.complete
    assert (gather.answers, gather.missing) == ([1], [])


def test_at_the_deadline_those_that_are_silent_are_named() -> None:
    gather = Gather({"a": "gateway-1", "b": "gateway-2", "c": "gateway-3"})
    gather.answered("b", None)
    gather.give_up()

    assert gather.complete
    assert (gather.answers, gather.missing) == ([None], ["gateway-1", "gateway-3"])


def test_a_question_to_nobody_is_complete() -> None:
    assert Gather({}).complete


@given(st.lists(st.tuples(st.sampled_from("abcx"), st.sampled_from(["answer", "fail", "leave", "give up"]))))
def test_whatever_comes_the_end_is_told_once_and_everybody_is_an_answer_or_missing_or_left(
    happenings: list[tuple[str, str]],
) -> None:
    told: list[bool] = []
    gather = Gather({"a": "1", "b": "2", "c": "3"})
    gather.finished = lambda: told.append(True)
    first: dict[str, str] = {}
    for key, what in happenings:
        for concerned in "abc" if what == "give up" else key:
            first.setdefault(concerned, what)
        if what == "answer":
            gather.answered(key, key)
        elif what == "fail":
            gather.failed(key)
        elif what == "leave":
            gather.left(key)
        else:
            gather.give_up()

    assert told == [True] * gather.complete
    if gather.complete:
        assert gather.answers == [key for key in "abc" if first[key] == "answer"]
        failed = [key for key in "abc" if first[key] in ("fail", "give up")]
        assert gather.missing == [{"a": "1", "b": "2", "c": "3"}[key] for key in failed]
