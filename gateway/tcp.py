"""A client that speaks something simpler than WebSocket on its stream of bytes: see :mod:`.protocols`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from ..common import reasons
from .handshake import Handshake, with_subject
from .protocols import Protocol, TooBig, spoken
from .stream import Entrance, Shared, Stream
from .tls import subject

if TYPE_CHECKING:
    from ..common.config import GatewayConfig
    from ..common.reasons import Reason

_log = logging.getLogger(__name__)

#: Bytes that a message may have around it. A protocol that got so many more than ``max_message`` without one keeps too much.
_WRAPPING: Final = 65536


class Streams(Entrance):
    """Where clients with one protocol come in."""

    def __init__(self, shared: Shared, config: GatewayConfig, url: str) -> None:
        super().__init__(shared, config, url)
        self.make, self._encode = spoken(config.protocol)
        self._last: str | bytes | None = None  # what was encoded last
        self._encoded = b""

    def connection(self) -> Connection:
        """Return the protocol for one more connection."""
        return Connection(self)

    def encode(self, message: str | bytes, protocol: Protocol) -> bytes:
        """Return what is to be written for a message; a message for many is encoded once, if the protocol allows that."""
        if self._encode is None:
            return protocol.encode(message)
        if message is not self._last:
            self._encoded = self._encode(message)
            self._last = message
        return self._encoded


class Connection(Stream):
    """One client's stream, and what its owner may do with it. After the client left, all of that does nothing."""

    __slots__ = ("_begun", "_others", "_protocol", "_uncut")

    entrance: Streams

    def __init__(self, entrance: Streams) -> None:
        super().__init__(entrance)
        self._protocol = entrance.make(entrance.config.max_message)
        self._others = 0  # what was complete and no message
        self._uncut = 0  # bytes since the last message
        self._begun: asyncio.Handle | None = None  # what will look for a message that does not end

    # What the owner calls

    def send(self, data: str | bytes) -> None:
        """Send one message."""
        if not self.open:
            return
        try:
            encoded = self.entrance.encode(data, self._protocol)
        except Exception as error:  # noqa: BLE001  (whatever a user's protocol does wrong)
            self._discard(error)
        else:
            self.write(encoded)

    def _discard(self, error: Exception) -> None:
        """Count a message that the protocol cannot say; the first one is logged."""
        counters = self._shared.counters
        counters["discarded.cannot_encode"] += 1
        if counters["discarded.cannot_encode"] == 1:
            _log.error(
                "a message for a client at %s is dropped: %s; others like this are only counted (discarded.cannot_encode)",
                self.entrance.url,
                error,
                exc_info=None if isinstance(error, ValueError) else error,
            )

    def admit(self, subprotocol: str | None) -> None:
        """Open it: it waited for that. It has no subprotocols."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and self._opening is not None:
            self._accept(waiting.handshake, waiting.arrival)
            if not self._paused:
                self._read_on()

    def refuse(self, status: int, why: str, retry_after: int | None = None, cause: str = "denied") -> None:
        """Do not open it: hang up."""
        self._waiting = None
        if self._opening is not None:
            self._opening = None
            self._count_refusal(status, cause)
            self._transport.abort()

    # What the loop calls

    def eof_received(self) -> None:
        """Take note that the client hung up. The transport then closes itself when all is written."""
        if self.open:
            self._leave(1000, "")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the socket."""
        super().connection_lost(exc)
        if self._begun is not None:
            self._begun.cancel()

    # Steps

    def _begin(self, deadline: float) -> None:
        super()._begin(deadline)
        self._opening = True
        headers = with_subject(subject(self._transport.get_extra_info("peercert")))
        self._ask(Handshake("", {}, headers, self.remote, self.entrance.url, None))
        if self._waiting is not None:
            self._transport.pause_reading()  # it gives no sign that it waits

    def _accept(self, handshake: Handshake, arrival: Any) -> None:
        self._opening = None
        self.open = True
        self.write = self._transport.write
        self._enter(handshake, arrival)

    def _open_timeout(self) -> None:
        self._transport.abort()

    @property
    def _frames(self) -> int:
        return self.heard + self._others

    def _take(self, data: bytes) -> None:
        config = self.entrance.config
        frames = self._frames
        try:
            self._deliver(data)
        except ValueError as error:
            self._fail(_reason(error))
            return
        self._uncut = self._uncut + len(data) if self._frames == frames else 0
        if self._uncut > config.max_message + _WRAPPING:
            self._fail(reasons.TOO_BIG)
        self._credit -= len(data)
        if self._credit < 0:
            self._pay()
        if self._uncut and self._begun is None and config.message_timeout and self.open:
            self._watch()

    def _deliver(self, data: bytes) -> None:
        most = self.entrance.config.max_message
        for message in self._protocol.feed(data):
            if message is None:
                self._others += 1
                continue
            if len(message) > most:
                raise TooBig
            self.heard += 1
            self._received(self.client, message)
            if not self.open:
                break

    def _take_closed(self, data: bytes) -> None:
        if self._waiting is not None:
            self._backlog += data  # once at most: it is not read meanwhile

    def _write_ping(self) -> None:
        if self.entrance.config.ping_data:
            self.send(self.entrance.config.ping_data)

    def _watch(self) -> None:
        """See after a while whether the message that has begun has ended."""
        timeout = self.entrance.config.message_timeout
        self._begun = asyncio.get_running_loop().call_later(timeout, self._look_at_message, self.heard)

    def _look_at_message(self, heard: int) -> None:
        self._begun = None
        if self.open and self._uncut:
            if heard == self.heard and not self._paused and self._held is None:
                self.shut(reasons.MESSAGE_TIMEOUT)
            else:  # it is another one, or the gateway did not read
                self._watch()

    # Leaving

    def _fail(self, reason: Reason) -> None:
        """Hang up on a client that broke the rules."""
        self._close(*reason)

    def _close(self, name: str, code: int, reason: str) -> None:
        if self.open:
            self._shared.counters["closed." + name] += 1
            self._half_close()
            self._leave(code, reason)


def _reason(error: ValueError) -> Reason:
    """Return why a client whose stream is broken is closed."""
    if isinstance(error, TooBig):
        return reasons.TOO_BIG
    if isinstance(error, UnicodeDecodeError):
        return reasons.NOT_UTF8
    return reasons.PROTOCOL_ERROR._replace(text=str(error))
