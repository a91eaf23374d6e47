"""The rules that a protocol of one's own must keep, as a check for tests: see ``docs/protocols.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..gateway.protocols import Protocol

MOST: int = 50  #: places in a stream where it is cut in two, one after the other


def check_protocol(
    make: Callable[[int], Protocol], messages: Sequence[str | bytes], *, max_message: int = 1 << 20
) -> None:
    """See whether messages survive a protocol, however the stream between is cut into pieces.

    They are encoded one after the other, and the stream is fed whole, byte by byte, and in two pieces that are cut at each place of
    it, or at :data:`MOST` of them.

    Args:
        make: the class of the protocol.
        messages: what is said, each of the type that ``feed`` gives.
        max_message: what the class is made with.

    Raises:
        AssertionError: says which rule is broken, and how the stream was cut.
    """
    sender = make(max_message)
    stream = b"".join([sender.encode(message) for message in messages])
    step = max(1, len(stream) // MOST)
    ways = {
        "whole": [stream],
        "byte by byte": [stream[at : at + 1] for at in range(len(stream))],
        **{f"in two pieces at byte {at}": [stream[:at], stream[at:]] for at in range(0, len(stream) + 1, step)},
    }
    for way, pieces in ways.items():
        found = _fed(make(max_message), pieces, way)
        assert found == list(messages), f"sent {list(messages)!r}; fed {way}, {stream!r} gave {found!r}"


def _fed(receiver: Protocol, pieces: Iterable[bytes], way: str) -> list[str | bytes]:
    found: list[str | bytes] = []
    for piece in pieces:
        try:
            found += [message for message in receiver.feed(piece) if message is not None]
        except ValueError as error:
            raise AssertionError(f"fed {way}, its own stream is broken to it: {error}") from error
    return found
