"""No input makes what reads it fail in another way than its rules say, hang, or take memory that nobody sent."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from gatecrew.common import messages as op
from gatecrew.common import wire
from gatecrew.common.errors import WireError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from . import targets

OPCODES = [value for name, value in vars(op).items() if name.isupper() and type(value) is int]
known = st.sampled_from([*targets.IDS, targets.KEY, "u", "g", "", "uid", "id", "gateway", 0, 1, -1, 2**63, b"", [], {}])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
)
values = st.recursive(
    known | scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
plain = st.lists(values, max_size=8).flatmap(lambda rest: st.sampled_from(OPCODES).map(lambda code: [code, *rest]))
LENGTHS = {opcode: length for opcode, (length, _) in targets.a_core()._commands.items()}
# of the right length, and with more that is as it should be
fitting = st.sampled_from(sorted(LENGTHS)).flatmap(
    lambda opcode: st.lists(known | values, min_size=LENGTHS[opcode] - 1, max_size=LENGTHS[opcode] - 1).map(
        lambda fields: [opcode, *fields]
    )
)
plain = plain | fitting
turns = st.builds(
    lambda origin, number, inner: [op.TURN, origin, number, inner], known, known, st.lists(plain, max_size=3)
)
heads = st.binary(max_size=24) | st.builds(
    wire.frame, st.integers(0, 9), st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 4)
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("name", targets.OF_BYTES)
@quick
@given(data=st.binary(max_size=300) | st.builds(lambda head, rest: head + rest, heads, values.map(wire.pack)))
def test_bytes(name: str, data: bytes) -> None:
    targets.run(name, data)


@pytest.mark.parametrize("name", targets.OF_BATCHES)
@quick
@given(batch=st.lists(plain | turns, max_size=6))
def test_batches(name: str, batch: list[list[Any]]) -> None:
    targets.run(name, batch)


@pytest.mark.parametrize("kind", [b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"])  # array, map, text, bytes, extension
def test_a_length_is_not_believed(kind: bytes) -> None:
    """Each claims all the bytes there are and more, inside each other where it can."""
    tracemalloc.start()
    try:
        for claimed in (2**32 - 1, 2**20):
            with pytest.raises(WireError, match="not msgpack"):
                wire.unpack((kind + claimed.to_bytes(4)) * 200)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("deep", [b"\x91", b"\x81\xa1a", b"\x81"])
def test_what_is_nested_too_deep_is_refused(deep: bytes) -> None:
    with pytest.raises(WireError, match="not msgpack"):
        wire.unpack(deep * 100_000)


@pytest.mark.parametrize(
    "value",
    [
        msgpack.ExtType(1, b""),
        msgpack.ExtType(1, b"code"),
        msgpack.Timestamp(1),
        [{"a": msgpack.ExtType(5, b"x" * 20)}],
    ],
)
def test_nothing_but_plain_data_is_read(value: object) -> None:
    with pytest.raises(WireError, match="not msgpack"):
        wire.unpack(wire.pack(value))


@given(st.binary(max_size=200) | values.map(wire.pack))
@example(b"\x81\x90\x01")  # a map with a list as a key
@example(b"\xd6\xff" + bytes(4))  # a time
def test_what_is_read_is_plain_and_can_be_said_again(data: bytes) -> None:
    try:
        found = wire.unpack(data)
    except WireError:
        return
    assert _plain(found)
    wire.pack(found)


def _plain(value: object) -> bool:
    if type(value) is list:
        return all(map(_plain, value))
    if type(value) is dict:
        return all(_plain(part) for item in value.items() for part in item)
    return value is None or type(value) in (bool, int, float, str, bytes)
