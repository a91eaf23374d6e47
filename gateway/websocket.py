"""A client that speaks WebSocket (RFC 6455), after an opening handshake in HTTP."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.protocol import OPEN

from ..common import reasons
from .admission import RETRY_AFTER
from .frames import Inbox, close_reason, encode
from .handshake import Handshake, Opening, Terms, introduce
from .stream import Entrance, Owner, Shared, Stream, host_of
from .tls import subject

if TYPE_CHECKING:
    from websockets.typing import Subprotocol

    from ..common.config import GatewayConfig
    from .handshake import Answer
    from .pages import Pages

__all__ = ["Connection", "Handshake", "Owner", "Shared", "WebSockets", "encode"]

#: websockets logs each opened and closed connection at INFO, and every frame at DEBUG. Only its errors are news: they
#: are bugs.
PROTOCOL_LOG: Final = logging.getLogger(f"{__name__}.protocol")
PROTOCOL_LOG.setLevel(logging.WARNING)

#: 4 KiB windows cost 25 KiB a connection instead of 300 KiB, and text compresses nearly as well.
_DEFLATE: Final = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
)
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
#: Seconds that a client that breaks the rules keeps its connection, so that it gets the answers to what it said before.
_LINGER: Final = 0.1


class WebSockets(Entrance):
    """Where WebSockets come in."""

    def __init__(self, shared: Shared, config: GatewayConfig, url: str, pages: Pages | None = None) -> None:
        super().__init__(shared, config, url, encode(config.ping_data) if config.ping_data else b"\x89\x00")
        self.terms = Terms(
            cast("tuple[Subprotocol, ...]", tuple(config.subprotocols)),
            [_DEFLATE] if config.compression else [],
            pages,
            PROTOCOL_LOG,
            config.origins,
            config.max_handshake,
        )

    def connection(self) -> Connection:
        """Return the protocol for one more connection."""
        return Connection(self)


class Connection(Stream):
    """One client's WebSocket, and what its owner may do with it. After the client left, all of that does nothing."""

    __slots__ = ("_begun", "_inbox", "_offer")

    entrance: WebSockets

    def __init__(self, entrance: WebSockets) -> None:
        super().__init__(entrance)
        self._opening: Opening | None = Opening(entrance.terms)
        self._offer: Answer | None = None  # what will be answered, if it is to be accepted
        self._inbox: Inbox | None = None
        self._begun: asyncio.Handle | None = None  # what will look for a message that does not end

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
            arrival, handshake = waiting
            if subprotocol is not None:
                assert self._offer is not None, "what waits was found good"
                self._offer = self._opening.agree(self._offer, subprotocol)
                handshake = handshake._replace(subprotocol=subprotocol)
            self._accept(handshake, arrival)

    def refuse(self, status: int, why: str, retry_after: int | None = None, cause: str = "denied") -> None:
        """Do not open it: answer with an HTTP status and a reason."""
        self._waiting = None
        if self._opening is not None:
            self._refuse(self._opening.refuse(status, why, retry_after, cause))

    # What the loop calls

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
        super().connection_lost(exc)
        if self._begun is not None:
            self._begun.cancel()

    # Opening

    def _take_closed(self, data: bytes) -> None:
        if self._inbox is not None:
            self._inbox.drain(data)
            self._flush()
        elif self._opening is not None:  # else it was refused: whatever comes is not read
            self._open_with(self._opening, data)

    def _open_with(self, opening: Opening, data: bytes) -> None:
        if self._waiting is not None and self._offer is not None:  # it should wait, too: RFC 6455, section 4.1
            if len(self._offer.rest) > self.entrance.config.max_handshake:
                self._give_up_waiting()
                self._refuse(opening.refuse(HTTPStatus.BAD_REQUEST, "too much before the answer"))
            else:
                self._offer = self._offer._replace(rest=self._offer.rest + data)
            return
        answer = opening.feed(data)
        if answer is None:
            return
        if answer.request is None:
            self._refuse(answer)
            return
        entrance = self.entrance
        headers = answer.request.headers.raw_items()
        told = entrance.trusted.forwarded(headers) if host_of(self.remote) in entrance.trusted else None
        if told is not None and not self._move(told):
            self._refuse(opening.refuse(HTTPStatus.TOO_MANY_REQUESTS, "too many from your address", RETRY_AFTER))
            return
        self._offer = answer
        self._ask(introduce(answer, self.remote, entrance.url, subject(self._transport.get_extra_info("peercert"))))

    def _accept(self, handshake: Handshake, arrival: Any) -> None:
        answer, self._offer = self._offer, None
        assert answer is not None, "what is accepted was found good"
        config = self.entrance.config
        self._opening = None
        self._inbox = Inbox(config.max_message, answer.extensions, PROTOCOL_LOG, config.max_fragments)
        self.plain = not answer.extensions
        self.open = True
        self.write = self._transport.write
        self.write(answer.response)
        self._enter(handshake, arrival)
        if self.open and answer.rest:
            self.data_received(answer.rest)

    def _open_timeout(self) -> None:
        assert self._opening is not None, "it still opens"
        self._answer(self._opening.refuse(HTTPStatus.REQUEST_TIMEOUT, reasons.OPEN_TIMEOUT.text))

    def _refuse(self, answer: Answer) -> None:
        if answer.status >= HTTPStatus.BAD_REQUEST and answer.status != HTTPStatus.NOT_FOUND:
            self._count_refusal(answer.status, answer.cause)
        self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        """Write a response that is the last thing to be written, and wait for the client to hang up."""
        self._opening = self._offer = None
        if self._transport.is_closing():
            return
        self._transport.write(answer.response)
        self._unsent = len(answer.response)
        self._half_close()
        self._shared.wheel.set(self, self._shared.now() + self.entrance.config.close_timeout)

    # Open

    @property
    def _protocol(self) -> Any:
        assert self._inbox is not None, "only a connection that was accepted has a protocol"
        return self._inbox.protocol

    @property
    def _frames(self) -> int:
        return self.heard + (self._inbox.others if self._inbox is not None else 0)

    def _take(self, data: bytes) -> None:
        inbox = self._inbox
        assert inbox is not None, "it is open"
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
            self._pay()

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
            self._shared.counters["closed." + _FAILURES[code].name] += 1
            self._leave(code, sent.reason)

    def _watch(self) -> None:
        """See after a while whether the message that has begun has ended."""
        timeout = self.entrance.config.message_timeout
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
                if self._transport.get_write_buffer_size() > self.entrance.config.client_buffer:
                    self._transport.abort()  # it goes on pinging and does not read the pongs

    # Leaving

    def _close(self, name: str, code: int, reason: str) -> None:
        """Start the closing handshake. A reason that is too long is cut; a code that may not be sent becomes 1000."""
        if not self.open or self._protocol.state is not OPEN:
            return
        self._shared.counters["closed." + name] += 1
        reason = close_reason(reason)
        try:
            self._protocol.send_close(code, reason)
        except ProtocolError:
            code = 1000
            self._protocol.send_close(code, reason)
        self._flush()
        if self.open:  # else the close frame was one too many for a slow client
            self._leave(code, reason)
