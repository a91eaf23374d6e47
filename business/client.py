"""Handles: a client, a group, a uid, each with what can be done about it. Thin sugar over commands and queries."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from ..common import messages as op
from ..common import wire
from ..common.ids import gateway_of
from .checks import MAX_DATA, payload, session_map
from .commands import Commands, Data
from .queries import Queries

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable, Mapping

    from ..common.messages import Message
    from .handshake import Token
    from .hub import Gateway

EMPTY: bytes = wire.pack({})
_NOBODY: list[str] = ["", "", "", "", ""]


class Api(Commands, Queries):
    """All that can be commanded and asked."""

    def client(self, client_id: str) -> ClientHandle:
        """Return a handle for the client with this id.

        Raises:
            ClientIdError: if this is not a client id.
        """
        return ClientHandle(self, client_id)

    def group(self, name: str) -> Group:
        """Return a handle for a group."""
        return Group(self, name)

    def uid(self, uid: str) -> Uid:
        """Return a handle for a uid."""
        return Uid(self, uid)


class ClientHandle:
    """A client, wherever it is, known by its id alone."""

    __slots__ = ("_api", "gateway", "id")

    def __init__(self, api: Api, client_id: str) -> None:
        self._api = api
        self.id = client_id
        self.gateway = gateway_of(client_id)  #: the key of its gateway

    def __repr__(self) -> str:
        return f"<client {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClientHandle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def send(self, data: Data) -> None:
        """Send it a message: str as text, bytes as binary."""
        self._api._record(self.gateway, [op.SEND, self.id, payload(data)])  # noqa: SLF001  # the shortest way

    def close(self, last: Data | None = None, code: int = 1000, reason: str = "") -> None:
        """Close it, after a last message if there is one; see :meth:`Commands.close_client`."""
        self._api.close_client(self.id, last, code, reason)

    def destroy(self) -> None:
        """Cut it off at once."""
        self._api.destroy_client(self.id)

    def bind(self, uid: str, device: str = "") -> None:
        """Give it this uid; see :meth:`Commands.bind_uid`."""
        self._api.bind_uid(self.id, uid, device)

    def unbind(self) -> None:
        """Take its uid away."""
        self._api.unbind_uid(self.id)

    def renew(self, token: Token) -> None:
        """Let it stay by another token; see :meth:`Commands.renew_token`."""
        self._api.renew_token(self.id, token)

    def join(self, group: str) -> None:
        """Put it into a group."""
        self._api.join_group(self.id, group)

    def leave(self, group: str) -> None:
        """Take it out of a group."""
        self._api.leave_group(self.id, group)

    async def is_online(self) -> bool:
        """Return whether it is connected."""
        return await self._api.is_online(self.id)


class Request(NamedTuple):
    """How a client introduced itself, in its opening handshake."""

    path: str  #: decoded, without the query
    query: dict[str, str]  #: of a name that comes twice, the last value
    headers: list[tuple[str, str]]  #: as they came
    remote: str  #: ``192.0.2.7:5000`` or ``[2001:db8::1]:5000``
    listener: str  #: the URL of the listener that it came through
    subprotocol: str | None  #: that was agreed on; in a handshake, the one that the gateway would choose

    def header(self, name: str, default: str = "") -> str:
        """Return the first header of this name, in whatever case."""
        name = name.lower()
        return next((value for key, value in self.headers if key.lower() == name), default)

    def cookie(self, name: str, default: str = "") -> str:
        """Return the first cookie of this name."""
        for header in self._all("cookie"):
            for pair in header.split(";"):
                key, _, value = pair.partition("=")
                if key.strip() == name:
                    return value.strip().strip('"')
        return default

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, in its order."""
        offers = (name.strip() for header in self._all("sec-websocket-protocol") for name in header.split(","))
        return [name for name in offers if name]

    def _all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


def introduced(introduction: list[Any], headers: list[list[str]]) -> Request:
    """Return how a client introduced itself, from what travels."""
    path, query, remote, listener, subprotocol = introduction
    return Request(path, query, [(key, value) for key, value in headers], remote, listener, subprotocol)


class Client(ClientHandle):
    """The client whose event is handled.

    The same object comes with each event of a client, as long as its events come to this worker.
    """

    __slots__ = (
        "_introduction",
        "_made",
        "_packed",
        "_session",
        "_uid",
        "busy",
        "mailbox",
        "number",
        "redelivered",
        "source",
    )

    def __init__(self, api: Api, client_id: str, source: Gateway) -> None:
        super().__init__(api, client_id)
        self.source = source  # where its events come from
        self._introduction: list[Any] = _NOBODY
        self._uid: str | None = None
        self._packed = EMPTY  # the session as the gateway has it, or will when what was commanded is there
        self._session: dict[str, Any] | None = None  # the same, unpacked, and perhaps changed since
        self._made = 0  # changes of uid and session made here
        self.number = 0
        self.redelivered = False  #: whether the event may have been handled before, by a worker that is gone
        self.busy = False  # whether a handler of it is suspended
        self.mailbox: deque[Message] | None = None  # its next events, while busy

    @property
    def event_id(self) -> str:
        """The id of the event that is handled: the same when it is delivered again, and never of another."""
        return f"{self.id}:{self.number}"

    @property
    def uid(self) -> str | None:
        """The uid that it is bound to."""
        return self._uid

    @property
    def session(self) -> dict[str, Any]:
        """Its session. What a handler changes in it is saved when the handler ends."""
        session = self._session
        if session is None:
            session = self._session = wire.unpack(self._packed)
        return session

    @property
    def path(self) -> str:
        """The path of its URL, decoded, without the query."""
        return self._introduction[0]  # type: ignore[no-any-return]

    @property
    def query(self) -> dict[str, str]:
        """The query of its URL; of a name that comes twice, the last value."""
        return self._introduction[1]  # type: ignore[no-any-return]

    @property
    def remote(self) -> str:
        """Its address and port."""
        return self._introduction[2]  # type: ignore[no-any-return]

    @property
    def listener(self) -> str:
        """The URL of the listener that it came through."""
        return self._introduction[3]  # type: ignore[no-any-return]

    @property
    def subprotocol(self) -> str | None:
        """The WebSocket subprotocol that was agreed on."""
        return self._introduction[4]  # type: ignore[no-any-return]

    def request(self, headers: list[list[str]]) -> Request:
        """Return how it introduced itself."""
        return introduced(self._introduction, headers)

    def learn(self, state: list[Any]) -> None:
        """Take what its gateway says of it with an event (:mod:`..common.messages`)."""
        applied, uid, packed, introduction, self.redelivered = state
        if introduction is not None:
            self._introduction = introduction
        if applied == self._made:  # else the gateway does not know yet of changes that were made here
            self._uid = uid
            if packed != self._packed:
                self._packed = packed
                self._session = None

    # Changes that are commanded. Each counts, so that what the gateway says can be told from what it said before.

    def rebind(self, uid: str | None) -> None:
        """Take note of its uid from now on."""
        self._made += 1
        self._uid = uid

    def replace_session(self, session: Mapping[str, Any]) -> None:
        """Take note of its session from now on."""
        self._made += 1
        self._packed = wire.pack(session)
        self._session = None

    def update_session(self, changed: Mapping[str, Any]) -> None:
        """Take note of keys of its session from now on; what a handler changed in place stays.

        Raises:
            ValueError: if all together are too much.
        """
        packed = wire.pack({**wire.unpack(self._packed), **changed})
        if len(packed) > MAX_DATA:
            raise ValueError(f"a session of {len(packed)} bytes with that, expected at most {MAX_DATA}")
        self._made += 1
        self.session.update(changed)
        self._packed = packed

    def session_change(self, *, copy: bool = False) -> Message | None:
        """Return the command that saves what was changed in :attr:`session`, if anything was.

        Args:
            copy: go on with a copy, so that objects which the handler put there and keeps elsewhere are no part of it.

        Raises:
            TypeError, ValueError: if the session holds what it cannot hold.
        """
        session = self._session
        if session is None:
            return None
        with contextlib.suppress(TypeError, ValueError, OverflowError):  # told below, with the key
            if wire.pack(session) == self._packed:
                return None
        new = session_map(session)
        if copy:
            self._session = None
        old = wire.unpack(self._packed)
        changed = {
            key: value for key, value in new.items() if key not in old or wire.pack(old[key]) != wire.pack(value)
        }
        gone = [key for key in old if key not in new]
        if not changed and not gone:
            return None
        self._made += 1
        self._packed = wire.pack(new)
        return [op.UPDATE_SESSION, self.id, changed, gone, True]

    def saved(self) -> tuple[int, str | None, bytes]:
        """Return what :meth:`restore` needs."""
        return self._made, self._uid, self._packed

    def restore(self, saved: tuple[int, str | None, bytes]) -> None:
        """Forget all changes since: their commands will not be sent."""
        self._made, self._uid, self._packed = saved
        self._session = None


class Group:
    """A group."""

    __slots__ = ("_api", "name")

    def __init__(self, api: Api, name: str) -> None:
        self._api = api
        self.name = name

    def __repr__(self) -> str:
        return f"<group {self.name!r}>"

    def send(self, data: Data, exclude: AnyClient | Iterable[AnyClient] = ()) -> None:
        """Send a message to all its clients but those excluded."""
        self._api.send_to_group(self.name, data, exclude)

    def join(self, client: AnyClient) -> None:
        """Put a client into it."""
        self._api.join_group(client, self.name)

    def leave(self, client: AnyClient) -> None:
        """Take a client out of it."""
        self._api.leave_group(client, self.name)

    def ungroup(self) -> None:
        """Dissolve it."""
        self._api.ungroup(self.name)

    async def count(self) -> int:
        """Return how many clients are in it."""
        return await self._api.get_client_id_count_by_group(self.name)

    async def clients(self) -> list[str]:
        """Return the ids of the clients in it."""
        return await self._api.get_client_id_list_by_group(self.name)

    async def uid_count(self) -> int:
        """Return how many uids have a client in it."""
        return await self._api.get_uid_count_by_group(self.name)

    async def uids(self) -> list[str]:
        """Return the uids that have a client in it."""
        return await self._api.get_uid_list_by_group(self.name)

    async def sessions(self) -> dict[str, dict[str, Any]]:
        """Return the sessions of its clients, by client id."""
        return await self._api.get_client_sessions_by_group(self.name)


class Uid:
    """All clients of a uid."""

    __slots__ = ("_api", "uid")

    def __init__(self, api: Api, uid: str) -> None:
        self._api = api
        self.uid = uid

    def __repr__(self) -> str:
        return f"<uid {self.uid!r}>"

    def send(self, data: Data) -> None:
        """Send a message to all its clients."""
        self._api.send_to_uid(self.uid, data)

    async def is_online(self) -> bool:
        """Return whether any of its clients is connected."""
        return await self._api.is_uid_online(self.uid)

    async def clients(self) -> list[str]:
        """Return the ids of its clients."""
        return await self._api.get_client_id_by_uid(self.uid)


AnyClient = str | ClientHandle
