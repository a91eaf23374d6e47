"""The register: the leases behind a socket, and everybody told what changes.

A member learns everything from a snapshot, and from then on the changes. They are numbered, and the lane that carries them
loses nothing and keeps the order: a member is never in doubt, and has nothing to ask for.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from ..common import messages, process, wire
from ..common.errors import LinkError
from ..common.ids import new_key
from ..common.link import Acceptor, LinkSettings, Node, Peer
from ..common.observation import Observation
from .agent import link_settings
from .leases import MAX_STATS, Leases, time_to_live
from .view import Member

if TYPE_CHECKING:
    from ..common.config import Config
    from ..common.messages import Message

_log = logging.getLogger("gatecrew.register")

#: Seconds for which changes are gathered before all are told, and what each of those to be told adds to it. A cluster of n
#: processes that comes up at once so costs each a few messages, not n, and the register a fraction of its time.
GATHER: Final = 0.005
GATHER_FOR_EACH: Final = 0.0002
LOOK_EVERY: Final = 0.25  #: seconds between looks for leases that ran out


class Register:
    """One register. It remembers nothing when it ends: the members tell it everything again.

    Args:
        node: who it is.
        settings: of the links.
        address: where it listens: ``ipc://PATH`` or ``tcp://HOST:PORT``.
    """

    def __init__(self, node: Node, settings: LinkSettings, address: str) -> None:
        self.address = address  #: once started, with the port that it got
        self._node = node
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        # A register's epoch is its key: both name one run of it.
        self._leases = Leases(node.key, time_to_live(settings.dead_after), self._loop.time())
        self._acceptor: Acceptor | None = None
        self._newcomers: set[Peer] = set()  # are due a snapshot
        self._told: set[Peer] = set()  # know everything but what was not drained yet
        self._look_timer: asyncio.TimerHandle | None = None
        self._tell_timer: asyncio.TimerHandle | None = None

    async def start(self) -> str:
        """Listen.

        Raises:
            ConfigError: if the address cannot be bound.
        """
        self._acceptor = Acceptor(self._node, self._settings, self, self.address)
        self.address = self._acceptor.address
        self._look()
        return f"listening at {self.address}"

    async def stop(self) -> None:
        """Say goodbye. The members keep what they know."""
        for timer in (self._look_timer, self._tell_timer):
            if timer is not None:
                timer.cancel()
        if self._acceptor is not None:
            await self._acceptor.close()

    def joined(self, peer: Peer) -> None:
        """Tell a new peer who is there, soon."""
        self._newcomers.add(peer)
        self._tell_soon()

    def lost(self, peer: Peer, reason: str) -> None:
        """Forget the peer. If it is a member it may come back before its lease runs out."""
        _log.debug("lost %r: %s", peer, reason)
        self._newcomers.discard(peer)
        self._told.discard(peer)

    def received(self, peer: Peer, batch: list[Message]) -> None:
        """Do what a peer says.

        Raises:
            LinkError: if it is not what a member says.
        """
        for message in batch:
            self._receive(peer, message)

    def _receive(self, peer: Peer, message: Message) -> None:
        match message:
            case [messages.ANNOUNCE, *record, dict(stats)] if len(wire.pack(stats)) <= MAX_STATS:
                self._announced(peer, Member.read(record), stats)
            case [messages.LEAVING]:
                self._gone(self._leases.leave(peer.key), "left")
            case [messages.ASK_MEMBERS]:
                if peer.full:
                    raise LinkError("it asks without reading the answers")
                answer = [messages.MEMBERS, [self._report(), *self._leases.report(self._loop.time())]]
                peer.send(answer, len(wire.pack(answer)))  # it counts at once: more questions may be in the same batch
            case _:
                raise LinkError(f"message {message[0]} with {len(message) - 1} fields is nothing that a member says")

    def _announced(self, peer: Peer, member: Member, stats: dict[str, Any]) -> None:
        if (member.role, member.name, member.key) != (peer.role, peer.name, peer.key):
            raise LinkError(f"it announces {member!r}, which it is not")
        if self._leases.heartbeat(member, stats, self._loop.time()):
            _log.info("%r joined", member)
            self._tell_soon()

    def _gone(self, member: Member | None, how: str) -> None:
        if member is not None:
            _log.info("%r %s", member, how)
            self._tell_soon()

    def _look(self) -> None:
        self._look_timer = self._loop.call_later(LOOK_EVERY, self._look)
        for member in self._leases.expire(self._loop.time()):
            self._gone(member, "is gone: it is silent")
        if self._newcomers:
            self._tell_soon()

    def _tell_soon(self) -> None:
        if self._tell_timer is None:
            self._tell_timer = self._loop.call_later(GATHER + GATHER_FOR_EACH * len(self._told), self._tell)

    def _tell(self) -> None:
        self._tell_timer = None
        behind = {peer for peer in self._told if peer.full}
        self._told -= behind
        joined, left = self._leases.drain()
        if joined or left:
            change = [messages.CHANGE, self._leases.epoch, self._leases.number, joined, [member.key for member in left]]
            for peer in self._told:
                peer.send(change)
        ready = {peer for peer in self._newcomers if not peer.full}
        if ready:
            snapshot = [messages.SNAPSHOT, self._leases.epoch, self._leases.number, self._leases.members()]
            for peer in ready:
                peer.send(snapshot)
        self._told |= ready
        self._newcomers = (self._newcomers - ready) | behind  # who is behind gets everything anew, once there is room

    def observe(self) -> Observation:
        """Look at it, for Prometheus."""
        assert self._acceptor is not None, "it has started"
        links, unacked = self._acceptor.load
        counters = self._acceptor.counters
        members = len(self._leases.members())
        return Observation("", {**process.vitals(), **counters, "links": links, "unacked": unacked, "members": members})

    def _report(self) -> dict[str, Any]:
        """Return this register as one of its own members."""
        member = Member(self._node.role, self._node.name, self._node.key, self.address, {})
        return {**member._asdict(), "stats": process.vitals(), "age": 0.0}


def run(config: Config, name: str) -> int:
    """Run the register with this name (``register-1``) until it is told to stop; return the exit code."""

    def make(fail: process.Fail) -> Register:  # a register always can go on
        node = Node("register", name, new_key())
        return Register(node, link_settings(config), config.cluster.register_address(name))

    return process.run(config, "register", name, make, observe=Register.observe)
