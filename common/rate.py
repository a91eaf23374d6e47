"""How fast a counter rises. Pure; time is passed in as seconds."""

from __future__ import annotations

from typing import Final

SHORTEST: Final = 0.5  #: seconds between two looks that make a rate; sooner, the former one stands


class Rate:
    """The rate of a counter that only rises, over the time since it was last looked at.

    Args:
        now: when it was 0.
    """

    def __init__(self, now: float) -> None:
        self._total = 0
        self._at = now
        self._rate = 0.0

    def of(self, total: int, now: float) -> float:
        """Return how many a second there were lately, if there are so many now."""
        passed = now - self._at
        if passed >= SHORTEST:
            self._rate = (total - self._total) / passed
            self._total, self._at = total, now
        return round(self._rate, 1)
