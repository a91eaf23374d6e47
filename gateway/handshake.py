"""The opening handshake: the bytes of an HTTP request in, the answer to it out.

Pure. A request that is no good gets a proper HTTP status; a plain request for a page gets the page.
"""

from __future__ import annotations

import http
from typing import TYPE_CHECKING, Final, NamedTuple, cast
from urllib.parse import parse_qsl, unquote

from websockets.exceptions import InvalidOrigin
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from .origin import welcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.datastructures import Headers
    from websockets.extensions import Extension, ServerExtensionFactory
    from websockets.typing import LoggerLike, Origin, Subprotocol

    from .pages import Pages

MAX_REQUEST: Final = 65536  #: bytes of a whole request, if nothing else is said
SUBJECT: Final = "tls-client-subject"  #: the header that the gateway makes, and takes from no client
_END: Final = b"\r\n\r\n"


class Handshake(NamedTuple):
    """How a client introduced itself."""

    path: str  #: decoded, without the query
    query: dict[str, str]  #: of a name that comes twice, the last value
    headers: list[tuple[str, str]]
    remote: str  #: ``127.0.0.1:5000`` or ``[::1]:5000``
    listener: str  #: the URL of the listener it came through
    subprotocol: str | None


class Terms(NamedTuple):
    """What a listener offers."""

    subprotocols: Sequence[Subprotocol]
    extensions: Sequence[ServerExtensionFactory]
    pages: Pages | None
    logger: LoggerLike
    origins: Sequence[str] = ()  #: pages that may connect, beside those of the same host
    max_request: int = MAX_REQUEST  #: bytes


class Answer(NamedTuple):
    """What is to be written. ``request`` is given if the client was accepted."""

    status: int
    response: bytes
    cause: str = ""  #: what is counted as ``handshake.<cause>``, beside the refusal itself
    request: Request | None = None
    extensions: Sequence[Extension] = ()
    subprotocol: str | None = None
    rest: bytes = b""  #: what came after the request


class _Protocol(ServerProtocol):
    def __init__(self, terms: Terms) -> None:
        super().__init__(extensions=terms.extensions, subprotocols=terms.subprotocols, logger=terms.logger)
        self._listed = terms.origins

    def process_origin(self, headers: Headers) -> Origin | None:
        origin = super().process_origin(headers)
        hosts = headers.get_all("Host")
        if not welcome(origin, hosts[0] if len(hosts) == 1 else None, self._listed):
            raise InvalidOrigin(f"{origin}: it is neither this host's nor in [gateway] origins")
        return origin

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        # websockets refuses a client that offers none of ours; here, as in RFC 6455, section 4.2.2, it gets none
        offered = frozenset(subprotocols)
        return next((name for name in self.available_subprotocols or () if name in offered), None)


class Opening:
    """The opening handshake of one connection."""

    __slots__ = ("_accepted", "_max_request", "_pages", "_protocol", "_size", "_tail")

    def __init__(self, terms: Terms) -> None:
        self._pages = terms.pages
        self._max_request = terms.max_request
        self._protocol = _Protocol(terms)
        self._accepted: Response | None = None
        self._size = 0
        self._tail = b""  # the end of what came so far: where the end of the request may have begun

    @property
    def begun(self) -> bool:
        """Whether the client said anything."""
        return self._size > 0

    def feed(self, data: bytes) -> Answer | None:
        """Take what was read from the socket; return the answer if the request is complete or wrong."""
        protocol = self._protocol
        known = len(self._tail)
        self._tail += data
        end = self._tail.find(_END)
        # Frames right behind the request must wait for the answer to it: the protocol would read them already.
        cut = len(data) if end < 0 else end + len(_END) - known
        self._tail = self._tail[-3:]
        self._size += cut
        if self._size > self._max_request:
            why = f"a request over {self._max_request} bytes"
            return self.refuse(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, why)
        protocol.receive_data(data[:cut])
        for request in protocol.events_received():
            if isinstance(request, Request):
                return self._answer(request, data[cut:])
        if protocol.handshake_exc is None:
            return None
        response = b"".join(protocol.data_to_send())
        if not response:  # no HTTP at all, or what a WebSocket server has no use for, like a body
            cause = protocol.handshake_exc.__cause__
            return self.refuse(http.HTTPStatus.BAD_REQUEST, str(cause))
        return Answer(int(response.split(b" ", 2)[1]), response)

    def refuse(self, status: int, why: str, retry_after: int | None = None, cause: str = "") -> Answer:
        """Return an answer that says why there will be no connection, and perhaps after how many seconds to come again."""
        response = self._reject(status, f"Failed to open a WebSocket connection: {why}.\n")
        if status == http.HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, section 11.6.1, asks for one
        if retry_after is not None:
            response.headers["Retry-After"] = str(retry_after)
        return Answer(status, response.serialize(), cause)

    def _reject(self, status: int, text: str) -> Response:
        try:
            return self._protocol.reject(status, text)
        except ValueError:  # a status without a name; its class has one (RFC 9110, section 15)
            response = self._protocol.reject(status // 100 * 100, text)
            response.status_code = status
            return response

    def agree(self, answer: Answer, subprotocol: str) -> Answer:
        """Return the answer that accepts a client with another subprotocol than that of the configuration."""
        assert self._accepted is not None, "the client is accepted"
        headers = self._accepted.headers
        if "Sec-WebSocket-Protocol" in headers:
            del headers["Sec-WebSocket-Protocol"]
        headers["Sec-WebSocket-Protocol"] = subprotocol
        return answer._replace(response=self._accepted.serialize(), subprotocol=cast("Subprotocol", subprotocol))

    def _answer(self, request: Request, rest: bytes) -> Answer:
        protocol = self._protocol
        if self._pages is not None and request.method in ("GET", "HEAD") and "Upgrade" not in request.headers:
            page = self._pages.respond(request.method, request.path, request.headers)
            return Answer(page.status_code, page.serialize())
        response: Response = protocol.accept(request)
        if request.method == "HEAD":
            response.body = b""
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            foreign = isinstance(protocol.handshake_exc, InvalidOrigin)
            return Answer(response.status_code, response.serialize(), "foreign_origin" if foreign else "")
        self._accepted = response
        return Answer(101, response.serialize(), "", request, protocol.extensions, protocol.subprotocol, rest)


def with_subject(subject: str | None) -> list[tuple[str, str]]:
    """Return the header that tells whose certificate a client has, if it has one."""
    return [] if subject is None else [(SUBJECT, subject)]


def introduce(answer: Answer, remote: str, listener: str, subject: str | None = None) -> Handshake:
    """Return how an accepted client introduced itself; ``subject`` is that of its certificate, which goes among the headers."""
    request = answer.request
    assert request is not None, "only an accepted client is introduced"
    # not urlsplit: it raises for what looks like a bad host name
    path, _, query = request.path.partition("?")
    return Handshake(
        unquote(path),
        dict(parse_qsl(query, keep_blank_values=True)),
        [
            *((name, value) for name, value in request.headers.raw_items() if name.lower() != SUBJECT),
            *with_subject(subject),
        ],
        remote,
        listener,
        answer.subprotocol,
    )
