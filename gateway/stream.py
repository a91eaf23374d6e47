"""The socket of one client, whatever it speaks: how it comes, its pace, its deadlines, and how it leaves.

A connection goes one way through three phases: *opening*, *open*, and *leaving*. It leaves when it is closed from either
side, when something failed, or when the peer is gone. From that moment its owner hears nothing of it and it sends nothing
more, while it waits at most ``close_timeout`` for the peer to hang up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from abc import ABC, abstractmethod
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from ..common import reasons
from .admission import RETRY_AFTER, UNDECIDED
from .keepalive import UNSET, KeepAlive, Wheel
from .limits import Crowd, Idle, Pace, Rates
from .proxy import Trusted

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from ..common.config import GatewayConfig
    from ..common.reasons import Reason
    from .arrival import Arrival
    from .handshake import Handshake
    from .tls import Certificates

_log = logging.getLogger(__name__)

_NOBODY: Final = object()  # the client of a connection that has none yet
#: One read brings up to 256 KiB, which may be 40,000 messages. More than so many bytes are taken in pieces, and after one
#: with more than so many frames it is the others' turn.
_PIECE: Final = 16384
_FRAMES: Final = 256


class Owner(Protocol):
    """Whoever the clients belong to: the rules of a gateway, or a recorder in a test. A client may be any object."""

    def arrived(self, connection: Stream, handshake: Handshake, /) -> Any:
        """Return None if the client may come, or else what it is called while it has to wait for ``connection.admit``."""

    def gave_up(self, arrival: Any, /) -> None:
        """Forget a client that had to wait and is gone, or waited for too long."""

    def opened(self, connection: Stream, handshake: Handshake, arrival: Any, /) -> Any:
        """Return the client for a connection that was just accepted; ``arrival`` is what it was called before, if it waited."""

    def received(self, client: Any, data: str | bytes, /) -> None:
        """Take one message of a client."""

    def closed(self, client: Any, code: int, reason: str, /) -> None:
        """Take note that a client is leaving or gone. Called once for each client, and nothing of it comes after."""


class Connected(Protocol):
    """A socket that is connected, in whatever phase."""

    slot: int  #: of the wheel

    @property
    def staying(self) -> bool:
        """Whether it is open, or about to open."""

    def shut(self, reason: Reason, /) -> None:
        """Close it for one of the reasons of the gateway."""

    def abort(self) -> None:
        """Cut it at once."""

    def due(self) -> None:
        """Do what the wheel's time has come for."""


#: Why somebody was cut off, for the log.
_CROWDED: Final = {
    "no_room": "there are %d, as many as there may be; raise [gateway] max_connections, or the limit of open files "
    "(ulimit -n); it came from %s",
    "address_full": "there may be %d, but not so many from %s; see [gateway] address_connections",
    "address_rate": "there may be %d, but not so many new ones from %s; see [gateway] address_rate",
}


class Shared:
    """What all connections of one gateway have in common.

    Args:
        config: the ``[gateway]`` section.
        configs: the same, as it is for each entrance.
        owner: gets the clients.
        counters: what happens is counted there.
        now: returns seconds.
        room: connections that there may be.
    """

    def __init__(
        self,
        config: GatewayConfig,
        configs: Sequence[GatewayConfig],
        owner: Owner,
        counters: Counter[str],
        now: Callable[[], float],
        *,
        room: int,
    ) -> None:
        self.owner = owner
        self.counters = counters
        self.now = now
        self.close_timeout = max(one.close_timeout for one in configs)
        self.crowd = Crowd(room, config.address_connections, config.address_rate)
        shortest = min(
            min(one.open_timeout, one.handshake_timeout, one.close_timeout, one.ping_interval or one.open_timeout)
            for one in configs
        )
        self.wheel: Wheel[Connected | _Look] = Wheel(min(0.1, shortest / 4))
        self.connections: set[Connected] = set()
        self.accepting = True
        self.received = owner.received  # bound once, not for each connection
        self.chance = random.random
        self.emptied: Callable[[], None] | None = None  # called when the last connection is gone

    def come(self, address: str) -> bool:
        """Return whether there is a place for one more from this address. If so, it has to ``crowd.go``."""
        why = self.crowd.come(address, self.now())
        if why:
            self.counters["handshake." + why] += 1
            if self.counters["handshake." + why] == 1:
                _log.error("a connection is cut off: " + _CROWDED[why], self.crowd.room, address)
        return not why

    def discard(self, connection: Connected) -> None:
        """Forget a connection that is gone."""
        self.wheel.cancel(connection)
        self.connections.discard(connection)
        if not self.connections and self.emptied is not None:
            self.emptied()


class Entrance(ABC):
    """What all connections that come in at one URL have in common.

    Args:
        shared: with all other entrances.
        config: the ``[gateway]`` section, as it is for this one.
        url: where it is, for handlers.
        ping: what is written as a ping.
    """

    def __init__(self, shared: Shared, config: GatewayConfig, url: str, ping: bytes = b"") -> None:
        self.shared = shared
        self.config = config
        self.url = url
        self.rates = Rates(config.message_rate, config.byte_rate, config.rate_patience)
        self.grain = self.rates.grain
        self.idle = Idle(config.idle_timeout)
        self.keepalive = KeepAlive(config.ping_interval, config.missed_pongs, ping)
        self.trusted = Trusted(config.trusted_proxies)
        self.certificates: Certificates | None = None  #: for TLS

    @abstractmethod
    def connection(self) -> Stream:
        """Return the protocol for one more connection."""

    def welcome(self, remote: str) -> str | None:
        """Return as which address a new connection counts; None if there is no place for it, or for nobody any more."""
        host = host_of(remote)
        address = "" if host in self.trusted else host  # a proxy is not one client
        # who was in the queue when the listener stopped comes in vain
        return address if self.shared.accepting and self.shared.come(address) else None


class _Look:
    """The looks at one connection that tell whether it is idle."""

    __slots__ = ("_connection", "_heard", "_looks", "slot")

    def __init__(self, connection: Stream) -> None:
        self._connection = connection
        self._heard = connection.heard
        self._looks = 0
        self.slot = UNSET

    def due(self) -> None:
        """Look at it, if it is still there."""
        connection = self._connection
        heard, self._heard = self._heard, connection.heard
        if not connection.open:
            return
        looks = connection.entrance.idle.next(self._looks, heard=heard != connection.heard)
        if looks is None:
            connection.shut(reasons.IDLE)
        else:
            self._looks = looks
            self.again()

    def again(self) -> None:
        """Look at it after a while."""
        entrance = self._connection.entrance
        entrance.shared.wheel.set(self, entrance.shared.now() + entrance.idle.interval)


class _Waiting(NamedTuple):
    """A client whose handshake somebody has to decide on."""

    arrival: Any
    handshake: Handshake


def _ignore(data: bytes) -> None:
    """Write nothing: the client is leaving."""


class Stream(asyncio.Protocol, ABC):
    """One client's socket, and what its owner may do with it. After the client left, all of that does nothing."""

    __slots__ = (
        "_address",
        "_backlog",
        "_credit",
        "_held",
        "_opening",
        "_pace",
        "_paid",
        "_paused",
        "_received",
        "_shared",
        "_transport",
        "_unanswered",
        "_unsent",
        "_waiting",
        "arrival",
        "client",
        "entrance",
        "heard",
        "open",
        "plain",
        "remote",
        "slot",
        "write",
    )

    arrival: Arrival | None  #: as what it came, until now
    client: Any  #: what the owner gave for it
    heard: int  #: messages so far
    open: bool
    #: Whether a frame of :func:`~.frames.encode` may be written as it is: it is a WebSocket without extensions.
    plain: bool
    remote: str  #: ``192.0.2.7:5000`` or ``[2001:db8::1]:5000``; empty if it has no address
    #: Writes prepared bytes. This is the transport's own method as long as little is waiting to be sent.
    write: Callable[[bytes], None]
    slot: int

    def __init__(self, entrance: Entrance) -> None:
        self.entrance = entrance
        self._shared = entrance.shared
        self.arrival = None
        self._address: str | None = None  # where it is, while it counts in the crowd
        self._received = entrance.shared.received
        self._opening: Any = None  # what is there as long as it opens
        self._waiting: _Waiting | None = None
        self._transport: asyncio.Transport
        self._paused = False  # by its owner
        self._held: asyncio.Handle | None = None  # what will end it, if it is not read for a while
        self._backlog = b""  # what was read, and waits
        self.heard = 0
        self._credit = entrance.grain  # bytes until it is to be seen whether it is too fast
        self._pace = Pace(entrance.rates)
        self._paid = 0  # frames that the pace knows of
        self._unanswered = 0  # pings
        self._unsent = 0  # bytes of a last answer, when they were last looked at
        self.client = _NOBODY
        self.open = False
        self.plain = False
        self.remote = ""
        self.slot = UNSET
        self.write = _ignore

    @property
    def staying(self) -> bool:
        """Whether it is open, or about to open."""
        return self.open or self._opening is not None

    @property
    def unsent(self) -> int:
        """How many bytes wait for the client to read."""
        return self._transport.get_write_buffer_size()

    # What the owner calls

    @abstractmethod
    def send(self, data: str | bytes) -> None:
        """Send one message."""

    @abstractmethod
    def admit(self, subprotocol: str | None) -> None:
        """Open it: it waited for that."""

    @abstractmethod
    def refuse(self, status: int, why: str, retry_after: int | None = None, cause: str = "denied") -> None:
        """Do not open it: say so by an HTTP status and a reason, if it understands that."""

    def close(self, code: int, reason: str) -> None:
        """Close it on somebody's command, when all is sent."""
        self._close("command", code, reason)

    def shut(self, reason: Reason) -> None:
        """Close it for one of the reasons of the gateway, when all is sent; at once if it is still opening."""
        if self._opening is not None:
            self._transport.abort()
        else:
            self._close(reason.name, reason.code, reason.text)

    def abort(self) -> None:
        """Cut the connection at once."""
        self._abort("destroy", 1006, "")

    def pause(self) -> None:
        """Stop reading from the socket; what was read already is still delivered."""
        if self.open and not self._paused:
            self._paused = True
            if self._held is None and not self._transport.is_closing():
                self._transport.pause_reading()

    def resume(self) -> None:
        """Go on reading from the socket."""
        if self._paused:
            self._paused = False
            if self._held is None:
                self._read_on()

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        shared = self._shared
        self._transport = cast("asyncio.Transport", transport)
        arrival, self.arrival = self.arrival, None
        if arrival is not None:
            self.remote, self._address, deadline = arrival.hand_over(self)
            self._begin(deadline)
            return
        shared.connections.add(self)
        self.remote = shown(transport.get_extra_info("peername"))
        self._address = self.entrance.welcome(self.remote)
        if self._address is None:
            self._transport.abort()
        else:
            self._begin(shared.now() + self.entrance.config.open_timeout)

    def data_received(self, data: bytes) -> None:
        """Take what was read."""
        self._unanswered = 0
        try:
            if not self.open:
                self._take_closed(data)
            elif len(data) > _PIECE:
                self._take_in_pieces(data)
            else:
                self._take(data)
        except Exception:  # noqa: BLE001  (a bug; what was read may be lost, and the client must come to know)
            _log.exception("a client is cut off because the gateway failed")
            self._abort(*reasons.INTERNAL_ERROR)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the socket."""
        if self.open:
            self._leave(1006, "")
        self._give_up_waiting()
        self._opening = None
        self.write = _ignore
        if self._address is not None:
            self._shared.crowd.go(self._address)
        if self._held is not None:
            self._held.cancel()
        self._shared.discard(self)

    def pause_writing(self) -> None:
        """Look at each write from now on: a quarter of ``client_buffer`` is waiting."""
        if self.open:
            self.write = self._write_and_look
            self._look()

    def resume_writing(self) -> None:
        """Write without looking again."""
        if self.open:
            self.write = self._transport.write

    def due(self) -> None:
        """Do what the wheel's time has come for: give up opening, ping, or stop waiting for the peer to hang up."""
        if self.open:
            self._ping()
        elif self._waiting is not None:
            self._give_up_waiting()
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "nobody decided in time", RETRY_AFTER, UNDECIDED)
        elif self._opening is not None:
            self._shared.counters["closed." + reasons.OPEN_TIMEOUT.name] += 1
            self._open_timeout()
        else:
            self._give_up()

    # What each kind of connection does in its own way

    @abstractmethod
    def _close(self, name: str, code: int, reason: str) -> None:
        """Close it, when all is sent, if it is open: it is counted by this name."""

    @property
    @abstractmethod
    def _frames(self) -> int:
        """How many messages, pings and the like came so far."""

    @abstractmethod
    def _take(self, data: bytes) -> None:
        """Take what was read while it is open: count and deliver the messages, and lower the credit."""

    @abstractmethod
    def _take_closed(self, data: bytes) -> None:
        """Take what was read while it is not open."""

    @abstractmethod
    def _accept(self, handshake: Handshake, arrival: Any) -> None:
        """Open it."""

    @abstractmethod
    def _open_timeout(self) -> None:
        """It took too long to open."""

    # Opening

    def _begin(self, deadline: float) -> None:
        """Get ready to open until the deadline."""
        self._transport.set_write_buffer_limits(high=self.entrance.config.client_buffer // 4)
        self._shared.wheel.set(self, deadline)

    def _move(self, remote: str) -> bool:
        """Count it where it is and not where its proxy is; return whether there is a place for it."""
        if self._address is not None:
            self._shared.crowd.go(self._address)
            self._address = None
        self.remote = remote
        if self._shared.come(host_of(remote)):
            self._address = host_of(remote)
        return self._address is not None

    def _ask(self, handshake: Handshake) -> None:
        """Ask the owner whether it may come."""
        shared = self._shared
        arrival = shared.owner.arrived(self, handshake)
        if arrival is None:
            self._accept(handshake, None)
        elif self._opening is not None:  # else it was refused at once
            self._waiting = _Waiting(arrival, handshake)
            shared.wheel.set(self, shared.now() + self.entrance.config.handshake_timeout)

    def _give_up_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._shared.owner.gave_up(waiting.arrival)

    def _count_refusal(self, status: int, cause: str) -> None:
        self._shared.counters["handshake.refused"] += 1
        if cause:
            self._shared.counters[f"handshake.{cause}"] += 1
        _log.debug("refused the handshake of %s: %d", self.remote, status)

    def _enter(self, handshake: Handshake, arrival: Any) -> None:
        """Be open, with a client."""
        shared = self._shared
        keepalive = self.entrance.keepalive
        if keepalive.interval:
            shared.wheel.set(self, shared.now() + keepalive.first(shared.chance()))
        else:
            shared.wheel.cancel(self)
        if self.entrance.idle.seconds:
            _Look(self).again()
        client = shared.owner.opened(self, handshake, arrival)
        early, self.client = self.client, client
        if not self.open:  # closed while it was opened, and nobody could be told yet
            shared.owner.closed(client, *early)

    # Open

    def _take_in_pieces(self, data: bytes) -> None:
        """Take what was read as far as it is to be taken now."""
        frames = self._frames
        for at in range(0, len(data), _PIECE):
            if not self.open or self._held is not None or self._paused:
                self._backlog = data[at:]
                break
            if self._frames - frames > _FRAMES:
                self._backlog = data[at:]
                self._hold(0, self._release)
                break
            self._take(data[at : at + _PIECE])
        if self._backlog and not self.open:
            data, self._backlog = self._backlog, b""
            if self._transport.is_reading():
                self._take_closed(data)

    def _pay(self) -> None:
        """Count what came, and do not read for a while if it was too much."""
        shared = self._shared
        frames = self._frames
        wait = self._pace.spend(frames - self._paid, self.entrance.grain - self._credit, shared.now())
        self._paid, self._credit = frames, self.entrance.grain
        if wait is None:
            self.shut(reasons.TOO_MANY)
            if not self._transport.is_closing():  # to look through the rest for a goodbye would take as long
                self._transport.pause_reading()
        elif wait and self.open and self._held is None:
            shared.counters["clients.held_back"] += 1
            self._hold(wait, self._release)

    def _hold(self, seconds: float, then: Callable[[], None]) -> None:
        """Do not read for so many seconds."""
        if self._held is not None:
            self._held.cancel()
        elif not self._paused and not self._transport.is_closing():
            self._transport.pause_reading()
        self._held = asyncio.get_running_loop().call_later(seconds, then)

    def _release(self) -> None:
        """Take what was read already, and read on."""
        self._held = None
        if not self._paused and self._backlog:
            data, self._backlog = self._backlog, b""
            self.data_received(data)
        if not self._paused and self._held is None:
            self._read_on()

    def _read_on(self) -> None:
        if self._backlog:
            self._held = asyncio.get_running_loop().call_soon(self._release)
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    def _half_close(self) -> None:
        """Send nothing more, and wait for the peer to hang up."""
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError):  # the peer reset the connection, and the transport does not know it yet
                self._transport.write_eof()
        else:  # TLS has no half of a connection
            self._transport.close()

    def _write_and_look(self, data: bytes) -> None:
        self._transport.write(data)
        self._look()

    def _look(self) -> None:
        if self.open and self._transport.get_write_buffer_size() > self.entrance.config.client_buffer:
            # behind a full buffer a goodbye would not arrive
            self._abort(*reasons.SLOW)

    def _ping(self) -> None:
        shared = self._shared
        keepalive = self.entrance.keepalive
        unanswered = keepalive.next(self._unanswered, paused=self._paused or self._held is not None)
        if unanswered is None:
            self.shut(reasons.PONG_MISSED)
            return
        self._unanswered = unanswered
        shared.wheel.set(self, shared.now() + keepalive.interval)
        self._write_ping()

    def _write_ping(self) -> None:
        self.write(self.entrance.keepalive.frame)

    # Leaving

    def _abort(self, name: str, code: int, reason: str) -> None:
        self._transport.abort()
        if self.open:
            self._shared.counters["closed." + name] += 1
            self._leave(code, reason)

    def _leave(self, code: int, reason: str) -> None:
        shared = self._shared
        self.open = False
        self.write = _ignore
        self.resume()  # the peer's goodbye may be behind what was not read
        if self._held is not None:
            self._held.cancel()
            self._held = asyncio.get_running_loop().call_soon(self._release)
        shared.wheel.set(self, shared.now() + self.entrance.config.close_timeout)
        if self.client is _NOBODY:
            self.client = (code, reason)  # for _enter
        else:
            shared.owner.closed(self.client, code, reason)

    def _give_up(self) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:  # a page on its way to somebody on a slow line
            self._unsent = unsent
            self._shared.wheel.set(self, self._shared.now() + self.entrance.config.close_timeout)
        else:
            self._shared.counters["aborted.close_timeout"] += 1
            self._transport.abort()


def shown(peer: Any) -> str:
    """Return where a peer is, from its address as sockets have it; empty if it is gone, or on a unix socket."""
    if not isinstance(peer, tuple):
        return ""
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"


def host_of(remote: str) -> str:
    """Return the address alone."""
    return remote.rpartition(":")[0].strip("[]")
