"""What is spoken on a stream: the rules that each protocol keeps, for any messages and any cuts."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from gatecrew.gateway.protocols import PROTOCOLS, Frame, Raw, Text, TooBig
from gatecrew.testing.protocols import check_protocol
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gatecrew.gateway.protocols import Protocol

#: A line ends with the newline, and a CR before it is no part of the line.
LINES = st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=5)


@given(LINES)
def test_lines_survive_any_cut(messages: list[str]) -> None:
    check_protocol(Text, messages)


@given(st.lists(st.binary(), max_size=5))
def test_frames_survive_any_cut(messages: list[bytes]) -> None:
    check_protocol(Frame, messages)


@given(st.binary(), st.integers(1, 20))
def test_nothing_of_a_raw_stream_is_lost_and_nothing_is_too_big(data: bytes, most: int) -> None:
    pieces = Raw(most).feed(data)

    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= most for piece in pieces)


def heard(protocol: Protocol, pieces: Iterable[bytes]) -> tuple[list[str | bytes | None], str]:
    """Return the messages, and why the stream is broken."""
    found: list[str | bytes | None] = []
    try:
        for piece in pieces:
            found.extend(protocol.feed(piece))
    except ValueError as error:
        return found, type(error).__name__
    return found, ""


@given(st.sampled_from(["text", "frame"]), st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_junk_is_the_same_junk_however_it_is_cut(name: str, data: bytes, places: list[int]) -> None:
    edges = [0, *sorted(place for place in places if place <= len(data)), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]

    whole, why = heard(PROTOCOLS[name](10), [data])
    cut, same = heard(PROTOCOLS[name](10), pieces)

    # a line that is too long is only found to be so when its end did not come in time
    assert (cut, same) == (whole, why)


@given(st.sampled_from(["text", "frame"]), st.lists(st.binary(max_size=30), max_size=30))
def test_little_is_kept(name: str, pieces: list[bytes]) -> None:
    protocol = PROTOCOLS[name](10)
    heard(protocol, pieces)

    assert len(protocol._rest) <= 10 + 2 + 30  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("two\nlines", b"two lines\n"),
        ('{\r\n "a": 1\r\n}', b'{   "a": 1  }\n'),
        (b"bytes\xff\n", b"bytes\xff \n"),
    ],
)
def test_a_message_is_one_line(message: str | bytes, line: bytes) -> None:
    assert Text.encode(message) == line


def test_frames_count_themselves() -> None:
    assert Frame.encode("né") == b"\0\0\0\x07n\xc3\xa9"


@pytest.mark.parametrize("size", [10, 11, 12])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_the_size_of_a_line_is_without_its_end(size: int, end: bytes) -> None:
    found, why = heard(Text(10), [b"x" * size + end])

    assert found == (["x" * size] if size == 10 and end else [])
    # without its end, one more byte may be a CR
    assert why == (TooBig.__name__ if size > (10 if end else 11) else "")


def test_the_size_of_a_frame_is_not_waited_for() -> None:
    assert heard(Frame(10), [b"\0\0\0\x0e" + b"x" * 10]) == ([b"x" * 10], "")
    assert heard(Frame(10), [b"\0\0\0\x0f"]) == ([], TooBig.__name__)
