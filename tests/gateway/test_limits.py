"""Limits: who comes, how fast one talks, and who is silent."""

from __future__ import annotations

from collections import Counter

import pytest
from gatecrew.gateway.limits import LOOKS, SAVED, Crowd, Idle, Pace, Rates, network
from hypothesis import given
from hypothesis import strategies as st

FAR = 1_000_000.0  # some time; clocks do not start at 0

gaps = st.floats(0, 3)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_what_is_limited_as_one(address: str, expected: str) -> None:
    assert network(address) == expected


class TestPace:
    """A client is read as fast as its rate, and given up if it is not content with that."""

    @given(st.lists(st.tuples(gaps, st.integers(0, 500), st.integers(0, 5000)), max_size=60))
    def test_who_waits_as_told_never_exceeds_the_rates(self, reads: list[tuple[float, int, int]]) -> None:
        pace, now = Pace(Rates(100, 1000, float("inf"))), FAR
        messages = size = most_messages = most_size = 0
        for gap, many, large in reads:
            now += gap
            # one read may exceed what is left by what it brings
            assert messages <= 100 * (now - FAR + SAVED) + most_messages + 0.01
            assert size <= 1000 * (now - FAR + SAVED) + most_size + 0.01
            messages, size = messages + many, size + large
            most_messages, most_size = max(most_messages, many), max(most_size, large)
            wait = pace.spend(many, large, now)
            assert wait is not None
            now += wait

    @given(st.lists(st.tuples(gaps, st.integers(0, 300)), max_size=60))
    def test_who_keeps_to_the_rate_never_waits(self, rests: list[tuple[float, int]]) -> None:
        pace, now = Pace(Rates(100, 0, 0)), FAR
        for gap, messages in rests:
            now += gap + messages / 100
            assert pace.spend(messages, 1 << 40, now) == 0

    @given(st.integers(1, 1000), st.integers(0, 100_000))
    def test_what_was_saved_may_be_used_at_once(self, rate: int, size: int) -> None:
        pace = Pace(Rates(rate, 0, 10))

        assert pace.spend(int(rate * SAVED), size, FAR) == 0
        assert pace.spend(1, size, FAR) == pytest.approx(1 / rate, abs=1e-6)

    def test_a_message_that_is_larger_than_the_bucket_is_paid_for_afterwards(self) -> None:
        pace = Pace(Rates(0, 1000, 10))

        assert pace.spend(1, 8000, FAR) == 3
        assert pace.spend(1, 1, FAR + 4) == 0

    def test_who_is_too_fast_for_too_long_is_given_up(self) -> None:
        pace, now = Pace(Rates(10, 0, 2)), FAR
        waits = []
        while (wait := pace.spend(60, 0, now)) is not None:
            waits.append(wait)
            now += wait

        assert waits[0] == 1
        assert len(waits) == 2  # at once, and a second later; the next time it is too long

    def test_a_moment_within_the_rate_and_patience_begins_anew(self) -> None:
        pace, now = Pace(Rates(10, 0, 2)), FAR
        for _ in range(20):
            assert pace.spend(60, 0, now) == 1
            assert pace.spend(0, 0, now + 1) == 0
            now += 20

    def test_without_rates_nobody_waits(self) -> None:
        assert Pace(Rates(0, 0, 0)).spend(1 << 40, 1 << 50, FAR) == 0


class TestCrowd:
    """Connections in all, and those of one address."""

    def test_there_is_room_for_so_many(self) -> None:
        crowd = Crowd(2)

        assert [crowd.come("", FAR), crowd.come("192.0.2.1", FAR), crowd.come("192.0.2.2", FAR)] == ["", "", "no_room"]
        crowd.go("192.0.2.1")
        assert crowd.come("192.0.2.2", FAR) == ""

    def test_an_address_has_so_many_and_others_have_their_own(self) -> None:
        crowd = Crowd(100, per_address=2)

        assert [crowd.come(f"2001:db8::{n}", FAR) for n in (1, 2, 3)] == ["", "", "address_full"]
        assert crowd.come("2001:db8:0:1::1", FAR) == ""
        crowd.go("2001:db8::2")
        assert crowd.come("2001:db8::4", FAR) == ""

    def test_an_address_has_so_many_new_ones_a_second(self) -> None:
        crowd = Crowd(10_000, rate=10)
        came = Counter(crowd.come("192.0.2.1", FAR) for _ in range(200))

        assert came == {"": 10 * SAVED + 1, "address_rate": 199 - 10 * SAVED}  # one, as soon as nothing is owed
        assert crowd.come("192.0.2.2", FAR) == ""
        assert crowd.come("192.0.2.1", FAR + 0.11) == ""
        assert crowd.come("192.0.2.1", FAR + 0.11) == "address_rate"

    @given(
        st.lists(st.tuples(st.integers(0, 5), st.booleans(), gaps), max_size=100),
        st.integers(0, 4),
        st.sampled_from([0.0, 1.0, 5.0]),
    )
    def test_the_books_agree_with_who_is_there(
        self, steps: list[tuple[int, bool, float]], limit: int, rate: float
    ) -> None:
        crowd, now = Crowd(8, limit, rate), FAR
        there: Counter[str] = Counter()
        for number, comes, gap in steps:
            now += gap
            address = f"192.0.2.{number}" if number else ""
            if comes:
                why = crowd.come(address, now)
                assert (why == "no_room") == (there.total() == 8)
                if why in ("", "address_full"):
                    assert (why == "address_full") == bool(address and limit and there[address] >= limit)
                there[address] += not why
            elif there[address]:
                there[address] -= 1
                crowd.go(address)
            assert crowd.connections == there.total()

    @pytest.mark.parametrize("rate", [0.0, 1.0])
    def test_addresses_of_those_who_are_gone_are_forgotten(self, rate: float) -> None:
        crowd = Crowd(10, 5, rate)
        for number in range(20_000):
            address = f"10.0.{number >> 8}.{number & 255}"
            assert crowd.come(address, FAR + number / 10) == ""
            crowd.go(address)

        assert len(crowd) <= 1010


class TestIdle:
    """Whoever sends no message is looked at a few times and then idle."""

    @given(st.lists(st.floats(0, 500), max_size=30), st.floats(1, 100))
    def test_nobody_is_idle_early_and_everybody_soon(self, messages: list[float], seconds: float) -> None:
        idle, looks, at, before = Idle(seconds), 0, 0.0, 0.0
        while True:
            at += idle.interval
            heard = any(before < moment <= at for moment in messages)
            before = at
            said = idle.next(looks, heard=heard)
            if said is None:
                break
            looks = said
        last = max([0.0, *(moment for moment in messages if moment <= at)])

        assert seconds - 0.001 <= at - last <= seconds + idle.interval + 0.001

    def test_a_message_begins_anew(self) -> None:
        idle = Idle(8)

        assert [idle.next(looks, heard=False) for looks in range(LOOKS)] == [1, 2, 3, None]
        assert idle.next(3, heard=True) == 0
