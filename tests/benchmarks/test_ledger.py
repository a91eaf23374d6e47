"""The books of chaos: what was said and what was heard."""

from __future__ import annotations

import pytest
from gatecrew.benchmarks.chaos.ledger import Ledger, Stream, quantile
from hypothesis import given
from hypothesis import strategies as st


def a_ledger(*clients: tuple[int, str]) -> Ledger:
    """Return the books of these clients at these gateways, of one group."""
    ledger = Ledger()
    for client, gateway in clients:
        ledger.joined(client, gateway, "group")
    return ledger


def test_each_number_of_a_stream_is_told_what_it_is() -> None:
    stream = Stream(first=3)

    told = [stream.heard(number) for number in (2, 3, 6, 5, 5, 6, 3, 7)]

    assert told == ["early", "new", "new", "reordered", "repeated", "repeated", "repeated", "new"]
    assert stream.lost(said=9) == 3  # 4, 8 and 9


@given(st.lists(st.integers(1, 30), max_size=60))
def test_lost_is_what_never_came(numbers: list[int]) -> None:
    stream = Stream()

    told = [stream.heard(number) for number in numbers]

    assert stream.lost(said=30) == 30 - len(set(numbers))
    assert told.count("repeated") == len(numbers) - len(set(numbers))


@given(st.permutations(range(1, 8)))
def test_reordered_is_what_others_overtook(numbers: list[int]) -> None:
    stream = Stream()

    for at, number in enumerate(numbers):
        assert (stream.heard(number) == "reordered") == any(earlier > number for earlier in numbers[:at])


def test_what_comes_back_once_and_in_order_is_fine() -> None:
    ledger = a_ledger((1, "a"))

    waited = [ledger.echoed(1, ledger.say(1, now), now + 0.5) for now in (0.0, 1.0, 2.0)]

    assert waited == [0.5, 0.5, 0.5]
    assert (ledger.sent, ledger.handled, ledger.lost, ledger.reordered, ledger.repeated) == (3, 3, 0, 0, 0)


def test_what_does_not_come_back_is_lost() -> None:
    ledger = a_ledger((1, "a"))
    for now in (0.0, 1.0, 2.0):
        ledger.say(1, now)

    ledger.echoed(1, 2, 3.0)

    assert (ledger.handled, ledger.lost) == (1, 2)
    assert ledger.waits_since() == 0.0
    ledger.give_up(2.0)
    assert (ledger.waits_since(), ledger.lost) == (2.0, 2)


def test_what_comes_back_twice_is_repeated_and_no_longer_waited_for() -> None:
    ledger = a_ledger((1, "a"))
    number = ledger.say(1, 0.0)

    assert ledger.echoed(1, number, 0.1) is not None
    assert ledger.echoed(1, number, 9.0) is None

    assert (ledger.handled, ledger.repeated, ledger.waits_since()) == (1, 1, float("inf"))


def test_all_of_a_group_should_hear_what_one_tells_it() -> None:
    ledger = a_ledger((1, "a"), (2, "a"), (3, "b"))
    number = ledger.tell(1)

    assert ledger.lost == 3
    for listener in (1, 2, 3):
        ledger.heard(listener, 1, number)

    assert (ledger.sent, ledger.handled, ledger.lost) == (1, 1, 0)


@pytest.mark.parametrize(("listener", "repeated", "across"), [(1, 1, 0), (2, 1, 0), (3, 0, 1)])
def test_repeated_at_another_gateway_is_counted_apart(listener: int, repeated: int, across: int) -> None:
    ledger = a_ledger((1, "a"), (2, "a"), (3, "b"))
    number = ledger.tell(1)

    ledger.heard(listener, 1, number)
    ledger.heard(listener, 1, number)

    assert (ledger.repeated, ledger.repeated_across) == (repeated, across)


def test_who_comes_later_need_not_have_heard_what_was_told_before() -> None:
    ledger = a_ledger((1, "a"))
    on_its_way = ledger.tell(1)
    ledger.heard(1, 1, 1)

    ledger.joined(2, "a", "group")
    ledger.heard(2, 1, on_its_way)
    ledger.heard(2, 1, ledger.tell(1))

    assert (ledger.repeated, ledger.reordered, ledger.lost) == (0, 0, 1)  # by the speaker, which has not heard itself


def test_who_is_gone_neither_hears_nor_is_heard() -> None:
    ledger = a_ledger((1, "a"), (2, "b"))
    ledger.say(1, 0.0)
    told = ledger.tell(1)

    ledger.left(1)
    ledger.heard(2, 1, told)

    assert (ledger.lost, ledger.handled, ledger.waits_since()) == (0, 0, float("inf"))


def test_the_recovery_of_a_fault_is_the_longest_that_anyone_waited_since() -> None:
    ledger = a_ledger((1, "a"), (2, "a"))
    ledger.echoed(2, ledger.say(2, 0.0), 5.0)
    before = ledger.say(1, 9.0)

    ledger.fault(10.0)
    ledger.echoed(2, ledger.say(2, 10.0), 10.5)
    ledger.echoed(1, before, 12.0)
    ledger.fault(20.0)
    ledger.echoed(1, ledger.say(1, 21.0), 21.25)

    assert ledger.recoveries == [2.0, 0.25]


@pytest.mark.parametrize(("share", "value"), [(0, 1), (0.5, 51), (0.99, 100), (1, 100)])
def test_a_quantile_of_a_hundred(share: float, value: float) -> None:
    assert quantile([float(number) for number in range(100, 0, -1)], share) == value


def test_a_quantile_of_nothing() -> None:
    assert quantile([], 0.99) == 0
