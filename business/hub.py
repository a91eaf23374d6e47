"""The links of a worker or caller to all gateways: commands and acks leave, questions are asked, answers gathered."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from functools import partial
from itertools import count
from time import time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from ..common import messages as op
from ..common import wire
from ..common.errors import PartialAnswer, QueryError, Unreachable
from ..common.link import LEFT, Connector, LinkSettings, Node, Peer
from ..common.revocations import Revocations
from ..register.agent import Agent, Member
from .checks import size
from .gather import Gather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..common.messages import Ask, Message
    from .client import Client
    from .queries import Answers
    from .turn import Stamp

_log = logging.getLogger(__name__)
MAX_QUESTIONS: Final = 10_000  #: of one process that wait for their answers
MUCH: Final = 1024 * 1024  #: bytes of commands; once there are more, they leave without waiting for others
NOTED: Final = 10  #: commands of which it is told whom they were for, when many are given up at once
HEARSAY: Final = 10.0  #: seconds in which the registers have to confirm a gateway that another gateway told of
MAX_FENCED: Final = 1000  #: keys of lost gateways that are remembered
T = TypeVar("T")


class Gateway:
    """One gateway, as a worker or caller sees it, from when it joined until it left."""

    __slots__ = ("acks", "clients", "connector", "cut", "full", "gone", "key", "late", "name", "peer", "size")

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.key = key
        self.connector: Connector
        self.peer: Peer
        self.full = False  # it does not keep up with what it is sent: none of its events is handled for now
        self.cut = False  # the last link ended though this process did not hang
        self.gone = False  # the registers know nothing of it any more
        self.late: list[Message] = []  # commands that leave with the acks
        self.acks: list[int] = []
        self.size = 0  # bytes of those commands
        self.clients: dict[str, Client] = {}

    def __repr__(self) -> str:
        return f"gateway {self.name}"

    @property
    def alive(self) -> bool:
        """Whether there is a lane; what began under an earlier one is void."""
        return self.peer.up


class Listener(Protocol):
    """What a hub tells a worker."""

    def joined(self, gateway: Gateway) -> None:
        """There is a link to this gateway from now on."""

    def received(self, gateway: Gateway, batch: list[Message]) -> None:
        """A batch came from it; answers in it go to :meth:`Hub.answered`."""

    def lost(self, gateway: Gateway) -> None:
        """The link is gone, and with it all that was under way."""

    def members_changed(self) -> None:
        """There are other members than before."""


class Hub:
    """All gateways.

    Args:
        node: who this process is.
        settings: of the links.
        registers: their addresses.
        timeout: seconds that a question waits for its answers.
        listener: a worker; None for a caller.
        stats: what is announced at the registers, once the agent is told to; a caller announces nothing.

    """

    def __init__(
        self,
        node: Node,
        settings: LinkSettings,
        registers: Sequence[str],
        *,
        timeout: float,
        listener: Listener | None = None,
        stats: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.gateways: dict[str, Gateway] = {}
        self._node = node
        self._settings = settings
        self._timeout = timeout
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._early: list[Gateway] = []  # those with commands that leave first
        self._late: list[Gateway] = []  # those with acks, and commands that leave with them
        self._marked = False
        self._closed = False
        self._numbers = count(1)
        self._gathers: dict[int, Gather] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.revocations = Revocations()  #: kept for gateways that do not know of them yet
        self._fenced: dict[str, None] = {}  # keys of gateways that were lost, their clients' close told
        self.agent = Agent(
            node, settings, registers, announce=False, stats=stats or dict, changed=self._members_changed
        )

    def counts(self) -> Counter[str]:
        """Return what was counted here and on all links."""
        links = (gateway.connector.counters for gateway in self.gateways.values())
        return sum(links, self.counters + self.agent.counters)

    async def close(self) -> None:
        """Tell everybody goodbye; what was commanded before still leaves."""
        self._closed = True
        self.flush()
        self.agent.leave()
        for gateway in list(self.gateways.values()):
            self._let_go(gateway)
        while self._closing:
            await asyncio.wait(self._closing)
        await self.agent.close()

    # Commands and acks

    def commit(self, gateway: Gateway, number: int, own: list[Message], size: int = 0) -> None:
        """Let the commands of a turn for the gateway of its event leave with the ack, after what was posted for others.

        Args:
            gateway: that of the event.
            number: of the event.
            own: the commands, of at most :data:`MUCH` bytes: more may be cut in two, and half of it be carried out without the ack.
            size: their bytes.
        """
        if not gateway.acks and not gateway.late:
            self._late.append(gateway)
            self._flush_soon()
        gateway.acks.append(number)
        if own:
            gateway.late += own
            gateway.size += size
            if gateway.size > MUCH:
                self.flush()

    def post(
        self,
        others: Iterable[tuple[str | None, Message]],
        own: list[Message] | None = None,
        gateway: Gateway | None = None,
        stamp: Stamp | None = None,
    ) -> list[str]:
        """Let commands leave without an ack. A link that is lost meanwhile does not lose them, nor carries them twice.

        Args:
            others: commands, each for the gateway with that key, or with None for all but ``gateway``.
            own: commands for ``gateway``.
            gateway: that of the client whose event is handled, if one is.
            stamp: what to know these by, should they come from another run of the handler; None if there is no other.

        Returns:
            The names of the gateways that they cannot reach.
        """
        parts: dict[str, list[Message]] = {}
        for key, message in others:
            if key is None:
                for each in self.gateways.values():
                    if each is not gateway:
                        parts.setdefault(each.key, []).append(message)
            elif key in self.gateways:
                parts.setdefault(key, []).append(message)
            else:
                self.counters["discarded.gateway_gone"] += 1
                self.note("discarded.gateway_gone", **_concerned(message))
        missed: list[str] = []
        origin, number = stamp or (self._node.key, next(self._numbers))
        for key, commands in parts.items():
            other = self.gateways[key]
            if other.peer.full:
                self.counters["discarded.gateway_full"] += len(commands)
                self._note_commands("discarded.gateway_full", commands, other)
                missed.append(other.name)
            else:
                self._put(other, [op.TURN, origin, number, commands])
        if own and gateway is not None:
            # whatever waits already: the client's record here must stay in step with its gateway's
            self._put(gateway, [op.TURN, origin, number, own])
        return missed

    def note(
        self,
        reason: str,
        *,
        client: str = "",
        uid: str | None = None,
        groups: Sequence[str] = (),
        note: str = "",
        home: Gateway | None = None,
    ) -> None:
        """Let a gateway remember what did not reach a client: this process may be gone when somebody asks.

        It is that of the client if it can be, or else any other.
        """
        for gateway in (*((home,) if home is not None else ()), *self.gateways.values()):
            if gateway.alive and not gateway.peer.full:
                message = [op.DISCARDED, time(), self._node.name, reason, client, uid or "", list(groups), note]
                self._put(gateway, message)
                return

    def _note_commands(self, reason: str, commands: Sequence[Message], gateway: Gateway) -> None:
        for command in commands[:NOTED]:
            self.note(reason, **_concerned(command), note=f"one of {len(commands)} commands for {gateway.name}")

    def drain(self) -> None:
        """Ask all gateways for no more events."""
        for gateway in self.gateways.values():
            self._put(gateway, [op.DRAIN])

    def _put(self, gateway: Gateway, message: Message) -> None:
        peer = gateway.peer
        if gateway.late or gateway.acks:  # they come first
            self.flush()
        if not peer.out:
            self._early.append(gateway)
            self._flush_soon()
        peer.put(message, len(wire.pack(message)))

    def _flush_soon(self) -> None:
        if not self._marked:
            self._marked = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Let everything go now, not at the end of the loop's turn: first what must not be lost if the acks are not."""
        self._marked = False
        early, self._early = self._early, []
        for gateway in early:
            gateway.peer.flush()
        late, self._late = self._late, []
        for gateway in late:
            if gateway.late or gateway.acks:
                out = gateway.peer.out
                out += gateway.late
                out.append([op.ACK, *gateway.acks])
                gateway.late, gateway.acks, gateway.size = [], [], 0
                gateway.peer.flush()
                gateway.full = gateway.peer.full

    # Questions

    async def ask(self, key: str | None, ask: Ask, argument: object, merge: Callable[[Answers], T]) -> T:
        """Ask the gateway with this key, or with None all, and put their answers together.

        Raises:
            PartialAnswer: if some do not answer in time.
            QueryError: if the answer of one is too big, or too many questions wait for theirs already.
            ValueError: if it is asked about so many that the question is too big.
        """
        size([op.QUERY, argument])
        if len(self._gathers) >= MAX_QUESTIONS:
            self.counters["queries.refused"] += 1
            raise QueryError(f"{MAX_QUESTIONS} questions of this process wait for their answers already")
        asked = self.gateways if key is None else {key: self.gateways[key]} if key in self.gateways else {}
        number = next(self._numbers)
        gather = Gather({key: gateway.name for key, gateway in sorted(asked.items())})
        done = self._loop.create_future()
        gather.finished = partial(_settle, done)
        self._gathers[number] = gather
        try:
            for gateway in list(asked.values()):
                if gateway.peer.full:
                    self.counters["discarded.gateway_full"] += 1
                    self.note("discarded.gateway_full", note=f"a question to {gateway.name}")
                    gather.failed(gateway.key)
                else:
                    self._put(gateway, [op.QUERY, number, int(ask), argument])
            if not gather.complete:
                deadline = self._loop.call_later(self._timeout, gather.give_up)
                try:
                    await done
                finally:
                    deadline.cancel()
        finally:
            del self._gathers[number]
        if gather.refusals:
            raise QueryError("; ".join(gather.refusals))
        answer = merge(gather.answers)
        if gather.missing:
            self.counters["queries.partial"] += 1
            raise PartialAnswer(answer, gather.missing)
        return answer

    def answered(self, gateway: Gateway, message: Message) -> None:
        """Take an answer, or why there is none."""
        opcode, number, answer = message
        gather = self._gathers.get(number)
        if gather is None:  # it came too late
            return
        if opcode == op.ANSWER:
            gather.answered(gateway.key, answer)
        else:
            gather.refused(gateway.key, answer)

    def revoked(self, what: str, value: str, since: float, until: float) -> None:
        """Remember which tokens are revoked; if that is news, tell all gateways, should one not know it yet."""
        if self.revocations.add(what, value, since, until, time()):
            self.post([(None, [op.REVOKE, what, value, since, until])])

    # The links

    def fence(self, key: str) -> None:
        """Heed a gateway no more: it was taken for lost, and the close of its clients is told by another."""
        self._fenced[key] = None
        if len(self._fenced) > MAX_FENCED:
            del self._fenced[next(iter(self._fenced))]
        gateway = self.gateways.get(key)
        if gateway is not None and gateway.alive:
            self._turn_away(gateway.peer)
            if self._listener is not None:
                self._listener.lost(gateway)
            gateway.clients = {}

    def _turn_away(self, peer: Peer) -> None:
        peer.send([op.FENCE, peer.key])
        peer.flush()
        self.counters["gateways.fenced"] += 1

    def joined(self, peer: Peer) -> None:
        """There is a link to a gateway."""
        if peer.key in self._fenced:
            self._turn_away(peer)
        elif self._listener is not None:
            self._listener.joined(peer.owner_data)

    def received(self, peer: Peer, batch: list[Message]) -> None:
        """A batch came from a gateway."""
        if peer.key in self._fenced:
            return
        if self._listener is not None:
            self._listener.received(peer.owner_data, batch)
            return
        for message in batch:
            if message[0] in (op.ANSWER, op.NO_ANSWER):
                self.answered(peer.owner_data, message)
            elif message[0] == op.GATEWAYS:
                self.told(message[1])

    def lost(self, peer: Peer, reason: str) -> None:
        """A link is gone."""
        gateway: Gateway = peer.owner_data
        if reason == LEFT:
            _log.info("%s left", gateway)
        else:
            _log.info("lost %s: %s", gateway, reason)
            # They go first when there is a link again. All else is void with this one, as is what belongs to events of
            # this gateway's own clients: it gives them to somebody again, in their order.
            own = gateway.key
            peer.out = [message for message in peer.unsure if message[0] == op.TURN and not message[1].startswith(own)]
            peer.waiting = sum(len(wire.pack(message)) for message in peer.out)
        gateway.late, gateway.acks, gateway.size = [], [], 0
        gateway.full = False
        gateway.cut = not gateway.connector.stalled
        if self._listener is not None:
            self._listener.lost(gateway)
        gateway.clients = {}
        for gather in list(self._gathers.values()):
            if reason == LEFT:
                gather.left(gateway.key)
            else:
                gather.failed(gateway.key)
        if gateway.gone or reason == LEFT:
            self._let_go(gateway)

    def _members_changed(self, joined: list[Member], left: list[Member]) -> None:
        for member in left:
            gateway = self.gateways.get(member.key)
            if gateway is not None:
                gateway.gone = True
                if not gateway.alive:  # a link that works is kept, whatever the registers say
                    self._let_go(gateway)
        for member in joined:
            if member.role != "gateway":
                continue
            if member.key in self.gateways:
                self.gateways[member.key].gone = False
            else:
                self._meet(member)
        if self._listener is not None:
            self._listener.members_changed()

    def told(self, members: list[Any]) -> None:
        """Take a gateway's word for which gateways there are: a register that has just started may not know of all yet.

        Raises:
            LinkError: if it is something else.
        """
        for record in members:
            member = Member.read(record)
            if member.role == "gateway" and member.key not in self.gateways:
                self._meet(member)
                self._loop.call_later(HEARSAY, self._forget_if_unknown, member.key)

    def _forget_if_unknown(self, key: str) -> None:
        gateway = self.gateways.get(key)
        if gateway is not None and key not in self.agent.members:
            gateway.gone = True
            if not gateway.alive:
                self._let_go(gateway)

    def _meet(self, member: Member) -> None:
        if self._closed:  # a gateway may still tell of another one that was let go already
            return
        gateway = self.gateways[member.key] = Gateway(member.name, member.key)
        gateway.connector = Connector(self._node, self._settings, self, member.address, expect=member.key)
        gateway.peer = gateway.connector.peer
        gateway.peer.owner_data = gateway

    def _let_go(self, gateway: Gateway) -> None:
        if self.gateways.pop(gateway.key, None) is None:
            return
        self.counters.update(gateway.connector.counters)
        waiting = [command for message in gateway.peer.out if message[0] == op.TURN for command in message[3]]
        if waiting:
            self.counters["discarded.gateway_gone"] += len(waiting)
            self._note_commands("discarded.gateway_gone", waiting, gateway)
            _log.warning("commands that may not have arrived at %s: %d", gateway, len(waiting))
        for gather in list(self._gathers.values()):
            gather.failed(gateway.key)
        task = self._loop.create_task(gateway.connector.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _concerned(command: Message) -> dict[str, Any]:
    """Return which client, uid or groups a command is about, for :meth:`Hub.note`."""
    match command:
        case [op.SEND_UID, [str(uid), *_], *_]:
            return {"uid": uid}
        case [op.SEND_GROUP, list(groups), *_]:
            return {"groups": groups[:NOTED]}
        case [op.UNGROUP, str(group)]:
            return {"groups": [group]}
        case [op.SEND_ALL | op.REVOKE, *_]:
            pass
        case [op.SEND, [str(client), *_], _] | [_, str(client), *_]:
            return {"client": client}
    return {}


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():  # the asker may have been cancelled
        done.set_result(None)


def unreachable(names: Iterable[str]) -> Unreachable:
    """Return the error that names the gateways that commands could not be handed to."""
    return Unreachable(f"not sent to {', '.join(names)}: too much waits for it already")
