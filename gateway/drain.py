"""How a gateway that stops lets its clients go: how many at a time, and when each is to come back. Pure; times are in seconds.

The other gateways can take some clients a second. So each client gets a *slot*, one after the other at that pace, and is told
of it shortly before: whoever waits for the word still works. If there are too many for the time that the gateway has, they are
told faster than the others can take them, and it is the slots that keep the pace; if there are too many even for that, nobody
waits longer than :data:`LONGEST`.
"""

from __future__ import annotations

from math import ceil
from typing import Final

EVERY: Final = 0.25  #: from one batch of clients to the next
LONGEST: Final = 30.0  #: the last slot, counted from the moment in which a client is told


def batch(clients: int, others: int, rate: float, left: float, booked: float) -> list[float]:
    """Return the slots of the clients that are to be told now; the rest has its turn after :data:`EVERY`.

    With no other gateway all are told now, and come back to a successor.

    Args:
        clients: how many are left to be told.
        others: how many other gateways will take clients.
        rate: clients a second that one gateway can take.
        left: time in which all have to be told.
        booked: time from now for which slots were given before.

    Returns:
        Times from now, rising, at most :data:`LONGEST`.
    """
    if not clients:
        return []
    booked = min(max(booked, 0.0), LONGEST)
    needed = clients / (rate * max(others, 1))
    turns = min(max(ceil(min(left, needed) / EVERY), 1), clients) if others else 1
    last = (turns - 1) * EVERY + LONGEST
    gap = min(needed, last - booked) / clients
    return [min(booked + number * gap, LONGEST) for number in range(1, ceil(clients / turns) + 1)]
