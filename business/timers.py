"""Which worker runs a timer that the whole cluster has once. Pure.

Every worker sees who is there, and all choose in the same way, so nobody has to be asked. When the workers change, the choice
may fall on another: that one waits a while, so that the one before has seen the change too and has stopped.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Turns:
    """Whether it is this worker's turn.

    Args:
        key: of this worker.
        wait: seconds from when it is chosen to when it may begin.
    """

    def __init__(self, key: str, wait: float) -> None:
        self._key = key
        self._wait = wait
        self._since: dict[str, float] = {}  # timer -> since when this worker is chosen

    def seen(self, timers: Iterable[str], workers: Iterable[str], now: float) -> None:
        """Take note of the workers that there are, by their keys. To be called whenever they change."""
        keys = list(workers)
        for timer in timers:
            if keys and max(keys, key=lambda key: _weight(timer, key)) == self._key:
                self._since.setdefault(timer, now)
            else:
                self._since.pop(timer, None)

    def holds(self, timer: str, now: float) -> bool:
        """Return whether this worker runs the timer now."""
        since = self._since.get(timer)
        return since is not None and now - since >= self._wait


def _weight(timer: str, key: str) -> bytes:
    return blake2b(f"{timer}/{key}".encode(), digest_size=8).digest()
