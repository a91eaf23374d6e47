"""When something is to be done about a connection: deadlines in buckets, and the rule of pings.

Pure: the time is an argument. One timer for all connections asks :meth:`Wheel.due` again and again; a timer for each
would cost more memory than a connection's own state.
"""

from __future__ import annotations

import math
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

UNSET: Final = -1  #: the slot of an item without a deadline


class Timed(Protocol):
    """What a wheel can hold."""

    slot: int  #: belongs to the wheel; begins as :data:`UNSET`


T = TypeVar("T", bound=Timed)


class Wheel(Generic[T]):
    """Items with one deadline each, in buckets of one tick.

    Args:
        tick: seconds; a deadline is late by at most this, and never early.

    """

    def __init__(self, tick: float) -> None:
        self.tick = tick
        self._buckets: dict[int, set[T]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def set(self, item: T, deadline: float) -> None:
        """Give an item a deadline, in place of the one that it has."""
        self.cancel(item)
        item.slot = slot = max(0, math.ceil(deadline / self.tick))
        bucket = self._buckets.get(slot)
        if bucket is None:
            self._buckets[slot] = {item}
        else:
            bucket.add(item)

    def cancel(self, item: T) -> None:
        """Take an item out, if it is in."""
        if item.slot != UNSET:
            bucket = self._buckets[item.slot]
            bucket.discard(item)
            if not bucket:
                del self._buckets[item.slot]
            item.slot = UNSET

    def due(self, now: float, limit: int) -> list[T]:
        """Take out and return at most ``limit`` items whose deadlines are over, the earliest buckets first.

        If it returned ``limit`` items there may be more: ask again before long.
        """
        last = math.floor(now / self.tick)
        items: list[T] = []
        for slot in sorted(slot for slot in self._buckets if slot <= last):
            bucket = self._buckets[slot]
            while bucket and len(items) < limit:
                item = bucket.pop()
                item.slot = UNSET
                items.append(item)
            if not bucket:
                del self._buckets[slot]
        return items


class KeepAlive(NamedTuple):
    """The rule of pings.

    Whatever a client sends answers all pings so far. ``unanswered`` of a client is 0 when something came from it, and
    otherwise what :meth:`next` said.
    """

    interval: float  #: seconds between pings; 0 for no pings
    limit: int  #: unanswered pings after which a client is given up
    frame: bytes  #: what is sent

    def first(self, chance: float) -> float:
        """Return after how many seconds a new client gets its first ping; ``chance`` is a random number from 0 to 1.

        Clients that come together, after a restart, must not be pinged together ever after.
        """
        return self.interval * (0.5 + chance / 2)

    def next(self, unanswered: int, *, paused: bool) -> int | None:
        """Return how many pings are unanswered with the one to be sent now, at the end of an interval; None to give up.

        From a client whose socket is not read (``paused``) no answer could come.
        """
        if paused:
            return 0
        return unanswered + 1 if unanswered < self.limit else None
