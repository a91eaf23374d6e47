"""Whether clients may stay: the end of their tokens, what is revoked, and the time that they have to say who they are.

Pure: the clocks are arguments.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

from ..common import reasons
from ..common.errors import LinkError
from ..common.revocations import WHAT, Revocations
from .keepalive import Wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..common.reasons import Reason
    from .client import Client

TICK: Final = 0.1  #: seconds between looks at whose time is over
AT_ONCE: Final = 256  #: clients that are looked at in one turn


class Credentials:
    """What the clients of one gateway may stay by.

    Args:
        auth_timeout: seconds that a client may be without a uid; 0 for no limit.
        clock: returns seconds.
        wall: returns seconds since 1970, by which tokens end.
    """

    def __init__(self, auth_timeout: float, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._auth_timeout = auth_timeout
        self._clock = clock
        self._wall = wall
        self._wheel: Wheel[Client] = Wheel(TICK)
        self._revocations = Revocations()

    def nameless(self, client: Client) -> None:
        """A client has no uid from now on."""
        client.nameless_since = self._clock()
        self.watch(client)

    def watch(self, client: Client) -> None:
        """A client is there, or has another uid or token: see when to look at it."""
        deadline = self._deadline(client)
        if deadline is not None:
            self._wheel.set(client, deadline)
        else:
            self._wheel.cancel(client)

    def forget(self, client: Client) -> None:
        """A client is gone."""
        self._wheel.cancel(client)

    def due(self) -> Iterator[tuple[Client, Reason]]:
        """Yield whose time is over, and why; at most :data:`AT_ONCE`."""
        for client in self._wheel.due(self._clock(), AT_ONCE):
            if client.token is not None and client.token[0] <= self._wall():
                yield client, reasons.TOKEN_EXPIRED
            elif self._must_log_in(client) and client.nameless_since + self._auth_timeout <= self._clock():
                yield client, reasons.AUTH_TIMEOUT
            else:
                self.watch(client)

    def _must_log_in(self, client: Client) -> bool:
        return self._auth_timeout > 0 and client.uid is None

    def _deadline(self, client: Client) -> float | None:
        deadlines = []
        if client.token is not None and client.token[0] < inf:
            deadlines.append(self._clock() + client.token[0] - self._wall())
        if self._must_log_in(client):
            deadlines.append(client.nameless_since + self._auth_timeout)
        return min(deadlines, default=None)

    # Revocation

    def revoke(self, what: Any, value: Any, since: Any, until: Any) -> list[Any] | None:
        """Take note of what is revoked. Return what to tell others, if it is news.

        Raises:
            LinkError: if it is not made as :mod:`..common.messages` says.
        """
        if what not in WHAT or type(value) is not str or type(until) not in (int, float):
            raise LinkError(f"revokes {what!r}")
        now = self._wall()
        if since is None:
            since, until = now, now + until
        elif type(since) not in (int, float):
            raise LinkError(f"revokes what was issued before {since!r}")
        return [what, value, since, until] if self._revocations.add(what, value, since, until, now) else None

    @property
    def forgotten(self) -> int:
        """How many revocations were forgotten before their time."""
        return self._revocations.forgotten

    def revoked(self) -> Iterator[list[Any]]:
        """Yield all that is revoked, as :meth:`revoke` took it."""
        return self._revocations.all(self._wall())

    def fault(self, uid: str | None, token: list[Any] | None) -> Reason | None:
        """Return why nobody may come or stay by this token, if so. One without a token may."""
        if token is None:
            return None
        expires, token_id, issued = token
        if expires <= self._wall():
            return reasons.TOKEN_EXPIRED
        return reasons.TOKEN_REVOKED if self._revocations.concern(uid, token_id, issued) else None
