"""Everything that can be commanded. The same calls stand in a handler (``app``) and outside (``Cluster``).

What holds for all of them:

* They are plain calls that return nothing. What is wrong with their arguments is raised at once.
* Wherever a client is wanted, a :class:`~.client.Client` or its id will do; an id that is not one is a ClientIdError.
* A client that is gone, a uid without clients and an empty group are no errors: there is nobody to reach. Gateways count
  what they discard for that reason.
* Commands of one handler reach one gateway in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import index
from typing import TYPE_CHECKING, Any, Final

from ..common import messages as op
from ..common.ids import gateway_of
from .checks import by_gateway, name, names, payload, session_map

if TYPE_CHECKING:
    from ..common.messages import Message
    from .client import AnyClient, Client
    from .handshake import Token

Data = str | bytes
DAY: Final = 86_400.0  #: seconds


def id_of(client: AnyClient) -> str:
    """Return the id of a client, given by itself or by its id.

    Raises:
        TypeError: if it is neither.
    """
    client_id = client if isinstance(client, str) else getattr(client, "id", None)
    if not isinstance(client_id, str):
        raise TypeError(f"a client is a Client or its id, not {type(client).__name__}")
    return client_id


def ids_of(clients: AnyClient | Iterable[AnyClient]) -> list[str]:
    """Return the ids of one client or many.

    Raises:
        ClientIdError: if one is no client id.
    """
    if isinstance(clients, str) or not isinstance(clients, Iterable):
        clients = [clients]
    ids = [id_of(client) for client in clients]
    for client_id in ids:
        gateway_of(client_id)
    return ids


class Commands:
    """What can be commanded."""

    def _record(self, gateway: str | None, message: Message) -> None:
        """Take a command for the gateway with this key, or with None for all of them."""
        raise NotImplementedError

    def _record_many(self, commands: list[tuple[str | None, Message]]) -> None:
        """Take commands for several gateways, none of which waits for another."""
        for gateway, message in commands:
            self._record(gateway, message)

    def _changes(self, client_id: str, change: Callable[[Client], None]) -> bool:
        """If this is the client whose event is handled, let the change take effect for its handler, and return True."""
        return False

    # Sending

    def send_to_all(
        self, data: Data, only: Iterable[AnyClient] | None = None, exclude: AnyClient | Iterable[AnyClient] = ()
    ) -> None:
        """Send a message to all clients of the cluster.

        Args:
            data: str goes out as text, bytes as binary.
            only: send to these clients alone.
            exclude: clients that do not get it.
        """
        if only is None:
            self._record(None, [op.SEND_ALL, payload(data), ids_of(exclude)])
        else:
            out = set(ids_of(exclude))
            self.send_to_client([client for client in ids_of(only) if client not in out], data)

    def send_to_client(self, client: AnyClient | Iterable[AnyClient], data: Data) -> None:
        """Send a message to a client, or to several (each once)."""
        data = payload(data)
        if isinstance(client, str):
            self._record(gateway_of(client), [op.SEND, client, data])
            return
        receivers = by_gateway(ids_of(client)).items()
        self._record_many([(gateway, [op.SEND, ids[0] if len(ids) == 1 else ids, data]) for gateway, ids in receivers])

    def send_to_uid(self, uid: str | Iterable[str], data: Data) -> None:
        """Send a message to all clients of a uid, or of several."""
        self._record(None, [op.SEND_UID, names("uid", uid), payload(data)])

    def send_to_group(
        self, group: str | Iterable[str], data: Data, exclude: AnyClient | Iterable[AnyClient] = ()
    ) -> None:
        """Send a message to all clients of a group, or of several groups. Who is in two of them gets it once."""
        self._record(None, [op.SEND_GROUP, names("group", group), payload(data), ids_of(exclude)])

    # Binding and grouping

    def bind_uid(self, client: AnyClient, uid: str, device: str = "") -> None:
        """Give a client a uid, in place of one that it had. A uid may have many clients, on any gateways.

        Args:
            client: the client.
            uid: the uid.
            device: what kind of device it is, if ``[gateway] devices_per_uid`` counts kinds apart.
        """
        client_id = id_of(client)
        uid = name("uid", uid)
        self._record(
            gateway_of(client_id),
            [
                op.BIND,
                client_id,
                uid,
                device and name("device", device),
                self._changes(client_id, lambda client: client.rebind(uid)),
            ],
        )

    def unbind_uid(self, client: AnyClient) -> None:
        """Take a client's uid away, if it has one."""
        client_id = id_of(client)
        self._record(
            gateway_of(client_id), [op.UNBIND, client_id, self._changes(client_id, lambda client: client.rebind(None))]
        )

    def join_group(self, client: AnyClient, group: str) -> None:
        """Put a client into a group; twice is once. A group exists as long as somebody is in it."""
        client_id = id_of(client)
        self._record(gateway_of(client_id), [op.JOIN, client_id, name("group", group)])

    def leave_group(self, client: AnyClient, group: str) -> None:
        """Take a client out of a group, if it is in it. A client that is gone has left all of them by itself."""
        client_id = id_of(client)
        self._record(gateway_of(client_id), [op.LEAVE, client_id, name("group", group)])

    def ungroup(self, group: str) -> None:
        """Dissolve a group: nobody is in it any more."""
        self._record(None, [op.UNGROUP, name("group", group)])

    # Sessions

    def set_session(self, client: AnyClient, session: Mapping[str, Any]) -> None:
        """Put a session in the place of the one that the client has.

        Raises:
            TypeError, ValueError: if it is not a dict with text keys, of what msgpack can say.
        """
        client_id = id_of(client)
        plain = session_map(session)
        own = self._changes(client_id, lambda client: client.replace_session(plain))
        self._record(gateway_of(client_id), [op.SET_SESSION, client_id, plain, own])

    def update_session(self, client: AnyClient, session: Mapping[str, Any]) -> None:
        """Put these keys into the client's session; the others stay.

        Raises:
            TypeError, ValueError: as for :meth:`set_session`.
        """
        client_id = id_of(client)
        plain = session_map(session)
        own = self._changes(client_id, lambda client: client.update_session(plain))
        self._record(gateway_of(client_id), [op.UPDATE_SESSION, client_id, plain, [], own])

    # Tokens

    def renew_token(self, client: AnyClient, token: Token) -> None:
        """Let a client stay by another token than before: until that ends, or is revoked.

        What the token says has to be verified before; :meth:`~.jwt.JwtAuth.renew` does that.
        """
        client_id = id_of(client)
        self._record(gateway_of(client_id), [op.TOKEN, client_id, token.fields()])

    def revoke(self, *, uid: str | None = None, token_id: str | None = None, lifetime: float = DAY) -> None:
        """Let tokens be good for nothing any more: those of a uid that were issued up to now, or the one with this id.

        Who came by one is closed, and nobody comes by one. That is remembered by all gateways and workers.

        Args:
            uid: whose tokens.
            token_id: of one token.
            lifetime: seconds after which the tokens concerned have ended by themselves.

        Raises:
            TypeError, ValueError: if not exactly one of uid and token_id is given, or it cannot be one.
        """
        if (uid is None) == (token_id is None):
            raise ValueError("revoke: expected a uid or a token_id")
        if not lifetime > 0:
            raise ValueError(f"lifetime {lifetime!r}, expected more than 0 seconds")
        what, value = ("id", name("token id", token_id)) if uid is None else ("uid", name("uid", uid))
        self._record(None, [op.REVOKE, what, value, None, float(lifetime)])

    # Closing

    def close_client(self, client: AnyClient, last: Data | None = None, code: int = 1000, reason: str = "") -> None:
        """Close a client properly, after a last message if there is one; it gets what was sent to it before.

        Args:
            client: the client.
            last: a last message.
            code: the close code that it is told: 1000, or 3000 to 4999 of the application's own (RFC 6455, section 7.4).
            reason: text for it, cut at 123 bytes.

        Raises:
            TypeError: if the code is no whole number, or the reason no str.
            ValueError: if the code may not be sent.
        """
        if not isinstance(reason, str):
            raise TypeError(f"a reason is a str, not {type(reason).__name__}")
        code = index(code)
        if code not in (1000, 1001, 1002, 1003, *range(1007, 1015)) and not 3000 <= code <= 4999:
            raise ValueError(f"close code {code}, expected 1000 or one from 3000 to 4999")
        client_id = id_of(client)
        payload(reason)
        message = [op.CLOSE_CLIENT, client_id, None if last is None else payload(last), code, reason]
        self._record(gateway_of(client_id), message)

    def destroy_client(self, client: AnyClient) -> None:
        """Cut a client off at once; what was not sent to it yet is lost."""
        client_id = id_of(client)
        self._record(gateway_of(client_id), [op.DESTROY_CLIENT, client_id])
