"""Which tokens are good for nothing any more, although they have not ended yet. Pure; times are seconds since 1970."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_REVOKED: Final = 100_000  #: that are remembered; past that, the one that was told longest ago is forgotten
WHAT: Final = ("uid", "id")  #: what can be revoked: all tokens of a uid, or one token


class Revocations:
    """What was revoked, until the tokens concerned have ended by themselves.

    The same one may be told again and again, in any order, by whoever knows of it.
    """

    def __init__(self) -> None:
        self._revoked: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()
        self.forgotten = 0  #: before their time

    def __len__(self) -> int:
        return len(self._revoked)

    def add(self, what: str, value: str, since: float, until: float, now: float) -> bool:
        """Take note that a uid or a token is revoked; return whether that is news.

        Args:
            what: one of :data:`WHAT`.
            value: the uid, or the id of the token.
            since: tokens of the uid that were issued later are good.
            until: by then all tokens concerned have ended.
            now: the time.
        """
        if until <= now:
            return False
        old = self._revoked.get((what, value), (0.0, 0.0))
        new = max(old[0], since), max(old[1], until)
        if new == old:
            return False
        self._revoked[what, value] = new
        if len(self._revoked) > MAX_REVOKED:
            _, (_, ends) = self._revoked.popitem(last=False)
            self.forgotten += ends > now
        return True

    def concern(self, uid: str | None, token_id: str | None, issued: float) -> bool:
        """Return whether a token was revoked. One that was issued in the very second in which its uid was revoked is among those."""
        if token_id is not None and ("id", token_id) in self._revoked:
            return True
        return uid is not None and issued <= self._revoked.get(("uid", uid), (-1.0, 0.0))[0]

    def all(self, now: float) -> Iterator[list[Any]]:
        """Yield what, value, since and until of each that still counts, and forget the others."""
        for (what, value), (since, until) in list(self._revoked.items()):
            if until > now:
                yield [what, value, since, until]
            else:
                del self._revoked[what, value]
