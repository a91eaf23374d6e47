"""How many clients may come, how fast, how fast each may talk, and how long it may be silent.

Pure: the time is an argument, in seconds.
"""

from __future__ import annotations

import sys
from ipaddress import IPv6Address
from typing import Final, NamedTuple

SAVED: Final = 5.0  #: seconds of its rate that a client, or an address, may use at once after a rest
LOOKS: Final = 4  #: how often a client is looked at until it counts as idle
_FRAME: Final = 6  # bytes of the smallest frame of a client
_GRAIN: Final = 4096
_STALE: Final = 1000  # networks that are remembered although nobody is there, before they are looked through


def network(address: str) -> str:
    """Return what is limited as one: an IPv4 address, or the /64 of an IPv6 one, as providers give it to a customer.

    An IPv4 address that is mapped into IPv6 is itself. What is no IP address, such as nothing, is returned as it is.
    """
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


def spend(until: float, seconds: float, now: float) -> float:
    """Take so many seconds' worth of a rate out of a bucket that holds :data:`SAVED` seconds of it.

    A bucket is one number: the time up to which its rate is used up. It starts at minus infinity, full. Nothing more should
    be taken out before that time; what was taken in one piece may be more than there was.
    """
    return max(until, now - SAVED) + seconds


class Kept(NamedTuple):
    """What is kept of one client at most."""

    groups: int = 10_000  #: that it is in
    session: int = 16 * 1024 * 1024  #: bytes, packed; as many as a worker may set
    name: int = 512  #: characters of its uid, and of a group's name


KEPT: Final = Kept()


class Rates(NamedTuple):
    """How fast each client may talk."""

    messages: float  #: a second; 0 for no limit
    bytes: float  #: a second; 0 for no limit
    patience: float  #: seconds that it may go on to be faster

    @property
    def grain(self) -> int:
        """Bytes that may come from a client until what came is counted: at most a quarter of what it may save, of the smallest frames."""
        rates = (_FRAME * self.messages, self.bytes)
        return (
            int(max(_FRAME, min([_GRAIN, *(rate * SAVED / 4 for rate in rates if rate)])))
            if any(rates)
            else sys.maxsize
        )


class Pace:
    """How fast one client talks."""

    __slots__ = ("_bytes_until", "_fast_since", "_messages_until", "_rates")

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._messages_until = self._bytes_until = float("-inf")
        self._fast_since: float | None = None

    def spend(self, messages: int, size: int, now: float) -> float | None:
        """Count what came; return for how many seconds no more is to be read, or None to give the client up.

        It is given up when it was too fast for longer than ``patience``, that is, when each time something was read, it was again too
        much.
        """
        rates = self._rates
        wait = 0.0
        if rates.messages:
            self._messages_until = spend(self._messages_until, messages / rates.messages, now)
            wait = max(wait, self._messages_until - now)
        if rates.bytes:
            self._bytes_until = spend(self._bytes_until, size / rates.bytes, now)
            wait = max(wait, self._bytes_until - now)
        if not wait:
            self._fast_since = None
        elif self._fast_since is None:
            self._fast_since = now
        elif now - self._fast_since > rates.patience:
            return None
        return wait


class Idle(NamedTuple):
    """The rule of clients that send no messages.

    ``looks`` of a client is 0 when a message came since the last look, and otherwise what :meth:`next` said.
    """

    seconds: float  #: after which one is idle; 0 for never

    @property
    def interval(self) -> float:
        """Seconds between two looks: a client is found idle late by at most this, and never early."""
        return self.seconds / LOOKS

    def next(self, looks: int, *, heard: bool) -> int | None:
        """Return how often nothing was heard at a look, with the one that is made now; None if the client is idle."""
        if heard:
            return 0
        return looks + 1 if looks + 1 < LOOKS else None


class _Network:
    __slots__ = ("connections", "until")

    def __init__(self) -> None:
        self.connections = 0
        self.until = float("-inf")  # bucket of new connections


class Crowd:
    """Who is connected, in whatever phase.

    Args:
        room: connections in all.
        per_address: of those, from one address; 0 for no limit.
        rate: new connections a second from one address; 0 for no limit.
    """

    def __init__(self, room: int, per_address: int = 0, rate: float = 0.0) -> None:
        self.room = room
        self.connections = 0
        self._per_address = per_address
        self._rate = rate
        self._networks: dict[str, _Network] = {}

    def __len__(self) -> int:
        """Return how many networks are remembered."""
        return len(self._networks)

    def come(self, address: str, now: float) -> str:
        """Take in one more connection; return "" or, if there is no place for it, why: a name that is counted.

        One that is taken in has to :meth:`go`. An empty address is nobody's, and only limited by the room.
        """
        if self.connections >= self.room:
            return "no_room"
        if address and (self._per_address or self._rate):
            found = self._network(network(address), now)
            if self._per_address and found.connections >= self._per_address:
                return "address_full"
            if self._rate:
                if found.until > now:
                    return "address_rate"
                found.until = spend(found.until, 1 / self._rate, now)
            found.connections += 1
        self.connections += 1
        return ""

    def go(self, address: str) -> None:
        """A connection that was taken in is gone."""
        self.connections -= 1
        found = self._networks.get(network(address)) if address else None
        if found is not None:
            found.connections -= 1
            if not found.connections and not self._rate:
                del self._networks[network(address)]

    def _network(self, name: str, now: float) -> _Network:
        found = self._networks.get(name)
        if found is None:
            if len(self._networks) > 2 * self.connections + _STALE:
                # those whose buckets are full again are as good as new ones
                self._networks = {
                    name: one for name, one in self._networks.items() if one.connections or one.until > now - SAVED
                }
            found = self._networks[name] = _Network()
        return found
