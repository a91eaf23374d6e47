"""What a member knows of the others: the union of what several registers say. Pure; time is passed in as seconds.

Rules:

* A register that can be heard vouches for the members in its snapshot and its changes. What one of them vouches for is there.
* A member leaves at once when a register says that it left and no other vouches for it.
* What nobody vouches for any more because a register was lost or started anew is held for a time: a register holds nothing
  on disk and is whole again only when everybody has announced itself once.
* While no register can be heard at all, everything stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..common import wire
from ..common.errors import LinkError

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_TEXT: Final = 512  # characters of a role, name, key or address
_MAX_META: Final = 4096  # bytes, packed


class Member(NamedTuple):
    """One running process. It says this once of itself: none of it changes while the process lives."""

    role: str  #: ``gateway`` or ``worker``
    name: str  #: the same after a restart
    key: str  #: of this run; two processes of one name differ in it
    address: str  #: where other processes connect to it; "" if they do not
    meta: dict[str, Any]  #: what else others should know

    @classmethod
    def read(cls, value: object) -> Member:
        """Return the member that came as a list over the wire.

        Raises:
            LinkError: if it is none.
        """
        match value:
            case [str(role), str(name), str(key), str(address), dict(meta)] if role and name and key:
                if max(map(len, (role, name, key, address))) <= _MAX_TEXT and len(wire.pack(meta)) <= _MAX_META:
                    return cls(role, name, key, address, meta)
        raise LinkError("a member without a proper role, name, key, address and meta")

    def __repr__(self) -> str:
        return f"{self.role} {self.name} ({self.key})"


class Changes(NamedTuple):
    """Who came and who went."""

    joined: list[Member]
    left: list[Member]


class View:
    """The union.

    Args:
        hold: seconds for which a member is kept that no register vouches for, but none says left.
    """

    def __init__(self, hold: float) -> None:
        self.members: dict[str, Member] = {}  # by key
        self._hold = hold
        self._vouched: dict[str, set[str]] = {}  # by register that can be heard: the keys it vouches for
        self._held: dict[str, float] = {}  # keys that nobody vouches for, and until when they are kept

    @property
    def heard(self) -> bool:
        """Whether a register can be heard."""
        return bool(self._vouched)

    def snapshot(self, register: str, members: Iterable[Member], now: float) -> Changes:
        """Take in all that a register knows. What it does not know is held, not gone: it may have just started."""
        self._vouched[register] = set()
        changes = Changes(self._vouch(register, members), [])
        self._hold_the_rest(now)
        return changes

    def change(self, register: str, joined: Iterable[Member], left: Iterable[str]) -> Changes:
        """Take in what changed at a register that gave a snapshot: members, and keys of members that left."""
        gone: list[Member] = []
        for key in left:
            self._vouched[register].discard(key)
            if key in self.members and not any(key in keys for keys in self._vouched.values()):
                gone.append(self._remove(key))
        return Changes(self._vouch(register, joined), gone)

    def lost(self, register: str, now: float) -> Changes:
        """Stop counting on a register that cannot be heard any more. Nobody leaves for that, or not yet."""
        self._vouched.pop(register, None)
        self._hold_the_rest(now)
        return Changes([], [])

    def expire(self, now: float) -> Changes:
        """Let go of what was held for long enough. To be called every second or so."""
        due = [key for key, until in self._held.items() if until <= now]
        return Changes([], [self._remove(key) for key in due])

    def _vouch(self, register: str, members: Iterable[Member]) -> list[Member]:
        new: list[Member] = []
        for member in members:
            self._vouched[register].add(member.key)
            self._held.pop(member.key, None)
            if member.key not in self.members:
                self.members[member.key] = member
                new.append(member)
        return new

    def _hold_the_rest(self, now: float) -> None:
        rest = self.members.keys() - set().union(*self._vouched.values()) if self._vouched else ()
        self._held = {key: self._held.get(key, now + self._hold) for key in rest}

    def _remove(self, key: str) -> Member:
        self._held.pop(key, None)
        return self.members.pop(key)
