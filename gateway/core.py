"""The rules of a gateway put together: clients open, say something and close; workers and callers command and ask.

Pure: sockets are behind :class:`~.client.Connection` and ``send`` of a :class:`~.dispatch.Port`. The shell calls, in one
turn of its loop, whatever happened, and what is to be sent leaves at the end of that turn.
"""

from __future__ import annotations

import logging
from collections import deque
from http import HTTPStatus
from itertools import chain
from math import isnan
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..common import discards, reasons, wire
from ..common import messages as op
from ..common.errors import LinkError
from ..common.ids import new_client_id
from ..common.messages import ACK, MESSAGE, QUERY, Ask
from .admission import Admission
from .answers import MAX_ANSWER, TooBig, answer
from .client import Client, Connection, NoConnection
from .credentials import Credentials
from .index import Index
from .limits import KEPT
from .overview import connections
from .repeats import Repeats

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Collection, Iterable

    from ..common.messages import Message
    from .admission import Door
    from .devices import Devices
    from .dispatch import Dispatch, Port
    from .limits import Kept

_log = logging.getLogger(__name__)

#: What changes the uid or session of a client; the last field says whether its worker counted that.
OF_STATE: Final = (op.BIND, op.UNBIND, op.SET_SESSION, op.UPDATE_SESSION)
#: What a turn may hold.
IN_TURNS: Final = (
    *(op.SEND, op.SEND_UID, op.SEND_GROUP, op.SEND_ALL),
    *(op.JOIN, op.LEAVE, op.UNGROUP, op.CLOSE_CLIENT, op.DESTROY_CLIENT, op.TOKEN, op.REVOKE),
    *OF_STATE,
)
MAX_PINGS: Final = 100  #: that are with one worker; past that, no more are sent
MAX_LOST: Final = 1000  #: keys of lost gateways that workers are told of
LAST: Final = (
    2**53
)  #: the number of a close event that a buddy tells is the one after: no event of the client comes later


class Asker(Protocol):
    """Whoever sends commands and queries: a worker or a caller."""

    @property
    def full(self) -> bool:
        """Whether it is so far behind with reading that no more should be made for it."""

    def send(self, message: Message, size: int = 0, /) -> None:
        """Send it a message; its bytes, if they shall count for :attr:`full` at once."""


class Mirror(Protocol):
    """Whoever keeps another gateway in step with the clients of this one."""

    def opened(self, client: Client) -> None:
        """There is a client, and no worker knows of it yet."""

    def changed(self, client: Client) -> None:
        """Its uid or session changed."""

    def finished(self, client: Client) -> None:
        """It closed, and that was handled."""


class Core:
    """One gateway.

    Args:
        key: of this gateway; the ids of its clients start with it.
        dispatch: takes the events.
        encode: makes the frame that may be written to any plain connection.
        counters: gets ``discarded.client_gone`` for each command to a client that is not here any more, and
            ``discarded.asker_full`` for each query that got no answer because its asker asks faster than it reads,
            ``discarded.session_too_big``, ``discarded.too_many_groups`` and ``discarded.name_too_long`` for each command past what is
            ``kept``, ``answers.too_big`` for each that was told that its answer is over :data:`~.answers.MAX_ANSWER`, and
            ``discarded.revocations`` for each
            that was forgotten before its time, ``commands.repeated`` for each command that came again and was left out.
        clock: returns seconds.
        name: of this gateway, for those who ask.
        wall: returns seconds since 1970, by which tokens end.
        auth_timeout: seconds that a client may be without a uid; 0 for no limit.
        kept: what is kept of one client at most.
        devices: the places of the clients that have a uid; None if a uid may have any number.
    """

    def __init__(
        self,
        key: str,
        dispatch: Dispatch,
        encode: Callable[[str | bytes], bytes],
        counters: Counter[str],
        clock: Callable[[], float],
        *,
        name: str = "",
        wall: Callable[[], float] = lambda: 0.0,
        auth_timeout: float = 0.0,
        kept: Kept = KEPT,
        devices: Devices | None = None,
    ) -> None:
        self.key = key
        self.dispatch = dispatch
        self.index = Index()
        self.events = 0  #: from clients, ever
        self.commands = 0  #: messages of workers and callers, ever: commands, acks, questions
        self.discards = discards.Discards()
        self._name = name
        self._wall = wall
        self._wanted = ""  # what a command does with the client that closes now
        self.counters = counters
        self._kept = kept
        self._encode = encode
        self._clock = clock
        self._repeats = Repeats()
        self._closing: dict[str, Client] = {}  # closed clients with events that are not acknowledged
        self._lost: deque[str] = deque(maxlen=MAX_LOST)  # keys of gateways whose clients' close was told here
        self.admission = Admission(dispatch.choose)
        self.credentials = Credentials(auth_timeout, clock, wall)
        self._devices = devices
        self.mirror: Mirror | None = None
        self.fenced: Callable[[], object] = lambda: None  #: told when this gateway itself was taken for lost
        dispatch.finished = self._finished
        # opcode: how long such a message is, and who carries it out
        self._commands: dict[int, tuple[int, Callable[[Message, Port | None], None]]] = {
            op.SEND: (3, self._send),
            op.SEND_UID: (3, self._send_uid),
            op.SEND_GROUP: (4, self._send_group),
            op.SEND_ALL: (3, self._send_all),
            op.BIND: (5, self._bind),
            op.UNBIND: (3, self._unbind),
            op.JOIN: (3, self._join),
            op.LEAVE: (3, self._leave),
            op.UNGROUP: (2, self._ungroup),
            op.SET_SESSION: (4, self._set_session),
            op.UPDATE_SESSION: (5, self._update_session),
            op.CLOSE_CLIENT: (5, self._close_client),
            op.DESTROY_CLIENT: (2, self._destroy_client),
            op.TURN: (4, self._turn),
            op.TAKE: (3, self._take),
            op.ACCEPT: (8, self._accept),
            op.REFUSE: (5, self._refuse),
            op.TOKEN: (3, self._token),
            op.REVOKE: (5, self._revoke),
            op.DRAIN: (1, self._drain),
            op.FENCE: (2, self._fence),
            op.CUT: (1, self._cut),
            op.DISCARDED: (8, self._discarded),
        }

    @property
    def unhandled(self) -> int:
        """How many events no worker has acknowledged yet. It is counted, client by client."""
        return sum(len(client.events) for client in self.known_clients())

    # What clients do

    def arrived(self, door: Door, introduction: list[Any], headers: list[list[str]]) -> Client:
        """A client is in the handshake, and :attr:`admission` needs a worker to decide on it. The door is told what that says.

        ``introduction`` is [path, query, remote, listener, subprotocol].
        """
        client = Client(new_client_id(self.key), door, introduction)
        self.admission.arrived(client, door, headers)
        return client

    def gave_up(self, client: Client) -> None:
        """A client that had arrived hung up, or waited for too long."""
        self.admission.gave_up(client)
        self._release(client)

    def opened(
        self,
        connection: Connection,
        introduction: list[Any],
        headers: list[list[str]],
        client: Client | None = None,
    ) -> Client:
        """A client passed the handshake: the one that :meth:`arrived` returned, or one that nobody was asked about.

        While too many events wait, a client that comes is closed at once, and no worker hears of it.
        """
        if client is None:
            client = Client(new_client_id(self.key), connection, introduction)
        if self.dispatch.full:
            client.open = False
            self._release(client)
            self._note(f"closed.{reasons.OVERLOADED.name}", client)
            connection.shut(reasons.OVERLOADED)
        else:
            client.since = self._clock()
            self.index.add(client)
            self.credentials.nameless(client)
            if self.mirror is not None:
                self.mirror.opened(client)
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
            why = self._wanted or reasons.named(code, reason) or "by_itself"
            self._note(f"closed.{why}", client, f"code {code}")
            self.index.remove(client)
            self.credentials.forget(client)
            self._release(client)
            self._closing[client.id] = client
            self._event(client, op.CLOSE, [code, reason])

    def adopt(self, key: str, kept: Iterable[Message]) -> None:
        """Tell the close of the clients of a gateway that is lost. ``kept`` is a KEEP message for each."""
        self._lost.append(key)
        for port in self.dispatch.workers:
            port.send([op.FENCE, key])
        for _, client_id, uid, session, introduction in kept:
            client = Client(client_id, NoConnection(), introduction)
            client.uid, client.session, client.number = uid, session, LAST
            client.open = False
            self._closing[client_id] = client
            self.counters["clients.adopted"] += 1
            self._note(f"closed.{reasons.GATEWAY_LOST.name}", client)
            if self.mirror is not None:
                self.mirror.opened(client)
            self._event(client, op.CLOSE, [reasons.GATEWAY_LOST.code, reasons.GATEWAY_LOST.text])

    def look_after(self) -> None:
        """Close whose token has ended, and who did not say in time who they are. To be called again and again."""
        for client, reason in self.credentials.due():
            client.connection.shut(reason)

    def known_clients(self) -> Iterable[Client]:
        """Return the clients whose close event is not done."""
        return chain(self.index.clients.values(), self._closing.values())

    def _finished(self, client: Client) -> None:
        del self._closing[client.id]
        if self.mirror is not None:
            self.mirror.finished(client)

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
        self.commands += len(batch)
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
                self._query(message, asker)
            else:
                raise LinkError(f"message {opcode} is not for a gateway")

    def _turn(self, message: Message, port: Port | None) -> None:
        """Carry out what a turn commanded, unless that was done before."""
        _, origin, number, commands = message
        if type(origin) is not str or type(number) is not int or type(commands) is not list:
            raise LinkError("something else where origin, number and commands of a turn are due")
        again = self._repeats.seen(origin, number)
        if again:
            self.counters["commands.repeated"] += len(commands)
        for command in commands:
            opcode = command[0] if type(command) is list and command else None
            if opcode not in IN_TURNS:
                raise LinkError(f"message {opcode!r} in a turn")
            length, carry_out = self._commands[opcode]
            if len(command) != length:
                raise LinkError(f"message {opcode} with {len(command)} fields, not {length}")
            if not again:
                carry_out(command, port)
            elif opcode in OF_STATE:  # the worker takes it for done, and has to hear what there is
                client = self._known(command[1])
                if client is not None:
                    self._changed(client, port, command[-1])

    def _ack(self, message: Message, port: Port | None) -> None:
        if port is None:
            raise LinkError("acknowledges events, but is no worker")
        acknowledged = self.dispatch.acknowledged
        for number in message[1:]:
            if type(number) is not int:
                raise LinkError(f"acknowledges {type(number).__name__}, not the number of an event")
            acknowledged(port, number)

    def _take(self, message: Message, port: Port | None) -> None:
        _, credit, decides = message
        if port is None or port in self.dispatch.workers or port.outstanding:
            raise LinkError("takes events, but is no worker or does so already")
        if type(credit) is not int or credit < 1:
            raise LinkError(f"takes {credit!r} events at once")
        port.room = credit
        for key in self._lost:
            port.send([op.FENCE, key])
        for revoked in self.credentials.revoked():
            port.send([op.REVOKED, *revoked])
        self.dispatch.joined(port)
        self.admission.joined(port, decides=bool(decides))

    def _cut(self, _: Message, port: Port | None) -> None:
        if port is not None:
            self.dispatch.cut(port.key)

    def _drain(self, _: Message, port: Port | None) -> None:
        if port is None:
            raise LinkError("takes no more events, but is no worker")
        self.dispatch.draining(port)
        self.admission.left(port)

    def lost(self, port: Port) -> None:
        """A worker is gone."""
        self.dispatch.lost(port)
        self.admission.lost(port)

    def _fence(self, message: Message, port: Port | None) -> None:
        if port is not None and message[1] == self.key:
            self.fenced()

    def _query(self, message: Message, asker: Asker) -> None:
        """Answer a query, unless the asker is behind with reading."""
        if len(message) != 4:
            raise LinkError(f"message {QUERY} with {len(message)} fields, not 4")
        _, number, ask, argument = message
        if asker.full:
            self.counters["discarded.asker_full"] += 1
            self._note("discarded.asker_full")
            return
        if ask == Ask.ROUND_TRIP:
            self._ping(number, _text(argument), asker)
            return
        try:
            found = [op.ANSWER, number, self._answer(ask, argument)]
            size = len(wire.pack(found))
            if size > MAX_ANSWER:
                raise TooBig
        except TooBig:
            self.counters["answers.too_big"] += 1
            found = [op.NO_ANSWER, number, f"the answer has more than {MAX_ANSWER} bytes: ask about fewer at once"]
            size = len(wire.pack(found))
        asker.send(found, size)

    def _answer(self, ask: object, argument: object) -> Any:
        """Return the answer to a question about this gateway, or about its clients."""
        if ask == Ask.CONNECTIONS:
            return connections(self.index, self._clock(), argument)
        if ask == Ask.DISCARDS:
            match argument:
                case [int() | float() as seconds, str(client), str(uid), str(group)]:
                    return [list(one) for one in self.discards.find(self._wall() - seconds, client, uid, group)]
            raise LinkError("asks for discards, but not since when and whose")
        return answer(self.index, ask, argument)

    def _ping(self, query: int, worker: str, asker: Asker) -> None:
        """Answer a query by how long a ping to a worker and back takes: now if there is none, else when that is known."""
        port = next((port for port in self.dispatch.workers if port.key == worker), None)
        if port is None or len(port.pings) >= MAX_PINGS:
            asker.send([op.ANSWER, query, None])
            return
        began = self._clock()

        def returned(acknowledged: bool) -> None:
            if asker.full:
                self.counters["discarded.asker_full"] += 1
                self._note("discarded.asker_full")
            else:  # if it is gone, this reaches nobody
                asker.send([op.ANSWER, query, (self._clock() - began) * 1000 if acknowledged else None])

        self.dispatch.ping(port, returned)

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

    # Letting in, and letting stay

    def _accept(self, message: Message, port: Port | None) -> None:
        _, number, uid, device, groups, session, subprotocol, token = message
        found = self._decided(port, number)
        if found is None:
            return
        client, door = found
        client.token = _credential(token)
        fault = self.credentials.fault(uid, token)
        if fault is not None:
            door.refuse(HTTPStatus.UNAUTHORIZED, fault.text, None, fault.name)
            return
        client.uid = None if uid is None else _text(uid)
        client.groups = set(_texts(groups))
        client.session = wire.pack(_map(session))
        # let in with less than the handler gave it, it might be taken for somebody else
        if (
            len(client.groups) > self._kept.groups
            or not all(self._fits(name, client) for name in (client.uid or "", *client.groups))
            or not self._session_fits(client, client.session)
        ):
            door.refuse(
                HTTPStatus.INTERNAL_SERVER_ERROR, "its uid, groups or session are more than is kept", None, "over_limit"
            )
            return
        if subprotocol is not None:
            client.introduction[4] = _text(subprotocol)
        if client.uid is None or self._devices is None:
            door.admit(subprotocol)
            return

        def decided(allowed: bool) -> None:
            if client.id in self.index.clients:
                if not allowed:
                    client.connection.shut(reasons.TOO_MANY_DEVICES)
            elif allowed:
                door.admit(subprotocol)
            else:
                door.refuse(HTTPStatus.FORBIDDEN, reasons.TOO_MANY_DEVICES.text, None, reasons.TOO_MANY_DEVICES.name)

        self._devices.claim(client, client.uid, _text(device), decided)

    def _refuse(self, message: Message, port: Port | None) -> None:
        _, number, status, why, retry_after = message
        found = self._decided(port, number)
        if found is not None:
            if type(status) is not int or not 400 <= status <= 599 or type(retry_after) not in (int, type(None)):
                raise LinkError(f"refuses a client with {status!r} and {retry_after!r}, not with a status and seconds")
            found[1].refuse(status, _text(why), retry_after)

    def _decided(self, port: Port | None, number: Any) -> tuple[Client, Door] | None:
        if port is None or type(number) is not int:
            raise LinkError("decides on a handshake, but is no worker or does not say which")
        return self.admission.decided(port, number)

    def _token(self, message: Message, _: Port | None) -> None:
        _, client_id, token = message
        client = self._client(client_id)
        if client is not None:
            client.token = _credential(token)
            fault = self.credentials.fault(client.uid, client.token)
            if fault is not None:
                client.connection.shut(fault)
            else:
                self.credentials.watch(client)

    def _revoke(self, message: Message, _: Port | None) -> None:
        news = self.credentials.revoke(*message[1:])
        if self.counters["discarded.revocations"] != self.credentials.forgotten:
            self.counters["discarded.revocations"] = self.credentials.forgotten
            self._note("discarded.revocations")
        if news is None:
            return
        for port in self.dispatch.workers:
            port.send([op.REVOKED, *news])
        clients = self.index.of_uids([news[1]]) if news[0] == "uid" else list(self.index.clients.values())
        for client in clients:
            fault = self.credentials.fault(client.uid, client.token)
            if fault is not None:
                client.connection.shut(fault)

    # Binding, grouping, sessions

    def _bind(self, message: Message, port: Port | None) -> None:
        _, client_id, uid, device, counted = message
        client = self._known(client_id)
        if client is not None:
            if not self._fits(_text(uid), client):
                pass
            elif client.open:
                self.index.bind(client, uid)
                self.credentials.watch(client)
                self._claim(client, uid, _text(device))
            else:
                client.uid = uid
            self._changed(client, port, counted)

    def _unbind(self, message: Message, port: Port | None) -> None:
        _, client_id, counted = message
        client = self._known(client_id)
        if client is not None:
            if client.open:
                self.index.unbind(client)
                self.credentials.nameless(client)
                self._release(client)
            else:
                client.uid = None
            self._changed(client, port, counted)

    def _claim(self, client: Client, uid: str, device: str) -> None:
        """Claim a place for a client that is there already; if it gets none, it goes."""
        if self._devices is not None:

            def decided(allowed: bool) -> None:
                if not allowed:
                    client.connection.shut(reasons.TOO_MANY_DEVICES)

            self._devices.claim(client, uid, device, decided)

    def _release(self, client: Client) -> None:
        if self._devices is not None:
            self._devices.release(client)

    def _set_session(self, message: Message, port: Port | None) -> None:
        _, client_id, session, counted = message
        client = self._known(client_id)
        if client is not None:
            packed = wire.pack(_map(session))
            if self._session_fits(client, packed):
                client.session = packed
            self._changed(client, port, counted)

    def _update_session(self, message: Message, port: Port | None) -> None:
        _, client_id, changed, gone, counted = message
        client = self._known(client_id)
        if client is not None:
            session = wire.unpack(client.session)
            for key in _texts(gone):
                session.pop(key, None)
            packed = wire.pack(session | _map(changed))
            if self._session_fits(client, packed):
                client.session = packed
            self._changed(client, port, counted)

    def _fits(self, name: str, client: Client) -> bool:
        most = self._kept.name
        if len(name) <= most:
            return True
        self._discard(
            "name_too_long", client, f"a uid or group of {len(name)} characters, more than {most} ([gateway] max_name)"
        )
        return False

    def _session_fits(self, client: Client, packed: bytes) -> bool:
        most = self._kept.session
        if len(packed) <= most:
            return True
        self._discard(
            "session_too_big", client, f"{client!r} has more than {most} bytes in its session ([gateway] max_session)"
        )
        return False

    def _changed(self, client: Client, port: Port | None, counted: Any) -> None:
        if counted and port is not None and client.port is port:
            client.applied += 1
        self.dispatch.changed(client)
        if self.mirror is not None:
            self.mirror.changed(client)

    def _join(self, message: Message, _: Port | None) -> None:
        _, client_id, group = message
        client = self._client(client_id)
        if client is not None:
            most = self._kept.groups
            if len(client.groups) >= most and group not in client.groups:
                self._discard(
                    "too_many_groups", client, f"{client!r} is in {most} groups already ([gateway] max_groups)"
                )
            elif self._fits(_text(group), client):
                self.index.join(client, group)

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
            self._end(client, "command", lambda: client.connection.close(code, reason))

    def _destroy_client(self, message: Message, _: Port | None) -> None:
        client = self._client(message[1])
        if client is not None:
            self._end(client, "destroy", client.connection.abort)

    def _end(self, client: Client, wanted: str, close: Callable[[], None]) -> None:
        """Close a client on command, and let that be remembered."""
        self._wanted = wanted
        try:
            close()
        finally:
            self._wanted = ""

    def _discarded(self, message: Message, _: Port | None) -> None:
        try:
            discard = discards.read(message[1:])
        except ValueError as error:
            raise LinkError(str(error)) from error
        self.discards.add(
            *discard[:3], client=discard.client, uid=discard.uid, groups=discard.groups, note=discard.note
        )

    def _note(self, reason: str, client: Client | None = None, note: str = "") -> None:
        """Remember what does not reach a client."""
        name, uid, groups = (client.id, client.uid, client.groups) if client is not None else ("", None, ())
        self.discards.add(self._wall(), self._name, reason, client=name, uid=uid, groups=groups, note=note)

    def gave_up_event(self, client: Client, number: int) -> None:
        """An event was with too many workers that were lost."""
        self.counters["discarded.given_up"] += 1
        self._note("discarded.given_up", client, f"event {client.id}:{number}")

    def _discard(self, what: str, client: Client, why: str) -> None:
        """Count a command that is not carried out; the first of its kind is logged."""
        self._note(f"discarded.{what}", client)
        self.counters[f"discarded.{what}"] += 1
        if self.counters[f"discarded.{what}"] == 1:
            _log.error(
                "a command is not carried out: %s; others like this are only counted (discarded.%s)",
                why,
                what,
                extra={"client": client.id},
            )

    # Finding

    def _client(self, client_id: Any) -> Client | None:
        """Return an open client."""
        if type(client_id) is not str:
            raise LinkError(f"{type(client_id).__name__} where the id of a client is due")
        client = self.index.clients.get(client_id)
        if client is None:
            self.counters["discarded.client_gone"] += 1
            self.discards.add(self._wall(), self._name, "discarded.client_gone", client=client_id)
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


def _credential(value: Any) -> list[Any] | None:
    match value:
        case None:
            return None
        case [int() | float() as expires, None | str(), int() | float()] if not isnan(expires):
            return [float(expires), *value[1:]]
    raise LinkError("something else where the end, the id and the issue of a token are due")


def _data(value: Any) -> str | bytes:
    if type(value) is str or type(value) is bytes:
        return value
    raise LinkError(f"{type(value).__name__} where the data of a message is due")


def _map(value: Any) -> dict[Any, Any]:
    if type(value) is not dict:
        raise LinkError(f"{type(value).__name__} where a map is due")
    return value
