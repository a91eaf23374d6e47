"""The check for protocols of users' own: what is good passes, and what is not is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from gatecrew.gateway.protocols import Frame, Text
from gatecrew.testing.protocols import check_protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


class Forgetful(Text):
    """Keeps nothing of a line that is cut in two."""

    def feed(self, data: bytes) -> Iterable[str]:  # type: ignore[override]
        return [line.decode() for line in data.split(b"\n")[:-1]]


class Deaf(Frame):
    """Does not understand what it says itself."""

    @staticmethod
    def encode(message: str | bytes) -> bytes:
        return b"\0\0\0\0"


class Short(Text):
    """Loses the end of what it says."""

    @staticmethod
    def encode(message: str | bytes) -> bytes:
        return Text.encode(message[:3])


def test_what_is_good_passes() -> None:
    check_protocol(Text, ["", "hello", "thrée", "x" * 1000])
    check_protocol(Frame, [b"", b"\0\0\0\4", b"x" * 1000])


@pytest.mark.parametrize(
    ("protocol", "problem"),
    [
        (Forgetful, "fed byte by byte, .* gave "),
        (Short, "sent .*'hello'.*; fed whole, .* gave .*'hel'"),
        (Deaf, "its own stream is broken to it: a frame of 0 bytes"),
    ],
)
def test_what_is_not_is_named(protocol: type[Text | Frame], problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        check_protocol(protocol, ["hello", "world"])
