"""What a gateway knows of one client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from .keepalive import UNSET

if TYPE_CHECKING:
    from ..common.messages import Message
    from ..common.reasons import Reason
    from .dispatch import Port

EMPTY_SESSION: Final = b"\x80"  #: an empty map, packed

# What a client's worker knows of it
KNOWN: Final = 0  #: all
STALE: Final = 1  #: uid or session changed since the worker was told
STRANGER: Final = 2  #: nothing: no event of the client was sent there


class Connection(Protocol):
    """What the rules ask of a client's socket. Once it is closed, all of this does nothing."""

    @property
    def plain(self) -> bool:
        """Whether a prepared frame may be written as it is."""

    @property
    def unsent(self) -> int:
        """How many bytes wait for the client to read."""

    def write(self, frame: bytes, /) -> None:
        """Write a prepared frame."""

    def send(self, data: str | bytes, /) -> None:
        """Send one message."""

    def close(self, code: int, reason: str, /) -> None:
        """Close with a closing handshake, on somebody's command."""

    def shut(self, reason: Reason, /) -> None:
        """Close with a closing handshake, for a reason of the gateway's own."""

    def abort(self) -> None:
        """Close at once."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Go on reading."""


class NoConnection:
    """The socket of a client whose gateway is lost: nothing can be done with it."""

    plain = False
    unsent = 0

    def write(self, frame: bytes, /) -> None:
        """Do nothing, as all of these."""

    def send(self, data: str | bytes, /) -> None:  # noqa: D102
        pass

    def close(self, code: int, reason: str, /) -> None:  # noqa: D102
        pass

    def shut(self, reason: Reason, /) -> None:  # noqa: D102
        pass

    def abort(self) -> None:  # noqa: D102
        pass

    def pause(self) -> None:  # noqa: D102
        pass

    def resume(self) -> None:  # noqa: D102
        pass


class Client:
    """One client: its socket, its place in the indexes, its session, and its events that no worker has acknowledged yet.

    ``events`` are in order: the first ``sent`` of them are at the worker, those up to ``assigned`` wait for its credit, the
    rest wait until the client may move to another worker, or for any worker at all.
    """

    __slots__ = (
        "applied",
        "assigned",
        "connection",
        "events",
        "generation",
        "groups",
        "id",
        "introduction",
        "lost_with",
        "nameless_since",
        "number",
        "open",
        "paused",
        "port",
        "redeliver",
        "sent",
        "session",
        "since",
        "slot",
        "token",
        "told",
        "uid",
    )

    def __init__(self, id: str, connection: Connection, introduction: list[Any]) -> None:  # noqa: A002
        self.id = id
        self.connection = connection
        self.introduction = introduction  # [path, query, remote, listener, subprotocol]
        self.uid: str | None = None
        self.groups: set[str] = set()
        self.session = EMPTY_SESSION
        self.token: list[Any] | None = None  # [expires, id or None, issued]
        self.nameless_since = 0.0  # when it came, or its uid was taken away
        self.since = 0.0  # when it came
        self.slot = UNSET  # of the wheel that looks after tokens and uids
        self.open = True
        self.paused = False
        self.number = 0  # of the last event
        self.events: list[Message] = []
        self.assigned = 0
        self.sent = 0
        self.redeliver = 0  # so many events from `sent` on were with a worker that is gone
        self.lost_with: list[str] | None = None  # keys of workers that were lost with its first event
        self.port: Port | None = None  # the worker it is placed at
        self.generation = -1  # of the set of workers, when it was placed
        self.told = STRANGER
        self.applied = 0  # changes of uid and session that its worker made and this gateway applied

    @property
    def path(self) -> str:
        """The path of its URL, decoded, without the query: for routers."""
        return self.introduction[0]  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"client {self.id}"
