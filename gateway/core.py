"""The rules of a gateway put together: clients open, say something and close; workers and callers command and ask.

Pure: sockets are behind :class:`~.client.Connection` and ``send`` of a :class:`~.dispatch.Port`. The shell calls, in one
turn of its loop, whatever happened, and what is to be sent leaves at the end of that turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ..common import messages as op
from ..common import wire
from ..common.errors import LinkError
from ..common.ids import new_client_id
from ..common.messages import Message
from .answers import answer
from .client import Client, Connection
from .dispatch import Dispatch, Port
from .index import Index


class Asker(Protocol):
    """Whoever sends commands and queries: a worker or a caller."""

    def send(self, message: Message, /) -> None:
        """Send it a message."""


class Core:
    """One gateway.

    Args:
        key: of this gateway; the ids of its clients start with it.
        dispatch: takes the events.
        encode: makes the frame that may be written to any plain connection.
        counters: what was discarded, by reason.
    """

    def __init__(
        self, key: str, dispatch: Dispatch, encode: Callable[[str | bytes], bytes], counters: Counter[str]
    ) -> None:
        self.key = key
        self.dispatch = dispatch
        self.index = Index()
        self.events = 0
        self.counters = counters
        self._encode = encode
        self._closing: dict[str, Client] = {}  # closed clients with events that are not acknowledged
        dispatch.finished = lambda client: self._closing.pop(client.id, None)
        self._commands: dict[int, Callable[[Message, Port | None], None]] = {
            op.SEND: self._send,
            op.SEND_UID: self._send_uid,
            op.SEND_GROUP: self._send_group,
            op.SEND_ALL: self._send_all,
            op.BIND: self._bind,
            op.UNBIND: self._unbind,
            op.JOIN: self._join,
            op.LEAVE: self._leave,
            op.UNGROUP: self._ungroup,
            op.SET_SESSION: self._set_session,
            op.UPDATE_SESSION: self._update_session,
            op.CLOSE_CLIENT: self._close_client,
            op.DESTROY_CLIENT: self._destroy_client,
            op.ACK: self._ack,
            op.DRAIN: self._drain,
        }

    # What clients do

    def opened(self, connection: Connection, introduction: list[Any], headers: list[list[str]]) -> Client:
        """A client passed the handshake. ``introduction`` is [path, query, remote, listener, subprotocol]."""
        client = Client(new_client_id(self.key), connection, introduction)
        self.index.add(client)
        self._event(client, op.CONNECT, headers)
        return client

    def received(self, client: Client, data: str | bytes) -> None:
        """A client sent a message."""
        self.events += 1
        client.number = number = client.number + 1
        self.dispatch.event(client, [2, 0, client.id, number, None, data])  # 2 is MESSAGE

    def closed(self, client: Client, code: int, reason: str) -> None:
        """A client is gone, or on its way out: it gets nothing any more, and nothing of it is taken."""
        client.open = False
        self.index.remove(client)
        self._closing[client.id] = client
        self._event(client, op.CLOSE, [code, reason])

    def _event(self, client: Client, opcode: int, data: Any) -> None:  # noqa: ANN401
        self.events += 1
        client.number += 1
        self.dispatch.event(client, [opcode, 0, client.id, client.number, None, data])

    # What workers and callers do

    def apply(self, batch: list[Message], asker: Asker, port: Port | None) -> None:
        """Carry out the commands of one batch, all in this turn. ``port`` is the asker's, if it is a worker.

        Raises:
            LinkError: if the batch is not made as :mod:`..common.messages` says.
        """
        commands = self._commands
        for message in batch:
            command = commands.get(message[0])
            try:
                if command is not None:
                    command(message, port)
                elif message[0] == op.QUERY:
                    _, number, ask, argument = message
                    asker.send([op.ANSWER, number, answer(self.index, ask, argument)])
                else:
                    raise LinkError(f"message {message[0]} is not for a gateway")
            except (TypeError, ValueError, IndexError, AttributeError) as error:
                raise LinkError(f"message {message[0]} is malformed: {error}") from error

    def _ack(self, message: Message, port: Port | None) -> None:
        if port is None:
            raise LinkError("acknowledges events, but is no worker")
        acknowledged = self.dispatch.acknowledged
        for number in message[1:]:
            acknowledged(port, number)

    def _drain(self, message: Message, port: Port | None) -> None:  # noqa: ARG002
        if port is not None:
            self.dispatch.draining(port)

    def _client(self, client_id: str) -> Client | None:
        client = self.index.clients.get(client_id)
        if client is None:
            self.counters["discarded.client_gone"] += 1
        return client

    def _send(self, message: Message, port: Port | None) -> None:  # noqa: ARG002
        _, target, data = message
        if type(target) is str:
            client = self._client(target)
            if client is not None:
                client.connection.send(data)
        else:
            self._deliver([client for one in target if (client := self._client(one)) is not None], data)

    def _send_uid(self, message: Message, port: Port | None) -> None:  # noqa: ARG002
        _, uids, data = message
        self._deliver(self.index.of_uids(uids), data)

    def _send_group(self, message: Message, port: Port | None) -> None:  # noqa: ARG002
        _, groups, data, exclude = message
        self._deliver(self.index.of_groups(groups), data, exclude)

    def _send_all(self, message: Message, port: Port | None) -> None:  # noqa: ARG002
        _, data, exclude = message
        self._deliver(self.index.clients.values(), data, exclude)

    def _deliver(self, clients: Iterable[Client], data: str | bytes, exclude: list[str] | None = None) -> None:
        frame = self._encode(data)
        receivers = list(clients)  # a client that is closed for being slow leaves the index meanwhile
        if exclude:
            out = set(exclude)
            receivers = [client for client in receivers if client.id not in out]
        for client in receivers:
            connection = client.connection
            if connection.plain:
                connection.write(frame)
            else:
                connection.send(data)

    def _bind(self, message: Message, port: Port | None) -> None:
        _, client_id, uid, counted = message
        client = self.index.clients.get(client_id)
        if client is not None:
            self.index.bind(client, uid)
        else:
            client = self._on_its_way_out(client_id)
            if client is None:
                return
            client.uid = uid
        self._changed(client, port, counted)

    def _unbind(self, message: Message, port: Port | None) -> None:
        _, client_id, counted = message
        client = self.index.clients.get(client_id)
        if client is not None:
            self.index.unbind(client)
        else:
            client = self._on_its_way_out(client_id)
            if client is None:
                return
            client.uid = None
        self._changed(client, port, counted)

    def _set_session(self, message: Message, port: Port | None) -> None:
        _, client_id, session, counted = message
        client = self.index.clients.get(client_id) or self._on_its_way_out(client_id)
        if client is not None:
            client.session = wire.pack(dict(session))
            self._changed(client, port, counted)

    def _update_session(self, message: Message, port: Port | None) -> None:
        _, client_id, changed, gone, counted = message
        client = self.index.clients.get(client_id) or self._on_its_way_out(client_id)
        if client is not None:
            session = wire.unpack(client.session)
            for key in gone:
                session.pop(key, None)
            client.session = wire.pack(session | changed)
            self._changed(client, port, counted)

    def _on_its_way_out(self, client_id: str) -> Client | None:
        """Return a client whose close event is still to be handled: its handlers may set its uid and session until then."""
        client = self._closing.get(client_id)
        if client is None:
            self.counters["discarded.client_gone"] += 1
        return client

    def _changed(self, client: Client, port: Port | None, counted: bool) -> None:
        if counted and port is not None and client.port is port:
            client.applied += 1
        self.dispatch.changed(client)

    def _join(self, message: Message, port: Port | None) -> None:  # noqa: ARG002
        _, client_id, group = message
        client = self._client(client_id)
        if client is not None:
            self.index.join(client, group)

    def _leave(self, message: Message, port: Port | None) -> None:  # noqa: ARG002
        _, client_id, group = message
        client = self._client(client_id)
        if client is not None:
            self.index.leave(client, group)

    def _ungroup(self, message: Message, port: Port | None) -> None:  # noqa: ARG002
        self.index.dissolve(message[1])

    def _close_client(self, message: Message, port: Port | None) -> None:  # noqa: ARG002
        _, client_id, last, code, reason = message
        client = self._client(client_id)
        if client is not None:
            if last is not None:
                client.connection.send(last)
            if client.open:  # the last message may have been one too many
                client.connection.close(code, reason)

    def _destroy_client(self, message: Message, port: Port | None) -> None:  # noqa: ARG002
        client = self._client(message[1])
        if client is not None:
            client.connection.abort()
