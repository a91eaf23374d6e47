"""Frames and batches."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import pytest
from gatecrew.common import wire
from gatecrew.common.errors import WireError
from hypothesis import given
from hypothesis import strategies as st

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
data = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
messages = st.lists(
    st.builds(lambda opcode, fields: [opcode, *fields], st.integers(0, 255), st.lists(data, max_size=4))
)


def batch(payload: bytes) -> list[Any]:
    return wire.decode(wire.frame(wire.DATA, 1, 1, 0, payload))


@given(st.integers(0, 255), u32, u64, u64, st.binary())
def test_a_frame_is_read_as_it_was_made(kind: int, lane: int, seq: int, ack: int, payload: bytes) -> None:
    frame = wire.frame(kind, lane, seq, ack, payload)

    assert wire.read(frame) == (kind, lane, seq, ack)
    assert frame[24:] == payload


def test_the_bytes_of_a_frame_are_those_of_the_specification() -> None:
    assert wire.frame(wire.DATA, 0x01020304, 5, 6, b"payload") == (
        b"GC\x01\x04" + b"\x01\x02\x03\x04" + b"\0\0\0\0\0\0\0\x05" + b"\0\0\0\0\0\0\0\x06" + b"payload"
    )


@given(messages)
def test_a_batch_is_read_as_it_was_made(batch_of: list[Any]) -> None:
    payloads = wire.encode(batch_of)

    assert [batch(payload) for payload in payloads] == [batch_of]


@given(st.binary())
def test_any_bytes_are_a_frame_or_a_wire_error(rubbish: bytes) -> None:
    with contextlib.suppress(WireError):
        wire.read(rubbish)


@given(st.binary())
def test_any_payload_is_a_batch_or_a_wire_error(rubbish: bytes) -> None:
    with contextlib.suppress(WireError):
        for message in batch(rubbish):
            assert type(message[0]) is int


@given(data)
def test_what_is_well_packed_but_no_batch_is_a_wire_error(value: Any) -> None:
    fine = type(value) is list and all(type(one) is list and one and type(one[0]) is int for one in value)

    with contextlib.nullcontext() if fine else pytest.raises(WireError):
        batch(msgpack.packb(value))


@given(st.binary())
def test_any_payload_is_a_greeting_or_a_wire_error(rubbish: bytes) -> None:
    with contextlib.suppress(WireError):
        assert type(wire.decode_map(wire.frame(wire.HELLO, 1, payload=rubbish))) is dict


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x91\x91",  # cut off
        b"\x90\x90",  # two values
        b"\x91\x91\xa1\xff",  # text that is not UTF-8
        b"\xdd\xff\xff\xff\xff",  # says that it has four billion members
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000 + b"\x90",  # deep
        b"\x91\x92\x01\x81\x01\x02",  # a map with a number for a key
        b"\x91\x92\x01\xd6\xff",  # a time that is cut off
    ],
)
def test_a_payload_that_attacks_the_decoder_is_a_wire_error(payload: bytes) -> None:
    with pytest.raises(WireError):
        batch(payload)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", "not Gatecrew"),
        (b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", "not Gatecrew"),
        (b"GC\x01", "a frame of 3 bytes, shorter than its header"),
        (wire.frame(wire.DATA, 1)[:-1], "a frame of 23 bytes, shorter than its header"),
        (b"GC\x02" + bytes(21), "wire version 2, but this process speaks 1: run one version of Gatecrew"),
    ],
)
def test_a_bad_frame_is_told_from_another_version(frame: bytes, why: str) -> None:
    with pytest.raises(WireError) as error:
        wire.read(frame)

    assert str(error.value) == why


def test_a_frame_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME", 100)

    wire.read(wire.frame(wire.DATA, 1, payload=bytes(76)))
    with pytest.raises(WireError, match="a frame of 101 bytes, over the limit of 100"):
        wire.read(wire.frame(wire.DATA, 1, payload=bytes(77)))


def test_a_message_that_no_frame_has_room_for_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME", 100)
    monkeypatch.setattr(wire, "MAX_BATCH", 50)

    (payload,) = wire.encode([[1, bytes(71)]])
    wire.read(wire.frame(wire.DATA, 1, payload=payload))
    with pytest.raises(ValueError, match="over what a frame of 100 has room for"):
        wire.encode([[1], [1, bytes(72)]])


@given(st.lists(st.integers(0, 60), max_size=20))
def test_what_is_too_much_for_one_batch_travels_as_several_in_order(sizes: list[int]) -> None:
    batch_of = [[number, bytes(size)] for number, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "MAX_BATCH", 64)

        payloads = wire.encode(batch_of)

    assert [message for payload in payloads for message in batch(payload)] == batch_of
    assert all(len(payload) <= 64 or len(batch(payload)) == 1 for payload in payloads)


@pytest.mark.parametrize("bad", [object(), {1}, 2**64, "\ud800", {1: [object()]}])
def test_what_cannot_be_packed_leaves_nothing_behind(bad: object) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        wire.encode([[1, "before"], [2, bad]])

    assert [batch(payload) for payload in wire.encode([[3, "after"]])] == [[[3, "after"]]]


def test_a_greeting_is_short() -> None:
    def greeting(size: int) -> bytes:
        return wire.frame(wire.HELLO, 1, payload=wire.pack({"name": "x" * size}))

    assert wire.decode_map(greeting(4000)) == {"name": "x" * 4000}
    with pytest.raises(WireError, match="a greeting that is too long"):
        wire.decode_map(greeting(5000))


def test_why_a_peer_refuses_is_fit_for_one_line_of_a_log() -> None:
    def said(payload: bytes) -> str:
        return wire.text(wire.frame(wire.REFUSE, 0, payload=payload))

    assert said("another secret: schön".encode()) == "another secret: schön"
    assert said(b"one\ntwo\x1b[31m\xff") == "one?two?[31m\ufffd"
    assert said("ü".encode() * 1000) == "ü" * 200
