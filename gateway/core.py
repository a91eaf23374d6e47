"""The rules of a gateway put together: clients open, say something and close; workers and callers command and ask.

Pure: sockets are behind :class:`~.client.Connection` and ``send`` of a :class:`~.dispatch.Port`. The shell calls, in one
turn of its loop, whatever happened, and what is to be sent leaves at the end of that turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from ..common import messages as op
from ..common import reasons, wire
from ..common.errors import LinkError
from ..common.ids import new_client_id
from ..common.messages import ACK, MESSAGE, QUERY
from .answers import answer
from .client import Client, Connection
from .index import Index

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Collection

    from ..common.messages import Message
    from .dispatch import Dispatch, Port

MAX_ANSWERS: Final = 1_000_000  #: ids and the like in the answers to one batch; queries past that get no answer


class Asker(Protocol):
    """Whoever sends commands and queries: a worker or a caller."""

    @property
    def full(self) -> bool:
        """Whether it is so far behind with reading that no more should be made for it."""

    def send(self, message: Message, /) -> None:
        """Send it a message."""


class Core:
    """One gateway.

    Args:
        key: of this gateway; the ids of its clients start with it.
        dispatch: takes the events.
        encode: makes the frame that may be written to any plain connection.
        counters: gets ``discarded.client_gone`` for each command to a client that is not here any more, and
            ``discarded.asker_full`` for each query that got no answer because its asker asks faster than it reads.
    """

    def __init__(
        self, key: str, dispatch: Dispatch, encode: Callable[[str | bytes], bytes], counters: Counter[str]
    ) -> None:
        self.key = key
        self.dispatch = dispatch
        self.index = Index()
        self.events = 0  #: from clients, ever
        self.counters = counters
        self._encode = encode
        self._closing: dict[str, Client] = {}  # closed clients with events that are not acknowledged
        dispatch.finished = lambda client: self._closing.pop(client.id)
        # opcode: how long such a message is, and who carries it out
        self._commands: dict[int, tuple[int, Callable[[Message, Port | None], None]]] = {
            op.SEND: (3, self._send),
            op.SEND_UID: (3, self._send_uid),
            op.SEND_GROUP: (4, self._send_group),
            op.SEND_ALL: (3, self._send_all),
            op.BIND: (4, self._bind),
            op.UNBIND: (3, self._unbind),
            op.JOIN: (3, self._join),
            op.LEAVE: (3, self._leave),
            op.UNGROUP: (2, self._ungroup),
            op.SET_SESSION: (4, self._set_session),
            op.UPDATE_SESSION: (5, self._update_session),
            op.CLOSE_CLIENT: (5, self._close_client),
            op.DESTROY_CLIENT: (2, self._destroy_client),
            op.TAKE: (2, self._take),
            op.DRAIN: (1, self._drain),
        }

    @property
    def unhandled(self) -> int:
        """How many events no worker has acknowledged yet. It is counted, client by client."""
        return sum(len(client.events) for client in (*self.index.clients.values(), *self._closing.values()))

    # What clients do

    def opened(self, connection: Connection, introduction: list[Any], headers: list[list[str]]) -> Client:
        """A client passed the handshake. ``introduction`` is [path, query, remote, listener, subprotocol].

        While too many events wait, a client that comes is closed at once, and no worker hears of it.
        """
        client = Client(new_client_id(self.key), connection, introduction)
        if self.dispatch.full:
            client.open = False
            connection.shut(reasons.OVERLOADED)
        else:
            self.index.add(client)
            self._event(client, op.CONNECT, headers)
        return client

    def received(self, client: Client, data: str | bytes) -> None:
        """A client sent a message."""
        self.events += 1
        client.number = number = client.number + 1
        self.dispatch.event(client, [MESSAGE, 0, client.id, number, None, data])

    def closed(self, client: Client, code: int, reason: str) -> None:
        """A client is gone, or on its way out: it gets nothing any more, and nothing of it is taken."""
        if client.open:
            client.open = False
            self.index.remove(client)
            self._closing[client.id] = client
            self._event(client, op.CLOSE, [code, reason])

    def _event(self, client: Client, opcode: int, data: list[Any]) -> None:
        self.events += 1
        client.number += 1
        self.dispatch.event(client, [opcode, 0, client.id, client.number, None, data])

    # What workers and callers do

    def apply(self, batch: list[Message], asker: Asker, port: Port | None) -> None:
        """Carry out the commands of one batch, all in this turn. ``port`` is the asker's, if it is a worker.

        Raises:
            LinkError: if the batch is not made as :mod:`..common.messages` says. What stands before that in it is carried
                out; the asker is to be dropped.
        """
        commands = self._commands
        answers = 0
        for message in batch:
            opcode = message[0]
            known = commands.get(opcode)
            if known is not None:
                length, command = known
                if len(message) != length:
                    raise LinkError(f"message {opcode} with {len(message)} fields, not {length}")
                command(message, port)
            elif opcode == ACK:
                self._ack(message, port)
            elif opcode == QUERY:
                answers += self._query(message, asker, may=answers < MAX_ANSWERS)
            else:
                raise LinkError(f"message {opcode} is not for a gateway")

    def _ack(self, message: Message, port: Port | None) -> None:
        if port is None:
            raise LinkError("acknowledges events, but is no worker")
        acknowledged = self.dispatch.acknowledged
        for number in message[1:]:
            if type(number) is not int:
                raise LinkError(f"acknowledges {type(number).__name__}, not the number of an event")
            acknowledged(port, number)

    def _take(self, message: Message, port: Port | None) -> None:
        credit = message[1]
        if port is None or port in self.dispatch.workers or port.outstanding:
            raise LinkError("takes events, but is no worker or does so already")
        if type(credit) is not int or credit < 1:
            raise LinkError(f"takes {credit!r} events at once")
        port.room = credit
        self.dispatch.joined(port)

    def _drain(self, _: Message, port: Port | None) -> None:
        if port is None:
            raise LinkError("takes no more events, but is no worker")
        self.dispatch.draining(port)

    def _query(self, message: Message, asker: Asker, *, may: bool) -> int:
        """Answer a query; return how much the answer is."""
        if len(message) != 4:
            raise LinkError(f"message {QUERY} with {len(message)} fields, not 4")
        _, number, ask, argument = message
        if not may or asker.full:
            self.counters["discarded.asker_full"] += 1
            return 0
        found = answer(self.index, ask, argument)
        asker.send([op.ANSWER, number, found])
        return _extent(found)

    # Sending

    def _send(self, message: Message, _: Port | None) -> None:
        _, target, data = message
        if type(target) is list:
            found = [self._client(one) for one in dict.fromkeys(_texts(target))]
            self._deliver([client for client in found if client is not None], data)
        else:
            client = self._client(target)
            if client is not None:
                client.connection.send(_data(data))

    def _send_uid(self, message: Message, _: Port | None) -> None:
        _, uids, data = message
        self._deliver(self.index.of_uids(_texts(uids)), data)

    def _send_group(self, message: Message, _: Port | None) -> None:
        _, groups, data, exclude = message
        self._deliver(self.index.of_groups(_texts(groups)), data, exclude)

    def _send_all(self, message: Message, _: Port | None) -> None:
        _, data, exclude = message
        self._deliver(self.index.clients.values(), data, exclude)

    def _deliver(self, clients: Collection[Client], data: Any, exclude: Any = ()) -> None:
        # a copy: a client that is closed for being slow leaves the index meanwhile
        if exclude:
            out = set(_texts(exclude))
            receivers = [client for client in clients if client.id not in out]
        else:
            receivers = list(clients)
        if not receivers:
            return
        frame = self._encode(_data(data))
        for client in receivers:
            connection = client.connection
            if connection.plain:
                connection.write(frame)
            else:
                connection.send(data)

    # Binding, grouping, sessions

    def _bind(self, message: Message, port: Port | None) -> None:
        _, client_id, uid, counted = message
        client = self._known(client_id)
        if client is not None:
            if client.open:
                self.index.bind(client, _text(uid))
            else:
                client.uid = _text(uid)
            self._changed(client, port, counted)

    def _unbind(self, message: Message, port: Port | None) -> None:
        _, client_id, counted = message
        client = self._known(client_id)
        if client is not None:
            if client.open:
                self.index.unbind(client)
            else:
                client.uid = None
            self._changed(client, port, counted)

    def _set_session(self, message: Message, port: Port | None) -> None:
        _, client_id, session, counted = message
        client = self._known(client_id)
        if client is not None:
            client.session = wire.pack(_map(session))
            self._changed(client, port, counted)

    def _update_session(self, message: Message, port: Port | None) -> None:
        _, client_id, changed, gone, counted = message
        client = self._known(client_id)
        if client is not None:
            session = wire.unpack(client.session)
            for key in _texts(gone):
                session.pop(key, None)
            client.session = wire.pack(session | _map(changed))
            self._changed(client, port, counted)

    def _changed(self, client: Client, port: Port | None, counted: Any) -> None:
        if counted and port is not None and client.port is port:
            client.applied += 1
        self.dispatch.changed(client)

    def _join(self, message: Message, _: Port | None) -> None:
        _, client_id, group = message
        client = self._client(client_id)
        if client is not None:
            self.index.join(client, _text(group))

    def _leave(self, message: Message, _: Port | None) -> None:
        _, client_id, group = message
        client = self._client(client_id)
        if client is not None:
            self.index.leave(client, _text(group))

    def _ungroup(self, message: Message, _: Port | None) -> None:
        self.index.dissolve(_text(message[1]))

    # Closing

    def _close_client(self, message: Message, _: Port | None) -> None:
        _, client_id, last, code, reason = message
        client = self._client(client_id)
        if client is not None:
            if type(code) is not int or type(reason) is not str:
                raise LinkError(
                    f"closes a client with {code!r} and {type(reason).__name__}, not with a number and a text"
                )
            if last is not None:
                client.connection.send(_data(last))
            client.connection.close(code, reason)

    def _destroy_client(self, message: Message, _: Port | None) -> None:
        client = self._client(message[1])
        if client is not None:
            client.connection.abort()

    # Finding

    def _client(self, client_id: Any) -> Client | None:
        """Return an open client."""
        if type(client_id) is not str:
            raise LinkError(f"{type(client_id).__name__} where the id of a client is due")
        client = self.index.clients.get(client_id)
        if client is None:
            self.counters["discarded.client_gone"] += 1
        return client

    def _known(self, client_id: Any) -> Client | None:
        """Return a client that is open, or whose handlers may still set its uid and session: its close event is not done."""
        return self._closing.get(_text(client_id)) or self._client(client_id)


# What a message may hold. None of these checks is for the case that a worker is honest.


def _text(value: Any) -> str:
    if type(value) is not str:
        raise LinkError(f"{type(value).__name__} where a text is due")
    return value


def _texts(value: Any) -> list[str]:
    if type(value) is not list or not all(type(one) is str for one in value):
        raise LinkError("something else where a list of texts is due")
    return value


def _data(value: Any) -> str | bytes:
    if type(value) is str or type(value) is bytes:
        return value
    raise LinkError(f"{type(value).__name__} where the data of a message is due")


def _map(value: Any) -> dict[Any, Any]:
    if type(value) is not dict:
        raise LinkError(f"{type(value).__name__} where a map is due")
    return value


def _extent(found: Any) -> int:
    """Return about how many ids, counts or keys an answer holds, at least 1."""
    if type(found) is dict:
        return 1 + sum(len(one) if type(one) in (list, dict) else 1 for one in found.values())
    return 1 + len(found) if type(found) is list else 1
