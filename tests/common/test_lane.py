"""Two ends of a lane, over a wire that loses, repeats and reorders."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from gatecrew.common import wire
from gatecrew.common.errors import LinkError
from gatecrew.common.lane import ACK_EVERY, RESEND, Lane
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

INTERVAL = 0.5
DEAD_AFTER = 2.0


def lane(now: float = 0.0, limit: int = 1000) -> Lane:
    return Lane(7, now, interval=INTERVAL, dead_after=DEAD_AFTER, limit=limit)


def take(end: Lane, frame: bytes, now: float = 0.0) -> tuple[bool, list[bytes]]:
    kind, lane_id, seq, ack = wire.read(frame)
    assert lane_id == end.id
    deliver, answers = end.take(kind, seq, ack, now)
    return deliver, list(answers)


def kinds(frames: list[bytes]) -> list[int]:
    return [wire.read(frame)[0] for frame in frames]


def pair() -> tuple[Lane, Lane]:
    return lane(), lane()


# One frame at a time


def test_batches_are_delivered_once_and_in_order() -> None:
    here, there = pair()
    one, two = here.seal(b"one", 0.0), here.seal(b"two", 0.0)

    assert [take(there, frame) for frame in (one, one, two, one, two)] == [
        (True, []),
        (False, []),
        (True, []),
        (False, []),
        (False, []),
    ]


def test_a_gap_is_complained_of_once_an_interval() -> None:
    here, there = pair()
    here.seal(b"lost", 0.0)
    later = [here.seal(b"later", 0.0) for _ in range(5)]

    answers = [take(there, frame, now)[1] for frame, now in zip(later, (0.0, 0.1, 0.49, 0.5, 0.6), strict=True)]

    assert [kinds(frames) for frames in answers] == [[wire.NACK], [], [], [wire.NACK], []]


def test_a_new_gap_is_complained_of_at_once() -> None:
    here, there = pair()
    frames = [here.seal(b"batch", 0.0) for _ in range(4)]
    take(there, frames[1])
    take(there, frames[0])

    assert kinds(take(there, frames[3], 0.01)[1]) == [wire.NACK]


def test_a_complaint_is_answered_by_what_is_missing() -> None:
    here, there = pair()
    frames = [here.seal(b"batch", 0.0) for _ in range(4)]
    take(there, frames[0])
    (nack,) = take(there, frames[3])[1]

    assert take(here, nack) == (False, frames[1:])


def test_a_lost_last_batch_is_found_by_a_probe() -> None:
    here, there = pair()
    lost = here.seal(b"lost", 0.0)
    probe = here.tick(INTERVAL)
    assert probe is not None

    (nack,) = take(there, probe)[1]

    assert take(here, nack) == (False, [lost])


def test_much_that_is_missing_comes_again_piece_by_piece() -> None:
    here, there = pair()
    size = RESEND // 4
    for number in range(10):
        here.seal(bytes([number]) * size, 0.0)
    answers = take(there, here.probe(0.0))[1]
    most = 0
    got = []
    while answers:
        again = take(here, answers[0])[1]
        most = max(most, sum(map(len, again)))
        answers = []
        for frame in again:
            deliver, said = take(there, frame)
            answers += said
            if deliver:
                got.append(frame[24])

    assert got == list(range(10))
    assert most <= RESEND + size


def test_complaints_without_progress_are_not_all_heeded() -> None:
    here, there = pair()
    frames = [here.seal(b"batch", 0.0) for _ in range(2)]
    (nack,) = take(there, frames[1])[1]

    assert [len(take(here, nack, now)[1]) for now in (0.0, 0.1, 0.2, 0.25, 0.3)] == [2, 0, 0, 2, 0]


def test_an_ack_rides_on_a_batch_that_goes_the_other_way() -> None:
    here, there = pair()
    take(there, here.seal(b"question", 0.0))

    take(here, there.seal(b"answer", 0.0))

    assert here.acked == 1
    assert not here.unacked


def test_an_ack_that_nothing_carries_goes_with_the_next_tick() -> None:
    here, there = pair()
    take(there, here.seal(b"batch", 0.0))

    probe = there.tick(0.1)
    assert probe is not None
    take(here, probe)

    assert not here.unacked
    assert there.tick(0.2) is None


def test_many_batches_are_acknowledged_without_a_tick() -> None:
    here, there = pair()

    answers = [take(there, here.seal(b"batch", 0.0))[1] for _ in range(2 * ACK_EVERY)]

    assert [number for number, frames in enumerate(answers, 1) if frames] == [ACK_EVERY, 2 * ACK_EVERY]


def test_an_idle_lane_probes_once_an_interval() -> None:
    end = lane()

    assert [now / 10 for now in range(16) if end.tick(now / 10) is not None] == [0.5, 1.0, 1.5]


def test_a_lane_is_full_until_the_other_end_has_enough_of_it() -> None:
    here, there = lane(limit=100), lane()
    first, second = here.seal(bytes(60), 0.0), here.seal(bytes(60), 0.0)
    assert here.full()
    assert not lane(limit=100).full(100)
    assert lane(limit=100).full(101)

    take(there, first)
    take(here, there.probe(0.0))
    assert not here.full()

    take(there, second)
    take(here, there.probe(0.0))
    assert here.unacked_bytes == 0


def test_an_ack_of_what_was_never_sent_breaks_the_rules() -> None:
    here, _ = pair()
    here.seal(b"batch", 0.0)

    with pytest.raises(LinkError, match="acknowledges batch 2, but only 1 were sent"):
        here.take(wire.PROBE, 0, 2, 0.0)


def test_an_old_ack_takes_nothing_back() -> None:
    here, _ = pair()
    for _ in range(3):
        here.seal(b"batch", 0.0)
    here.take(wire.PROBE, 0, 2, 0.0)

    here.take(wire.PROBE, 0, 1, 0.0)

    assert here.acked == 2
    assert len(here.unacked) == 1


def test_any_frame_is_a_sign_of_life() -> None:
    for kind in (wire.DATA, wire.PROBE, wire.NACK):
        end = lane()
        assert not end.dead(DEAD_AFTER)
        assert end.dead(DEAD_AFTER + 0.1)

        end.take(kind, 0, 0, DEAD_AFTER)

        assert not end.dead(2 * DEAD_AFTER)
        assert end.dead(2 * DEAD_AFTER + 0.1)


def test_a_silence_that_nobody_listened_to_is_forgiven() -> None:
    end = lane()

    end.forgive(60.0, 61.0)

    assert not end.dead(62.0)
    assert end.dead(62.1)


def test_a_silence_is_not_forgiven_into_the_future() -> None:
    end = lane()
    end.take(wire.PROBE, 0, 0, 60.0)  # read before this end noticed that it had been stopped

    end.forgive(60.0, 60.1)

    assert end.dead(60.1 + DEAD_AFTER + 0.1)


# Anything that may happen


@dataclass
class End:
    """One end, what it wanted to say, and what it heard."""

    lane: Lane
    wire: list[bytes]  # what is on its way to the other end
    said: list[bytes] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)
    complained: tuple[int, float] = (-1, 0.0)  # received, when

    def say(self, payload: bytes, now: float) -> None:
        self.said.append(payload)
        self.wire.append(self.lane.seal(payload, now))

    def take(self, frame: bytes, now: float) -> None:
        deliver, answers = take(self.lane, frame, now)
        if deliver:
            self.heard.append(frame[24:])
        for answer in answers:
            if wire.read(answer)[0] == wire.NACK:
                received, at = self.complained
                assert received != self.lane.received or now - at >= INTERVAL
                self.complained = (self.lane.received, now)
        self.wire += answers

    def tick(self, now: float) -> None:
        due = self.lane.tick(now)
        if due is not None:
            self.wire.append(due)


class Network(RuleBasedStateMachine):
    """Two ends and all that may happen to frames between them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.ends = [End(lane(self.now), []) for _ in range(2)]

    @rule(end=st.integers(0, 1), payload=st.binary(max_size=20))
    def say(self, end: int, payload: bytes) -> None:
        self.ends[end].say(payload, self.now)

    @precondition(lambda self: any(end.wire for end in self.ends))
    @rule(end=st.integers(0, 1), data=st.data(), fate=st.sampled_from(["arrives", "arrives twice", "is lost"]))
    def travel(self, end: int, data: st.DataObject, fate: str) -> None:
        flying = self.ends[end].wire
        if flying:
            which = data.draw(st.integers(0, len(flying) - 1))
            frame = flying[which] if fate == "arrives twice" else flying.pop(which)
            if fate != "is lost":
                self.ends[1 - end].take(frame, self.now)

    @rule(end=st.integers(0, 1))
    def cut(self, end: int) -> None:
        self.ends[end].wire.clear()

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for end in self.ends:
            end.tick(self.now)

    @invariant()
    def nothing_is_heard_twice_or_out_of_order(self) -> None:
        for here, there in zip(self.ends, reversed(self.ends), strict=True):
            assert there.heard == here.said[: len(there.heard)]

    @invariant()
    def what_is_kept_is_what_is_not_acknowledged(self) -> None:
        for end in self.ends:
            assert len(end.lane.unacked) == end.lane.sent - end.lane.acked
            assert end.lane.unacked_bytes == sum(map(len, end.lane.unacked))

    def teardown(self) -> None:
        """From now on nothing is lost: all must arrive soon, and then nothing must be left."""
        for _ in range(5):
            self.now += INTERVAL
            for end in self.ends:
                end.tick(self.now)
            while any(end.wire for end in self.ends):
                for here, there in zip(self.ends, reversed(self.ends), strict=True):
                    flying, here.wire[:] = list(here.wire), []
                    for frame in flying:
                        there.take(frame, self.now)
        self.nothing_is_heard_twice_or_out_of_order()
        for here, there in zip(self.ends, reversed(self.ends), strict=True):
            assert there.heard == here.said
            assert not here.lane.unacked
            assert not here.lane.dead(self.now)


test_everything_is_delivered_once_and_in_order = Network.TestCase
