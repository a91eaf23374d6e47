"""What a gateway remembers of what did not reach a client, and why: for ``gatecrew why``.

Pure: the time is passed in. Each reason has a ring of its own, so that a flood of one does not push out the others.
"""

from __future__ import annotations

from collections import deque
from heapq import nlargest
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EACH: Final = 200  #: entries of each reason that are remembered, the latest ones
REASONS: Final = 100  #: reasons that are told apart; there are fewer
LONGEST: Final = 512  #: characters of each of the texts
GROUPS: Final = 10  #: groups of one client that are remembered with it


class Discard(NamedTuple):
    """One thing that did not come about."""

    time: float  #: seconds since 1970
    process: str  #: that gave it up
    reason: str  #: as it is counted: ``closed.slow``
    client: str  #: its id, or empty
    uid: str  #: or empty
    groups: list[str]  #: that the client was in, or that it was for
    note: str  #: what there is to say besides; never what a message says


class Discards:
    """The latest discards of each reason."""

    def __init__(self) -> None:
        self._rings: dict[str, deque[Discard]] = {}

    def add(
        self,
        time: float,
        process: str,
        reason: str,
        *,
        client: str = "",
        uid: str | None = None,
        groups: Iterable[str] = (),
        note: str = "",
    ) -> None:
        """Remember one, in place of the oldest of its reason if there are too many."""
        ring = self._rings.get(reason)
        if ring is None:
            if len(self._rings) >= REASONS:
                return
            ring = self._rings[reason] = deque(maxlen=EACH)
        some = [group[:LONGEST] for group in islice(groups, GROUPS)]
        process, client, uid, note = (text[:LONGEST] for text in (process, client, uid or "", note))
        ring.append(Discard(time, process, reason, client, uid, some, note))

    def __iter__(self) -> Iterator[Discard]:
        """Go through all of them."""
        for ring in self._rings.values():
            yield from ring

    def find(self, since: float, client: str = "", uid: str = "", group: str = "", limit: int = 1000) -> list[Discard]:
        """Return those since that time, in order; only those of this client, uid and group, if they are given; the last ones."""
        found = [
            one
            for one in self
            if one.time >= since
            and (not client or one.client == client)
            and (not uid or one.uid == uid)
            and (not group or group in one.groups)
        ]
        return sorted(nlargest(limit, found))


#: What each counter with such a name says of one client.
_SAID: Final = {
    "closed.slow": "more was waiting for it than [gateway] client_buffer allows",
    "closed.pong_missed": "it answered no pings",
    "closed.overloaded": "too many events wait for the workers",
    "closed.command": "a handler or a caller wanted it",
    "closed.destroy": "a handler or a caller cut it off",
    "closed.by_itself": "the client left",
    "closed.gateway_lost": "its gateway was lost",
    "discarded.client_gone": "it was not there any more",
    "discarded.asker_full": "whoever asked does not read the answers",
    "discarded.given_up": "the workers that had its event were lost, one after the other",
    "discarded.session_too_big": "its session is over [gateway] max_session",
    "discarded.too_many_groups": "it is in [gateway] max_groups groups already",
    "discarded.name_too_long": "a uid or group is longer than [gateway] max_name",
    "discarded.cannot_encode": "it cannot be said in the framing of its listener",
    "discarded.revocations": "more tokens are revoked than are remembered",
    "discarded.gateway_gone": "the gateway that it was for is gone",
    "discarded.gateway_full": "too much waits for the gateway that it was for",
    "handler.errors": "its handler failed, and what that had commanded was dropped",
}


def sentence(discard: Discard) -> str:
    """Say in words what was discarded and why: ``gateway-2 closed client x (uid 42): slow (...)``."""
    kind, _, reason = discard.reason.partition(".")
    verb = {"closed": "closed", "handler": "gave up an event of"}.get(kind, "discarded something for")
    if discard.reason == "closed.by_itself":
        verb = "lost"
    whom = f"client {discard.client}" if discard.client else "a client" if kind == "closed" else "clients"
    if discard.uid:
        whom += f" (uid {discard.uid})"
    details = filter(None, (_SAID.get(discard.reason), discard.note))
    return f"{discard.process} {verb} {whom}: {reason}" + "".join(f" ({detail})" for detail in details)


def read(record: Any) -> Discard:
    """Return what another process says.

    Raises:
        ValueError: if it is something else.
    """
    match record:
        case [
            int() | float() as time,
            str(process),
            str(reason),
            str(client),
            str(uid),
            list(groups),
            str(note),
        ] if all(type(group) is str for group in groups):
            return Discard(float(time), process, reason, client, uid, groups, note)
    raise ValueError("something else where a discard is due")
