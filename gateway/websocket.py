"""The socket of one client.

A connection goes one way through three phases: *opening* (the handshake), *open*, and *leaving*. It leaves when a close
frame was received or sent, when something failed, or when the peer is gone. From that moment its owner hears nothing of
it and it sends nothing more, while it waits at most ``close_timeout`` for the peer to hang up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from websockets.exceptions import ProtocolError
from websockets.frames import Close
from websockets.protocol import OPEN

from ..common import reasons
from .admission import RETRY_AFTER, UNDECIDED
from .frames import Inbox, close_reason, encode
from .handshake import Handshake, Opening, Terms, introduce
from .keepalive import UNSET, KeepAlive, Wheel
from .limits import Crowd, Idle, Pace, Rates

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from ..common.config import GatewayConfig
    from ..common.reasons import Reason
    from .handshake import Answer

__all__ = ["Connection", "Handshake", "Owner", "Shared", "encode"]

_log = logging.getLogger(__name__)
#: websockets logs each opened and closed connection at INFO, and every frame at DEBUG. Only its errors are news: they
#: are bugs.
PROTOCOL_LOG: Final = logging.getLogger(f"{__name__}.protocol")
PROTOCOL_LOG.setLevel(logging.WARNING)

_NOBODY: Final = object()  # the client of a connection that has none yet
_FAILURES: Final = {
    reason.code: reason
    for reason in (
        reasons.PROTOCOL_ERROR,
        reasons.NOT_UTF8,
        reasons.TOO_BIG,
        reasons.TOO_MANY_FRAGMENTS,
        reasons.INTERNAL_ERROR,
    )
}
#: One read brings up to 256 KiB, which may be 40,000 messages. More than so many bytes are taken in pieces, and after one
#: with more than so many frames it is the others' turn.
_PIECE: Final = 16384
_FRAMES: Final = 256
#: Seconds that a client that breaks the rules keeps its connection, so that it gets the answers to what it said before.
_LINGER: Final = 0.1


class Owner(Protocol):
    """Whoever the clients belong to: the rules of a gateway, or a recorder in a test. A client may be any object."""

    def arrived(self, connection: Connection, handshake: Handshake, /) -> Any:
        """Return None if the client may come, or else what it is called while it has to wait for ``connection.admit``."""

    def gave_up(self, arrival: Any, /) -> None:
        """Forget a client that had to wait and is gone, or waited for too long."""

    def opened(self, connection: Connection, handshake: Handshake, arrival: Any, /) -> Any:
        """Return the client for a connection that was just accepted; ``arrival`` is what it was called before, if it waited."""

    def received(self, client: Any, data: str | bytes, /) -> None:
        """Take one message of a client."""

    def closed(self, client: Any, code: int, reason: str, /) -> None:
        """Take note that a client is leaving or gone. Called once for each client, and nothing of it comes after."""


class Shared:
    """What all connections of one listener have in common."""

    def __init__(
        self,
        config: GatewayConfig,
        owner: Owner,
        counters: Counter[str],
        terms: Terms,
        now: Callable[[], float],
        *,
        room: int,
    ) -> None:
        self.owner = owner
        self.counters = counters
        self.terms = terms
        self.now = now
        self.open_timeout = config.open_timeout
        self.handshake_timeout = config.handshake_timeout
        self.close_timeout = config.close_timeout
        self.max_message = config.max_message
        self.max_fragments = config.max_fragments
        self.message_timeout = config.message_timeout
        self.rates = Rates(config.message_rate, config.byte_rate, config.rate_patience)
        self.grain = self.rates.grain
        self.idle = Idle(config.idle_timeout)
        self.crowd = Crowd(room, config.address_connections, config.address_rate)
        self.client_buffer = config.client_buffer
        ping = encode(config.ping_data) if config.ping_data else b"\x89\x00"
        self.keepalive = KeepAlive(config.ping_interval, config.missed_pongs, ping)
        shortest = min(
            config.open_timeout,
            config.handshake_timeout,
            config.close_timeout,
            config.ping_interval or config.open_timeout,
        )
        self.wheel: Wheel[Connection | _Look] = Wheel(min(0.1, shortest / 4))
        self.connections: set[Connection] = set()
        self.accepting = True
        self.received = owner.received  # bound once, not for each connection
        self.chance = random.random
        self.emptied: Callable[[], None] | None = None  # called when the last connection is gone


class _Look:
    """The looks at one connection that tell whether it is idle."""

    __slots__ = ("_connection", "_heard", "_looks", "slot")

    def __init__(self, connection: Connection) -> None:
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
        looks = connection.shared.idle.next(self._looks, heard=heard != connection.heard)
        if looks is None:
            connection.shut(reasons.IDLE)
        else:
            self._looks = looks
            self.again()

    def again(self) -> None:
        """Look at it after a while."""
        shared = self._connection.shared
        shared.wheel.set(self, shared.now() + shared.idle.interval)


class _Waiting(NamedTuple):
    """A client whose handshake somebody has to decide on."""

    arrival: Any
    answer: Answer
    handshake: Handshake


#: Why somebody was cut off, for the log.
_CROWDED: Final = {
    "no_room": "there are %d, as many as there may be; raise [gateway] max_connections, or the limit of open files "
    "(ulimit -n); it came from %s",
    "address_full": "there may be %d, but not so many from %s; see [gateway] address_connections",
    "address_rate": "there may be %d, but not so many new ones from %s; see [gateway] address_rate",
}


def _ignore(frame: bytes) -> None:
    """Write nothing: the client is leaving."""


class Connection(asyncio.Protocol):
    """One client's socket, and what its owner may do with it. After the client left, all of that does nothing."""

    __slots__ = (
        "_address",
        "_backlog",
        "_begun",
        "_credit",
        "_held",
        "_inbox",
        "_opening",
        "_pace",
        "_paid",
        "_paused",
        "_received",
        "_transport",
        "_unanswered",
        "_unsent",
        "_url",
        "_waiting",
        "client",
        "heard",
        "open",
        "plain",
        "shared",
        "slot",
        "write",
    )

    client: Any  #: what the owner gave for it
    heard: int  #: messages so far
    open: bool
    #: Whether a frame of :func:`encode` may be written as it is: no extension was negotiated.
    plain: bool
    #: Writes a prepared frame. This is the transport's own method as long as little is waiting to be sent.
    write: Callable[[bytes], None]
    slot: int  #: of the wheel

    def __init__(self, shared: Shared, url: str) -> None:
        self.shared = shared
        self._url = url
        self._address: str | None = None  # where it is, while it counts in the crowd
        self._received = shared.received
        self._opening: Opening | None = Opening(shared.terms)
        self._waiting: _Waiting | None = None
        self._inbox: Inbox | None = None
        self._transport: asyncio.Transport
        self._paused = False  # by its owner
        self._held: asyncio.Handle | None = None  # what will end it, if it is not read for a while
        self._backlog = b""  # what was read, and waits
        self.heard = 0
        self._credit = shared.grain  # bytes until it is to be seen whether it is too fast
        self._pace = Pace(shared.rates)
        self._paid = 0  # frames that the pace knows of
        self._begun: asyncio.Handle | None = None  # what will look for a message that does not end
        self._unanswered = 0  # pings
        self._unsent = 0  # bytes of a response, when they were last looked at
        self.client = _NOBODY
        self.open = False
        self.plain = False
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

    def send(self, data: str | bytes) -> None:
        """Send one message: a str as text, bytes as binary."""
        if self.plain:
            self.write(encode(data))
        elif self.open:
            protocol = self._protocol
            if protocol.state is OPEN:  # else it is about to leave: the close frame came in the same turn
                if isinstance(data, str):
                    protocol.send_text(data.encode())
                else:
                    protocol.send_binary(data)
                self._flush()

    def admit(self, subprotocol: str | None) -> None:
        """Open it: it waited for that."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and self._opening is not None:
            arrival, answer, handshake = waiting
            if subprotocol is not None:
                answer = self._opening.agree(answer, subprotocol)
                handshake = handshake._replace(subprotocol=subprotocol)
            self._accept(answer, handshake, arrival)

    def refuse(self, status: int, why: str, retry_after: int | None = None, cause: str = "denied") -> None:
        """Do not open it: answer with an HTTP status and a reason."""
        self._waiting = None
        if self._opening is not None:
            self._refuse(self._opening.refuse(status, why, retry_after, cause))

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake. A reason that is too long is cut; a code that may not be sent becomes 1000."""
        self._close("command", code, reason)

    def shut(self, reason: Reason) -> None:
        """Close for one of the reasons of the gateway; without a closing handshake if the client is still opening."""
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
        """Start waiting for the handshake."""
        shared = self.shared
        self._transport = cast("asyncio.Transport", transport)
        shared.connections.add(self)
        if not shared.accepting:  # it was in the queue when the listener stopped
            self._transport.abort()
            return
        address = _remote(self._transport).rpartition(":")[0].strip("[]")
        why = shared.crowd.come(address, shared.now())
        if why:
            shared.counters["handshake." + why] += 1
            if shared.counters["handshake." + why] == 1:
                _log.error("a connection is cut off: " + _CROWDED[why], shared.crowd.room, address)
            self._transport.abort()
            return
        self._address = address
        self._transport.set_write_buffer_limits(high=shared.client_buffer // 4)
        shared.wheel.set(self, shared.now() + shared.open_timeout)

    def data_received(self, data: bytes) -> None:
        """Take what was read."""
        self._unanswered = 0
        inbox = self._inbox
        try:
            if inbox is None:
                self._open_with(data)
            elif self.open:
                if len(data) > _PIECE:
                    self._take_in_pieces(inbox, data)
                else:
                    self._take(inbox, data)
            else:
                inbox.drain(data)
                self._flush()
        except Exception:  # noqa: BLE001  (a bug; what was read may be lost, and the client must come to know)
            _log.exception("a client is cut off because the gateway failed")
            self._abort(*reasons.INTERNAL_ERROR)

    def eof_received(self) -> None:
        """Take note that the client sends nothing more. The transport then closes itself when all is written."""
        if self._opening is not None:
            if self._waiting is not None:
                self._give_up_waiting()
            elif self._opening.begun:
                self._refuse(self._opening.refuse(HTTPStatus.BAD_REQUEST, "the request ends too early"))
            self._opening = None
        elif self.open:
            self._leave(1006, "")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the socket."""
        shared = self.shared
        if self.open:
            self._leave(1006, "")
        self._give_up_waiting()
        self._opening = None
        self.write = _ignore
        shared.wheel.cancel(self)
        shared.connections.discard(self)
        if self._address is not None:
            shared.crowd.go(self._address)
        for handle in (self._held, self._begun):
            if handle is not None:
                handle.cancel()
        if not shared.connections and shared.emptied is not None:
            shared.emptied()

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
        """Do what the wheel's time has come for: give up a handshake, ping, or stop waiting for the peer to hang up."""
        if self.open:
            self._ping()
        elif self._waiting is not None:
            self._give_up_waiting()
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "nobody decided in time", RETRY_AFTER, UNDECIDED)
        elif self._opening is not None:
            self.shared.counters["closed." + reasons.OPEN_TIMEOUT.name] += 1
            self._answer(self._opening.refuse(HTTPStatus.REQUEST_TIMEOUT, reasons.OPEN_TIMEOUT.text))
        else:
            self._give_up()

    # Opening

    def _open_with(self, data: bytes) -> None:
        if self._opening is None:  # refused: whatever comes is not read
            return
        if self._waiting is not None:  # it should wait, too: RFC 6455, section 4.1
            accepted = self._waiting.answer
            self._waiting = self._waiting._replace(answer=accepted._replace(rest=accepted.rest + data))
            if len(accepted.rest) > self.shared.terms.max_request:
                self._give_up_waiting()
                self._refuse(self._opening.refuse(HTTPStatus.BAD_REQUEST, "too much before the answer"))
            return
        answer = self._opening.feed(data)
        if answer is None:
            return
        if answer.request is None:
            self._refuse(answer)
            return
        shared = self.shared
        handshake = introduce(answer, _remote(self._transport), self._url)
        arrival = shared.owner.arrived(self, handshake)
        if arrival is None:
            self._accept(answer, handshake, None)
        elif self._opening is not None:  # else it was refused at once
            self._waiting = _Waiting(arrival, answer, handshake)
            shared.wheel.set(self, shared.now() + shared.handshake_timeout)

    def _give_up_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.shared.owner.gave_up(waiting.arrival)

    def _accept(self, answer: Answer, handshake: Handshake, arrival: Any) -> None:
        shared = self.shared
        transport = self._transport
        self._opening = None
        self._inbox = Inbox(shared.max_message, answer.extensions, PROTOCOL_LOG, shared.max_fragments)
        self.plain = not answer.extensions
        self.open = True
        self.write = transport.write
        self.write(answer.response)
        if shared.keepalive.interval:
            shared.wheel.set(self, shared.now() + shared.keepalive.first(shared.chance()))
        else:
            shared.wheel.cancel(self)
        if shared.idle.seconds:
            _Look(self).again()
        client = shared.owner.opened(self, handshake, arrival)
        self.client = client
        if not self.open:  # closed while it was opened, and nobody could be told yet
            sent = self._protocol.close_sent or Close(1006, "")
            shared.owner.closed(client, int(sent.code), sent.reason)
        elif answer.rest:
            self.data_received(answer.rest)

    def _refuse(self, answer: Answer) -> None:
        if answer.status >= HTTPStatus.BAD_REQUEST and answer.status != HTTPStatus.NOT_FOUND:
            self.shared.counters["handshake.refused"] += 1
            if answer.cause:
                self.shared.counters[f"handshake.{answer.cause}"] += 1
            _log.debug("refused the handshake of %s: %d", _remote(self._transport), answer.status)
        self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        """Write a response that is the last thing to be written, and wait for the client to hang up."""
        self._opening = None
        if self._transport.is_closing():
            return
        self._transport.write(answer.response)
        self._unsent = len(answer.response)
        self._half_close()
        self.shared.wheel.set(self, self.shared.now() + self.shared.close_timeout)

    # Open

    @property
    def _protocol(self) -> Any:
        assert self._inbox is not None, "only a connection that was accepted has a protocol"
        return self._inbox.protocol

    def _take(self, inbox: Inbox, data: bytes) -> None:
        messages = inbox.feed(data)
        self.heard += len(messages)
        for message in messages:
            self._received(self.client, message)
            if not self.open:
                break
        if inbox.stirred:
            self._settle()
            self._credit -= inbox.inflated
            inbox.inflated = 0
        self._credit -= len(data)
        if self._credit < 0:
            self._pay(inbox)

    def _take_in_pieces(self, inbox: Inbox, data: bytes) -> None:
        """Take what was read as far as it is to be taken now."""
        frames = self.heard + inbox.others
        for at in range(0, len(data), _PIECE):
            if not self.open or self._held is not None or self._paused:
                self._backlog = data[at:]
                break
            if self.heard + inbox.others - frames > _FRAMES:
                self._backlog = data[at:]
                self._hold(0, self._release)
                break
            self._take(inbox, data[at : at + _PIECE])
        if self._backlog and not self.open:
            data, self._backlog = self._backlog, b""
            if self._transport.is_reading():
                inbox.drain(data)
                self._flush()

    def _pay(self, inbox: Inbox) -> None:
        """Count what came, and do not read for a while if it was too much."""
        shared = self.shared
        frames = self.heard + inbox.others
        wait = self._pace.spend(frames - self._paid, shared.grain - self._credit, shared.now())
        self._paid, self._credit = frames, shared.grain
        if wait is None:
            self.shut(reasons.TOO_MANY)
            if not self._transport.is_closing():  # to look through the rest for a close frame would take as long
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

    def _settle(self) -> None:
        """Do what the protocol asks for after it read something."""
        protocol = self._protocol
        if not self.open or protocol.state is OPEN:
            self._flush()
            if self._begun is None and self.open and self._inbox is not None and self._inbox.unfinished:
                self._watch()
            return
        # websockets answers a close frame with the same code; a failure may be found in one, or without one
        received = protocol.close_rcvd
        if received is not None and received == protocol.close_sent:
            self._flush()
            if self.open:  # else the answer was one too many for a slow client
                self._leave(int(received.code), received.reason)
        else:
            self._hold(_LINGER, self._fail)

    def _fail(self) -> None:
        """Close a client that broke the rules."""
        self._held = None
        sent = self._protocol.close_sent
        assert sent is not None, "a protocol that fails says so, unless it is told that the stream ends"
        self._flush()
        if self.open:
            code = int(sent.code)
            self.shared.counters["closed." + _FAILURES[code].name] += 1
            self._leave(code, sent.reason)

    def _watch(self) -> None:
        """See after a while whether the message that has begun has ended."""
        timeout = self.shared.message_timeout
        if timeout:
            self._begun = asyncio.get_running_loop().call_later(timeout, self._look_at_message, self.heard)

    def _look_at_message(self, heard: int) -> None:
        self._begun = None
        inbox = self._inbox
        if self.open and inbox is not None and inbox.unfinished:
            if heard == self.heard and not self._paused and self._held is None:
                self.shut(reasons.MESSAGE_TIMEOUT)
            else:  # it is another one, or the gateway did not read
                self._watch()

    def _flush(self) -> None:
        """Write what the protocol has to say."""
        inbox = self._inbox
        assert inbox is not None, "only a connection that was accepted has a protocol"
        inbox.stirred = False
        for data in inbox.protocol.data_to_send():
            if not data:
                self._half_close()
            elif self.open:
                self.write(data)
            elif not self._transport.is_closing():
                self._transport.write(data)
                if self._transport.get_write_buffer_size() > self.shared.client_buffer:
                    self._transport.abort()  # it goes on pinging and does not read the pongs

    def _half_close(self) -> None:
        if not self._transport.is_closing():
            with contextlib.suppress(OSError):  # the peer reset the connection, and the transport does not know it yet
                self._transport.write_eof()

    def _write_and_look(self, frame: bytes) -> None:
        self._transport.write(frame)
        self._look()

    def _look(self) -> None:
        if self.open and self._transport.get_write_buffer_size() > self.shared.client_buffer:
            # behind a full buffer a close frame would not arrive
            self._abort(*reasons.SLOW)

    def _ping(self) -> None:
        shared = self.shared
        unanswered = shared.keepalive.next(self._unanswered, paused=self._paused or self._held is not None)
        if unanswered is None:
            self.shut(reasons.PONG_MISSED)
            return
        self._unanswered = unanswered
        shared.wheel.set(self, shared.now() + shared.keepalive.interval)
        self.write(shared.keepalive.frame)

    # Leaving

    def _close(self, name: str, code: int, reason: str) -> None:
        if not self.open or self._protocol.state is not OPEN:
            return
        self.shared.counters["closed." + name] += 1
        reason = close_reason(reason)
        try:
            self._protocol.send_close(code, reason)
        except ProtocolError:
            code = 1000
            self._protocol.send_close(code, reason)
        self._flush()
        if self.open:  # else the close frame was one too many for a slow client
            self._leave(code, reason)

    def _abort(self, name: str, code: int, reason: str) -> None:
        self._transport.abort()
        if self.open:
            self.shared.counters["closed." + name] += 1
            self._leave(code, reason)

    def _leave(self, code: int, reason: str) -> None:
        shared = self.shared
        self.open = False
        self.write = _ignore
        self.resume()  # the peer's close frame may be behind what was not read
        if self._held is not None:
            self._held.cancel()
            self._held = asyncio.get_running_loop().call_soon(self._release)
        shared.wheel.set(self, shared.now() + shared.close_timeout)
        if self.client is not _NOBODY:
            shared.owner.closed(self.client, code, reason)

    def _give_up(self) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:  # a page on its way to somebody on a slow line
            self._unsent = unsent
            self.shared.wheel.set(self, self.shared.now() + self.shared.close_timeout)
        else:
            self.shared.counters["aborted.close_timeout"] += 1
            self._transport.abort()


def _remote(transport: asyncio.Transport) -> str:
    peer = transport.get_extra_info("peername")
    if not peer:  # it is gone already
        return ""
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
