"""The link between processes: ZeroMQ sockets on the event loop, with a lane for each peer.

An :class:`Acceptor` binds (ROUTER) and has any number of peers; a :class:`Connector` connects (DEALER) and has one. Both tell
their owner the same three things: a peer joined, a batch of messages came from it, it was lost. What is given to
:meth:`Peer.send` in one turn of the loop leaves as one batch at its end.

The ZeroMQ descriptor is edge-triggered: it is read until nothing is left, and looked at again after every send, because
sending may swallow the signal that something can be read. High-water marks are off (a ROUTER would drop at them): what
bounds a link is its lane, which its owner has to respect (:attr:`Peer.full`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeGuard, TypeVar

import zmq

from . import curve, wire
from .addresses import parse
from .errors import LinkError, ListenError, Unreachable
from .lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .messages import Message

_log = logging.getLogger("gatecrew.link")
T = TypeVar("T")

BURST: Final = 200  #: frames read before other work of the loop gets its turn
HELLO_EVERY: Final = 0.25  #: seconds
AWAY: Final = (
    0.3  #: seconds without a connection after which a peer of this machine has ended; who lives connects again at once
)
REFUSED_WAIT: Final = 5.0  #: seconds before a refused connector tries again
MAX_PEERS: Final = 10_000
MAX_WAITING: Final = 10_000  #: messages that wait for a link that is not up yet; their bytes are bounded too
MAX_NAME: Final = 512  #: characters of a role, name or key
LEFT: Final = "left"  #: the reason for which a peer is lost that said goodbye: this run of it does not come back
_REMOVED: Final = "its key is no longer in the list"
_OF_LANE: Final = frozenset((wire.DATA, wire.PROBE, wire.NACK))
# As plain numbers: enumerations cost more than the calls that they are for.
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
_DONTWAIT: Final = int(zmq.DONTWAIT)
_SNDMORE: Final = int(zmq.SNDMORE | zmq.DONTWAIT)


@dataclass(frozen=True, slots=True)
class Node:
    """Who a process is: its role, its name (stable) and its key (of this run)."""

    role: str
    name: str
    key: str


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What all links of a cluster have in common; see ``[cluster]`` in the configuration."""

    probe_interval: float = 0.5
    dead_after: float = 2.0
    lane_buffer: int = 32 * 1024 * 1024
    keys: curve.Keys | None = None  #: with them, what goes over tcp is encrypted, and only who has one takes part


class Owner(Protocol):
    """What a link tells. Any exception that is not said here is logged and ends the lane: it would not be whole any more."""

    def joined(self, peer: Peer) -> None:
        """The peer said who it is; a new lane begins. A :exc:`LinkError` raised here refuses the peer."""

    def received(self, peer: Peer, batch: list[Message]) -> None:
        """A batch came. A :exc:`LinkError` raised here refuses the peer."""

    def lost(self, peer: Peer, reason: str) -> None:
        """The lane ended. What :attr:`Peer.unsure` yields now, in the order in which it was sent, may or may not have arrived."""


class Peer:
    """The process at the other end of a link."""

    __slots__ = (
        *("_link", "away_since", "identity", "key", "lane", "marked", "name", "out"),
        *("owner_data", "public", "role", "unsure", "waiting"),
    )

    def __init__(self, link: _Link, identity: bytes) -> None:
        self._link = link
        self.identity = identity
        self.role = ""
        self.name = ""
        self.key = ""
        self.public = b""  # the public key that it proved, if it had to
        self.lane: Lane | None = None
        self.away_since: float | None = None  # when it turned out that there is no connection to it
        self.out: list[Message] = []  # this turn's batch; who flushes it itself may append to it directly
        self.waiting = 0  # bytes of that, as far as they were measured: see :meth:`put`
        self.marked = False  # whether a flush is on its way
        self.unsure: Iterator[Message] = iter(())  # while the owner is told of its loss: what may not have arrived
        self.owner_data: Any = None  # the owner's own record of this peer

    def __repr__(self) -> str:
        return f"{self.role or 'peer'} {self.name or repr(self.identity)}"

    @property
    def up(self) -> bool:
        """Whether there is a lane to the peer."""
        return self.lane is not None

    @property
    def full(self) -> bool:
        """Whether the peer is so far behind that no more should be made for it."""
        if self.lane is not None:
            return self.lane.full(self.waiting)
        return len(self.out) >= MAX_WAITING or self.waiting > self._link.settings.lane_buffer

    def send(self, message: Message, size: int = 0) -> None:
        """Put a message into this turn's batch. It must hold only what msgpack can say: see :meth:`flush`.

        Args:
            message: the message.
            size: its bytes, if they shall count for :attr:`full` before the batch leaves.

        Raises:
            Unreachable: if the link has not been up for so long that too many messages wait for it.
        """
        if self.lane is None:
            if self.full:
                raise Unreachable(f"{self!r} cannot be reached, and {len(self.out)} messages wait for it already")
            size = size or len(wire.pack(message))
        self.put(message, size)
        if not self.marked:
            self.marked = True
            self._link.mark(self)

    def put(self, message: Message, size: int) -> None:
        """Put a message of so many bytes into the batch, for an owner that flushes it itself."""
        self.out.append(message)
        self.waiting += size

    def flush(self) -> None:
        """Let the batch go now, or with no lane as soon as there is one.

        If it cannot be packed, which is a bug of whoever made it, that is logged and the lane ends.
        """
        lane = self.lane
        if lane is None or not self.out:
            return
        batch, self.out, self.waiting = self.out, [], 0
        try:
            payloads = wire.encode(batch)
        except (TypeError, ValueError, OverflowError) as error:
            _log.exception("a batch for %r cannot be packed", self)
            self._link.give_up(self, f"a batch for it cannot be packed: {error}")
            return
        now = self._link.loop.time()
        for payload in payloads:
            self._link.counters["link.bytes_sent"] += len(payload)
            self._link.transmit(self, lane.seal(payload, now))


class _Link:
    """What both kinds of link share: the socket on the loop, the flush at the end of a turn, the ticks of the lanes."""

    def __init__(self, node: Node, settings: LinkSettings, owner: Owner, kind: int, address: str) -> None:
        self.node = node
        self.settings = settings
        self.owner = owner
        self.counters: Counter[str] = Counter()
        self.loop = asyncio.get_running_loop()
        self.socket = _new_socket(self.loop, kind)
        self._keys = settings.keys if address.startswith("tcp://") else None
        self._keys_seen = self._keys.version if self._keys is not None else 0
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 50)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        patience = int(settings.dead_after * 1000)  # a host that vanished closes no connection
        self.socket.setsockopt(zmq.HEARTBEAT_IVL, patience)
        self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, patience)
        self.socket.setsockopt(zmq.IPV6, "[" in address)  # with it, IPv4 addresses are told in a form of IPv6
        self._get: Callable[[int], Any] = self.socket.getsockopt
        self._marked: list[Peer] = []
        self._will_read = False
        self._tick_every = settings.probe_interval / 5
        self._ticked = self.loop.time()
        self._stalled_at = -inf
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def _start(self) -> None:
        self.loop.add_reader(self.socket.FD, self._readable)
        self._timer = self.loop.call_later(self._tick_every, self._on_tick)
        self.loop.call_soon(self._readable)  # what came before the descriptor was watched raised no edge

    def mark(self, peer: Peer) -> None:
        if not self._marked:
            self.loop.call_soon(self._flush)
        self._marked.append(peer)

    def _flush(self) -> None:
        marked, self._marked = self._marked, []
        for peer in marked:
            peer.marked = False
            peer.flush()

    def transmit(self, peer: Peer, frame: bytes) -> None:
        """Hand one frame to ZeroMQ."""
        raise NotImplementedError

    def _sent(self) -> None:
        if not self._will_read and self._get(_EVENTS) & _POLLIN:
            self._read_soon()

    def _read_soon(self) -> None:
        self._will_read = True
        self.loop.call_soon(self._readable)

    def _readable(self) -> None:
        self._will_read = False
        for _ in range(BURST):
            if self._closed or not self._get(_EVENTS) & _POLLIN:
                return
            self._read_one()
        self._read_soon()

    def _read_one(self) -> None:
        raise NotImplementedError

    def _frame_of_lane(self, peer: Peer, lane: Lane, head: tuple[int, int, int, int], frame: bytes) -> None:
        """Handle a frame that belongs to the present lane of the peer."""
        kind, _, seq, ack = head
        if kind in _OF_LANE:
            deliver, answers = lane.take(kind, seq, ack, self.loop.time())
            for answer in answers:
                self.transmit(peer, answer)
            if deliver:
                self.counters["link.bytes_received"] += len(frame)
                self._tell(self.owner.received, peer, wire.decode(frame))
            elif kind == wire.NACK:
                self.counters["lane.gaps"] += 1
        elif kind == wire.BYE:
            self._lose(peer, LEFT)
        elif kind == wire.RESET:
            self._lose(peer, "the other end knows nothing of this lane any more")
        else:
            raise LinkError(f"a frame of kind {kind} where none is due")

    def _on_tick(self) -> None:
        self._timer = self.loop.call_later(self._tick_every, self._on_tick)
        now = self.loop.time()
        late = now - self._ticked - self._tick_every
        self._ticked = now
        stalled = late > self.settings.probe_interval
        if stalled:
            self._stalled_at = now
        for peer in self._peers():
            lane = peer.lane
            if lane is None:
                continue
            if stalled:
                lane.forgive(late, now)
            if lane.dead(now):
                self.counters["link.silent"] += 1
                self._lose(peer, f"silent for {self.settings.dead_after:g} s")
                continue
            due = lane.tick(now)
            if due is not None:
                self.transmit(peer, due)
        if self._keys is not None:
            self._keys.look(now)
            if self._keys.version != self._keys_seen:
                self._keys_seen = self._keys.version
                self._keys_changed(self._keys)
        self._tick(now)

    @property
    def stalled(self) -> bool:
        """Whether this process itself did not listen for a while just now: it was stopped, or busy in a handler."""
        now = self.loop.time()
        settings = self.settings
        since = now - self._ticked - self._tick_every
        return since > settings.probe_interval or now - self._stalled_at < settings.dead_after

    @property
    def load(self) -> tuple[int, int]:
        """How many peers there are a lane to, and the bytes that they have not acknowledged."""
        lanes = [peer.lane for peer in self._peers() if peer.lane is not None]
        return len(lanes), sum(lane.unacked_bytes for lane in lanes)

    def _keys_changed(self, keys: curve.Keys) -> None:
        """Part from who may no longer take part."""
        raise NotImplementedError

    def _tick(self, now: float) -> None:
        """Do what else is due."""

    def _peers(self) -> list[Peer]:
        raise NotImplementedError

    def _lose(self, peer: Peer, reason: str) -> None:
        """End the lane and tell the owner."""
        peer.unsure = _unsure(peer.lane.unacked if peer.lane is not None else (), peer.out)
        peer.lane = None
        peer.out, peer.waiting = [], 0
        self.counters["link.lost"] += 1
        self._tell(self.owner.lost, peer, reason)
        peer.unsure = iter(())

    def _tell(self, what: Callable[..., None], peer: Peer, *args: Any) -> None:
        """Tell the owner. If it fails, the other peers must not notice, and this one must not go on as if it had not."""
        try:
            what(peer, *args)
        except LinkError:
            raise
        except Exception:  # noqa: BLE001  # whatever the owner does wrong
            _log.exception("%s failed for %r", what.__qualname__, peer)
            self.give_up(peer, "an error in handling what it sent")

    def give_up(self, peer: Peer, reason: str) -> None:
        """End the lane from this side, and let the other end know."""
        if peer.lane is not None:
            self.transmit(peer, wire.frame(wire.RESET, peer.lane.id))
            self._lose(peer, reason)

    def _new_lane(self, lane_id: int) -> Lane:
        settings = self.settings
        return Lane(
            lane_id,
            self.loop.time(),
            interval=settings.probe_interval,
            dead_after=settings.dead_after,
            limit=settings.lane_buffer,
        )

    def _greeting(self) -> bytes:
        node = self.node
        return wire.pack({"role": node.role, "name": node.name, "key": node.key})

    def _read_greeting(self, peer: Peer, frame: bytes) -> None:
        """Take over who the peer says it is, so that it can be named also when it is refused.

        Raises:
            LinkError: if it does not say so properly.
        """
        greeting = wire.decode_map(frame)
        role, name, key = (greeting.get(field) for field in ("role", "name", "key"))
        if not (_is_name(role) and _is_name(name) and _is_name(key)):
            raise LinkError("a greeting without a proper role, name and key")
        peer.role, peer.name, peer.key = role, name, key

    async def close(self) -> None:
        """Say goodbye to every peer and close the socket; what was sent before still leaves."""
        if self._closed:
            return
        self._flush()
        for peer in self._peers():
            if peer.lane is not None:
                self.transmit(peer, wire.frame(wire.BYE, peer.lane.id))
                peer.lane = None
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.loop.remove_reader(self.socket.FD)
        self.socket.close(linger=200)


class Acceptor(_Link):
    """The end that binds.

    Args:
        address: ``ipc://PATH``, ``tcp://HOST:PORT``, or ``tcp://HOST:FIRST-LAST`` for the first free port of a range.

    Raises:
        ListenError: if the address cannot be bound.
    """

    def __init__(self, node: Node, settings: LinkSettings, owner: Owner, address: str) -> None:
        super().__init__(node, settings, owner, zmq.ROUTER, address)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a peer that reconnects takes over its own identity
        self._by_identity: dict[bytes, Peer] = {}
        self._ended: dict[bytes, int] = {}  # by identity: the last lane that ended; a HELLO for it comes too late
        self._refused: dict[bytes, None] = {}  # identities; named in the log once, not every time that they try
        self._send = self.socket.send
        self._guard = curve.Guard(self.loop, self.socket, self._keys, self._turned_away) if self._keys else None
        try:
            self.address = self._bind(address)
        except ListenError:
            self.socket.close()
            if self._guard is not None:
                self._guard.close()
            raise
        self._file = _file_of(self.address)
        self._start()

    def _bind(self, address: str) -> str:
        ports: list[str] = [""]
        host = address
        if address.startswith("tcp://"):
            if self._keys is not None and self._keys.public not in self._keys.of(_host_of(address)):
                raise ListenError(
                    f"cannot bind {address}: {self._keys.file} has no line of this host with the key of this process"
                )
            host, _, span = address.rpartition(":")
            bounds = span.split("-")
            ports = [f":{span}"]
            if len(bounds) == 2:
                ports = [f":{port}" for port in range(int(bounds[0]), int(bounds[1]) + 1)]
        elif _listening(address.removeprefix("ipc://")):  # ZeroMQ would take the socket from whoever has it
            raise ListenError(f"cannot bind {address}: another process listens there")
        error: zmq.ZMQError | None = None
        for port in ports:
            try:
                self.socket.bind(host + port)
            except zmq.ZMQError as problem:
                error = problem
                continue
            bound: str = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
            # a name stays one: it is what the list of keys has, and who connects looks it up anew each time
            return f"{host}:{bound.rpartition(':')[2]}" if ports != [""] else bound
        raise ListenError(f"cannot bind {address}: {error.strerror if error is not None else 'no port'}")

    async def close(self) -> None:
        """Say goodbye and close; the file of an ipc socket goes too, which ZeroMQ leaves behind."""
        if self._closed:
            return
        await super().close()
        if self._guard is not None:
            self._guard.close()
        if self._file is not None and self._file == _file_of(self.address):  # not that of another that bound since
            Path(self.address.removeprefix("ipc://")).unlink(missing_ok=True)  # noqa: ASYNC240  # a local file

    def _peers(self) -> list[Peer]:
        return list(self._by_identity.values())

    def transmit(self, peer: Peer, frame: bytes) -> None:
        """Hand one frame to ZeroMQ; to a peer that is away it is lost, and the lane sends it again."""
        if self._transmit_to(peer.identity, frame):
            peer.away_since = None
        elif peer.away_since is None:
            peer.away_since = self.loop.time()

    def _transmit_to(self, identity: bytes, frame: bytes) -> bool:
        try:
            self._send(identity, _SNDMORE)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            self.counters["link.unroutable"] += 1
            return False
        self._send(frame, _DONTWAIT)
        self._sent()
        return True

    def _tick(self, now: float) -> None:
        """Part from peers of this machine whose connection broke: then they ended, and need not be waited for."""
        if self._file is None:
            return
        for peer in self._peers():
            if peer.away_since is None or peer.lane is None:
                continue
            if self._transmit_to(peer.identity, peer.lane.probe(now)):
                peer.away_since = None
            elif now - peer.away_since > AWAY:
                self.counters["link.broken"] += 1
                self._lose(peer, "its connection broke")

    def _read_one(self) -> None:
        recv = self.socket.recv
        first = recv(_DONTWAIT, copy=False)
        part = recv(_DONTWAIT, copy=False)
        identity, frame, rest = first.bytes, part.bytes, part.more
        while rest:  # not ours; read it off, or it would be taken for the next frame
            frame = b""
            rest = recv(_DONTWAIT, copy=False).more
        peer = self._by_identity.get(identity) or Peer(self, identity)
        try:
            head = wire.read(frame)
            kind, lane_id, _, _ = head
            lane = peer.lane if peer.lane is not None and peer.lane.id == lane_id else None
            if kind == wire.HELLO:
                if lane is not None or self._ended.get(identity) == lane_id:  # our answer to the first one got lost
                    self._answer(identity, wire.RESET if lane is None else wire.WELCOME, lane_id)
                else:
                    peer = Peer(self, identity)  # not yet the one that may be known
                    if self._keys is not None:
                        peer.public = curve.user(part)
                    self._hello(peer, lane_id, frame)
            elif lane is None:
                if kind not in (wire.RESET, wire.BYE, wire.REFUSE):
                    self._answer(identity, wire.RESET, lane_id)
            elif kind == wire.REFUSE:
                _log.warning("%r refuses us: %s", peer, wire.text(frame))
                self._lose(peer, "it refuses us")
            else:
                self._frame_of_lane(peer, lane, head, frame)
        except LinkError as error:
            self._refuse(peer, str(error), part)

    def _hello(self, peer: Peer, lane_id: int, frame: bytes) -> None:
        identity = peer.identity
        self._read_greeting(peer, frame)
        if self._keys is not None and self._keys.host(peer.public) is None:  # it came in before that was so
            raise LinkError(_REMOVED)
        known = self._by_identity.get(identity)
        if known is not None:
            self._lose(known, "it started a new lane")
        elif len(self._by_identity) >= MAX_PEERS:
            raise LinkError(f"there are {MAX_PEERS} peers already")
        peer.lane = self._new_lane(lane_id)
        self._by_identity[identity] = peer
        self._refused.pop(identity, None)
        self._answer(identity, wire.WELCOME, lane_id)
        self._tell(self.owner.joined, peer)

    def _answer(self, identity: bytes, kind: int, lane_id: int) -> None:
        payload = self._greeting() if kind == wire.WELCOME else b""
        self._transmit_to(identity, wire.frame(kind, lane_id, payload=payload))

    def _refuse(self, peer: Peer, why: str, part: zmq.Frame) -> None:
        self._warn(peer.identity, f"{peer!r} ({_origin(part)}): {why}")
        self._dismiss(peer, why)

    def _warn(self, who: bytes, why: str) -> None:
        self.counters["link.refused"] += 1
        if who not in self._refused:
            _remember(self._refused, who, None)
            _log.warning("refused %s", why)

    def _turned_away(self, public: bytes, address: str) -> None:
        assert self._keys is not None, "there is a guard"
        self._warn(public, f"{address}: its key {public.hex()} is not in {self._keys.file}")

    def _keys_changed(self, keys: curve.Keys) -> None:
        self._refused.clear()
        for peer in self._peers():
            if keys.host(peer.public) is None:
                self._warn(peer.identity, f"{peer!r}: {_REMOVED}")
                self._dismiss(peer, _REMOVED)

    def _dismiss(self, peer: Peer, why: str) -> None:
        self._transmit_to(peer.identity, wire.frame(wire.REFUSE, 0, payload=why.encode()))
        if peer.lane is not None:
            self._lose(peer, why)

    def _lose(self, peer: Peer, reason: str) -> None:
        assert peer.lane is not None  # else it would not be among the peers
        del self._by_identity[peer.identity]
        _remember(self._ended, peer.identity, peer.lane.id)
        super()._lose(peer, reason)


class Connector(_Link):
    """The end that connects, and goes on trying.

    Args:
        address: ``ipc://PATH`` or ``tcp://HOST:PORT``.
        expect: the key of the process that should be there; another one is not talked to.
    """

    def __init__(
        self, node: Node, settings: LinkSettings, owner: Owner, address: str, expect: str | None = None
    ) -> None:
        super().__init__(node, settings, owner, zmq.DEALER, address)
        self.address = address
        self.peer = Peer(self, node.key.encode())
        self._expect = expect
        self._lane_id = secrets.randbits(32)
        self._hello_at = 0.0
        self._refused = ""
        self._renew_at = 0.0  # when this connection has had time enough to bring an answer
        self._server = b""  # the public key that must be there
        self._failures = curve.Failures(self.loop, self.socket, self._failed) if self._keys else None
        self.socket.setsockopt(zmq.IDENTITY, node.key.encode())
        self._send = self.socket.send
        self._start()
        self._hello()

    def _peers(self) -> list[Peer]:
        return [self.peer]

    def transmit(self, peer: Peer, frame: bytes) -> None:
        """Hand one frame to ZeroMQ, which keeps it until there is a connection."""
        try:
            self._send(frame, _DONTWAIT)
        except zmq.Again:  # the address is none
            self.counters["link.unroutable"] += 1
            return
        self._sent()

    def _connect(self) -> None:
        """Connect, or connect anew: what waits inside ZeroMQ for a connection that brings no answer must not pile up."""
        self._renew_at = self.loop.time() + self.settings.dead_after
        with suppress(zmq.ZMQError):  # at first there is nothing to disconnect
            self.socket.disconnect(self.address)
        if self._keys is not None and not self._choose_key(self._keys):
            return
        try:
            self.socket.connect(self.address)
        except zmq.ZMQError as error:  # what a member announced is no address
            self._stay_away(error.strerror)

    def _choose_key(self, keys: curve.Keys) -> bool:
        """Say which key has to be there: of several of the host, the next one each time."""
        known = keys.of(_host_of(self.address))
        if not known:
            self._stay_away(f"{keys.file} has no key of this host")
            return False
        self._server = known[(known.index(self._server) + 1) % len(known) if self._server in known else 0]
        keys.dial(self.socket, self._server)
        return True

    def _failed(self, ours: bool) -> None:
        """A connection came to nothing, because of our key or theirs."""
        if self.peer.lane is not None:
            return  # a new one goes on with the lane: it will be tried again
        assert self._keys is not None
        if ours:
            self._stay_away("it refuses the key of this process: add its line to the list there")
            return
        if len(self._keys.of(_host_of(self.address))) > 1:
            self._renew_at = 0.0  # with the next one
        if not self._refused:  # else it may be what follows from that
            self._complain("it does not prove to have the key that the list has for this host")

    def _keys_changed(self, keys: curve.Keys) -> None:
        if self._server and self._server not in keys.of(_host_of(self.address)):
            self._stay_away(_REMOVED)
            self._renew_at = 0.0
            with suppress(zmq.ZMQError):
                self.socket.disconnect(self.address)

    async def close(self) -> None:
        """Say goodbye and close."""
        if not self._closed and self._failures is not None:
            self._failures.close()
        await super().close()

    def _hello(self) -> None:
        now = self.loop.time()
        # not all at the same time, when the other end comes back
        self._hello_at = now + HELLO_EVERY * (0.75 + secrets.randbelow(500) / 1000)
        if now >= self._renew_at:
            self._connect()
        greeting = self._greeting()
        self.transmit(self.peer, wire.frame(wire.HELLO, self._lane_id, payload=greeting))

    def _tick(self, now: float) -> None:
        if self.peer.lane is None and now >= self._hello_at:
            self._hello()

    def _read_one(self) -> None:
        part = self.socket.recv(_DONTWAIT, copy=False)
        frame, rest = part.bytes, part.more
        while rest:
            frame = b""
            rest = self.socket.recv(_DONTWAIT, copy=False).more
        peer = self.peer
        try:
            head = wire.read(frame)
            kind, lane_id, _, _ = head
            if kind == wire.REFUSE:
                self._stay_away(f"it refuses us: {wire.text(frame)}")
            elif lane_id != self._lane_id:
                pass  # of a lane that is over
            elif peer.lane is not None:
                if kind != wire.WELCOME:
                    self._frame_of_lane(peer, peer.lane, head, frame)
            elif kind == wire.WELCOME:
                self._welcomed(frame)
            elif kind == wire.RESET:  # the lane ended there before we heard of its beginning
                self._lane_id = secrets.randbits(32)
        except LinkError as error:
            if peer.lane is not None:  # never answer a refusal, not even one that cannot be read
                self.transmit(peer, wire.frame(wire.REFUSE, peer.lane.id, payload=str(error).encode()))
            self._stay_away(str(error))

    def _welcomed(self, frame: bytes) -> None:
        peer = self.peer
        try:
            self._read_greeting(peer, frame)
            if self._expect is not None and peer.key != self._expect:  # the registers will say where it is
                raise LinkError(f"{peer!r} has this address now")
        except LinkError:
            self.transmit(peer, wire.frame(wire.BYE, self._lane_id))  # there, the lane has begun
            raise
        self._refused = ""
        peer.lane = self._new_lane(self._lane_id)
        self._tell(self.owner.joined, peer)
        peer.flush()

    def _stay_away(self, why: str) -> None:
        self._lane_id = secrets.randbits(32)
        self._hello_at = self.loop.time() + REFUSED_WAIT
        self._renew_at = self._hello_at + self.settings.dead_after
        self._complain(why)
        if self.peer.lane is not None:
            self._lose(self.peer, why)

    def _complain(self, why: str) -> None:
        if why != self._refused:  # once, not every few seconds
            self._refused = why
            self.counters["link.refused"] += 1
            _log.warning("no link to %s: %s", self.address, why)

    def _lose(self, peer: Peer, reason: str) -> None:
        self._lane_id = secrets.randbits(32)
        super()._lose(peer, reason)
        self._hello_at = max(self._hello_at, self.loop.time() + self._tick_every)


def _host_of(address: str) -> str:
    """Return the host of ``tcp://host:port``, as the list of keys names it."""
    try:
        return parse(address, "tcp", ports=True).host
    except ValueError:  # what a member announced is no address
        return ""


def _new_socket(loop: asyncio.AbstractEventLoop, kind: int) -> zmq.Socket[bytes]:
    """Return a socket of this kind; a loop that simulates the network gives one of its own."""
    make: Callable[[int], zmq.Socket[bytes]] = getattr(loop, "zmq_socket", zmq.Context.instance().socket)
    return make(kind)


def _unsure(frames: Iterable[bytes], waiting: list[Message]) -> Iterator[Message]:
    for frame in frames:
        yield from wire.decode(frame)
    yield from waiting


def _is_name(value: object) -> TypeGuard[str]:
    """Return whether this may stand in a log as it is."""
    return type(value) is str and 0 < len(value) <= MAX_NAME and value.isprintable()


def _remember(table: dict[bytes, T], identity: bytes, value: T) -> None:
    """Put something at the end of a table that forgets what was put there first."""
    table.pop(identity, None)
    table[identity] = value
    if len(table) > MAX_PEERS:
        del table[next(iter(table))]


def _origin(part: zmq.Frame) -> str:
    """Return the address, or for ipc the process, that a frame comes from."""
    try:
        address = str(part.get("Peer-Address"))
    except zmq.ZMQError:  # the system does not tell
        return "ipc"
    host, _, pid = address.rpartition(":")
    return f"pid {pid}" if host.startswith("localhost:") else address  # localhost:uid:gid:pid


def _file_of(address: str) -> tuple[int, int] | None:
    """Return what identifies the file of an ipc socket, if there is one."""
    try:
        found = Path(address.removeprefix("ipc://")).stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _listening(path: str) -> bool:
    """Return whether a process listens on this unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except TimeoutError:  # it has no time to take another connection
            return True
        except OSError:
            return False
    return True
