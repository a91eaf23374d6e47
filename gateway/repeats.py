"""What was carried out already: parts of turns come again when their event was handled again, or their link was cut.

Pure.
"""

from __future__ import annotations

from typing import Final

MAX_ORIGINS: Final = 100_000


class Repeats:
    """The last number of each origin; numbers are counted from 1. Past so many origins, the one that was heard of longest ago is forgotten.

    Args:
        size: how many origins are remembered.
    """

    __slots__ = ("_last", "_size")

    def __init__(self, size: int = MAX_ORIGINS) -> None:
        self._last: dict[str, int] = {}  # the one heard of last at the end
        self._size = size

    def __len__(self) -> int:
        return len(self._last)

    def seen(self, origin: str, number: int) -> bool:
        """Return whether this number of that origin, or a later one, was here before. From now on it was."""
        last = self._last.pop(origin, 0)
        self._last[origin] = max(last, number)
        if len(self._last) > self._size:
            del self._last[next(iter(self._last))]
        return number <= last
