"""Who is alive: leases that members renew. Pure; time is passed in as seconds.

A lease belongs to a key, that is to one run of a process. So a process and its successor of the same name are both there
while they overlap, and neither can end the other's lease.

Changes are gathered until :meth:`Leases.drain` takes them, under the next number. Together with the *epoch*, which is new in each
run of a register, a number says which state of which register a member has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ..common.errors import LinkError
from .view import Changes, Member

ANNOUNCE_EVERY: Final = 1.0  #: seconds between two heartbeats of a member
MAX_MEMBERS: Final = 5000
MAX_STATS: Final = 16 * 1024  #: bytes of a member's stats, packed


def time_to_live(dead_after: float) -> float:
    """Return the seconds that a lease lasts: longer than a link may be silent, and than two lost heartbeats."""
    return ANNOUNCE_EVERY + max(dead_after, 2 * ANNOUNCE_EVERY)


@dataclass(slots=True)
class _Lease:
    member: Member
    stats: dict[str, Any]
    renewed: float


class Leases:
    """The leases of one run of a register.

    Args:
        epoch: names this run.
        ttl: seconds that a lease lasts.
        now: seconds.
    """

    def __init__(self, epoch: str, ttl: float, now: float) -> None:
        self.epoch = epoch
        self.number = 0  # of the last changes that were drained
        self._ttl = ttl
        self._looked = now  # when it was last looked for leases that ran out
        self._leases: dict[str, _Lease] = {}
        self._joined: dict[str, Member] = {}  # since the last drain, as is
        self._left: dict[str, Member] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def heartbeat(self, member: Member, stats: dict[str, Any], now: float) -> bool:
        """Begin or renew a lease; return whether the member is new.

        Raises:
            LinkError: if the member says something else of itself than before, or there are too many.
        """
        lease = self._leases.get(member.key)
        if lease is not None:
            if member != lease.member:
                raise LinkError("it says something else of itself than before: a new key is due for that")
            lease.stats, lease.renewed = stats, now
            return False
        if len(self._leases) >= MAX_MEMBERS:
            raise LinkError(f"there are {MAX_MEMBERS} members already")
        self._leases[member.key] = _Lease(member, stats, now)
        if self._left.get(member.key) == member:
            del self._left[member.key]  # nobody needs to know that it was away
        else:
            self._joined[member.key] = member
        return True

    def leave(self, key: str) -> Member | None:
        """End a lease; return whose it was, or None if there is none."""
        lease = self._leases.pop(key, None)
        if lease is None:
            return None
        if self._joined.pop(key, None) is None:
            self._left[key] = lease.member
        return lease.member

    def expire(self, now: float) -> list[Member]:
        """End the leases that were not renewed in time, and return whose they were. To be called several times in each ``ttl``."""
        late = now - self._looked
        self._looked = now
        if late > self._ttl / 2:  # this process did not listen itself: stopped, or starved
            for lease in self._leases.values():
                lease.renewed = min(lease.renewed + late, now)
        due = [key for key, lease in self._leases.items() if now - lease.renewed > self._ttl]
        return [member for key in due if (member := self.leave(key)) is not None]

    def drain(self) -> Changes:
        """Return what changed since the last call. The caller must tell it, if anything, to everybody who was told the rest."""
        changes = Changes(list(self._joined.values()), list(self._left.values()))
        if changes.joined or changes.left:
            self.number += 1
            self._joined, self._left = {}, {}
        return changes

    def members(self) -> list[Member]:
        """Return everybody who has a lease."""
        return [lease.member for lease in self._leases.values()]

    def report(self, now: float) -> list[dict[str, Any]]:
        """Return everybody with stats, and with their ``age``: the seconds since they came."""
        return [
            {**lease.member._asdict(), "stats": lease.stats, "age": now - lease.renewed}
            for lease in self._leases.values()
        ]
