"""What takes bytes or messages from outside, each as a function that may raise nothing: for Hypothesis and for atheris.

Where a peer is at fault, the error that says so is part of the rules; any other exception is a bug.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from http import HTTPStatus
from random import Random
from typing import TYPE_CHECKING, Any, Final

from gatecrew.common import curve, wire
from gatecrew.common import messages as op
from gatecrew.common.errors import ClientIdError, ConfigError, LinkError
from gatecrew.common.ids import gateway_of
from gatecrew.common.lane import Lane
from gatecrew.gateway.buddies import Wards
from gatecrew.gateway.client import Client
from gatecrew.gateway.core import Core
from gatecrew.gateway.devices import Claims, Devices
from gatecrew.gateway.dispatch import Dispatch, Port
from gatecrew.gateway.frames import Inbox, encode
from gatecrew.gateway.handshake import Opening, Terms, introduce
from gatecrew.gateway.placement import router
from gatecrew.gateway.protocols import PROTOCOLS
from gatecrew.gateway.proxy import SIGNATURE, Trusted, parse_body, parse_head
from gatecrew.register.leases import Leases
from gatecrew.register.view import Member, View

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatecrew.common.messages import Message
    from gatecrew.common.reasons import Reason

KEY: Final = "abcdefgh"
_quiet: Final = logging.getLogger("fuzz")
IDS: Final = [KEY + str(number).zfill(16) for number in range(3)]  #: of clients that are there


class Deaf:
    """The socket of a client that takes what it is sent, and closes when told to."""

    plain = True
    unsent = 0

    def __init__(self, core: Core | None = None) -> None:
        self.core = core
        self.client: Client | None = None

    def write(self, frame: bytes, /) -> None:
        assert isinstance(frame, bytes)

    def send(self, data: str | bytes, /) -> None:
        encode(data)

    def close(self, code: int, reason: str, /) -> None:
        if self.core is not None and self.client is not None:
            self.core.closed(self.client, code, reason)

    def shut(self, reason: Reason, /) -> None:
        self.close(reason.code, reason.text)

    def abort(self) -> None:
        self.close(1006, "")

    def admit(self, subprotocol: str | None) -> None:
        assert subprotocol is None or type(subprotocol) is str

    def refuse(self, status: int, why: str, retry_after: int | None = None, cause: str = "") -> None:
        assert (type(status), type(why)) == (int, str) or status in set(HTTPStatus)

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Sink:
    """Where messages to a peer go: it holds them to what msgpack can say."""

    full = False

    def send(self, message: Message, size: int = 0) -> None:
        wire.pack(message)

    def flush(self) -> None: ...


def frame(data: bytes) -> None:
    """Read a frame, and whatever its kind has in it."""
    with suppress(LinkError):
        wire.read(data)
        wire.text(data)
        with suppress(LinkError):
            wire.decode_map(data)
        wire.encode(wire.decode(data))


def lane(data: bytes) -> None:
    """Let a lane take frames, one for each 24 bytes."""
    end = Lane(1, 0.0, interval=1.0, dead_after=5.0, limit=1000)
    for number in range(3):
        end.seal(b"%d" % number, 0.0)
    with suppress(LinkError):
        for start in range(0, len(data), 24):
            kind, _, seq, ack = wire.read(b"GC\x01" + data[start + 3 : start + 24])
            _, answers = end.take(kind, seq, ack, float(start))
            assert len(answers) <= 5
    assert 0 <= end.acked <= end.sent


def keys(data: bytes) -> None:
    """Read a list of public keys."""
    with suppress(ConfigError):
        curve.parse(data.decode("utf-8", "replace"), "keys")


def client_id(data: bytes) -> None:
    """Take a client id apart."""
    with suppress(ClientIdError):
        gateway_of(data.decode("utf-8", "replace"))


def inbox(data: bytes) -> None:
    """Read what a client sends after its handshake, in two pieces."""
    taken = Inbox(1000, [], _quiet, 8)
    messages = [*taken.feed(data[: len(data) // 2]), *taken.feed(data[len(data) // 2 :])]
    taken.protocol.data_to_send()
    taken.drain(data)
    assert all(len(message) <= 1000 for message in messages)


def opening(data: bytes) -> None:
    """Read what a client sends for its handshake."""
    terms = Terms([], [], None, _quiet)
    for head in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
        answer = Opening(terms).feed(head + data)
        if answer is not None and answer.request is not None:
            introduce(answer, "127.0.0.1:1", "ws://127.0.0.1:1")


def streams(data: bytes) -> None:
    """Read what clients send that speak something simpler than WebSocket."""
    for make in PROTOCOLS.values():
        protocol = make(1000)
        with suppress(ValueError):
            for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
                assert all(message is not None and len(message) <= 1000 for message in protocol.feed(piece))


def proxies(data: bytes) -> None:
    """Read what a proxy says of a client, in both ways."""
    with suppress(ValueError):
        parse_body(parse_head(SIGNATURE + data[:4].ljust(4, b"x")), data[4:])
    Trusted(["10.0.0.0/8"]).forwarded([("X-Forwarded-For", data.decode("latin-1"))])


def gateway(batch: list[Message]) -> None:
    """Let a gateway carry out a batch of a worker, and one of a caller."""
    core = a_core()
    port = Port("worker", "workerkey", 0, Sink().send)
    core.apply([[op.TAKE, 100, True]], Sink(), port)
    core.arrived(Deaf(core), ["/", "", "127.0.0.1:1", "ws://127.0.0.1:1", None], [["Host", "x"]])
    core.received(core.index.clients[IDS[0]], "hello")
    for asker in (port, None):
        with suppress(LinkError):
            core.apply(batch, Sink(), asker)
    core.lost(port)
    core.look_after()
    assert core.unhandled >= 0


def a_core() -> Core:
    """Return the core of a gateway with some clients."""
    claims = Claims(2, keep_oldest=True, wall=lambda: 1.7e9)
    core = Core(
        KEY,
        Dispatch(router("sticky", Random(1)), 8, 1 << 20),
        encode,
        Counter(),
        lambda: 0.0,
        wall=lambda: 1.7e9,
        devices=Devices(KEY, claims),
    )
    for number, one in enumerate(IDS):
        socket = Deaf(core)
        client = socket.client = Client(one, socket, ["/", "", "127.0.0.1:1", "ws://127.0.0.1:1", None])
        core.index.add(client)
        if number:
            core.index.bind(client, "u")
            core.index.join(client, "g")
    return core


def claims(batch: list[Message]) -> None:
    """Let the owner of uids take what other gateways claim, and them what it grants."""
    owner = Claims(1, keep_oldest=False, wall=lambda: 1.7e9)
    with suppress(LinkError):
        owner.received(Sink(), batch)
    devices = Devices(KEY, owner)
    devices.claim(Client(IDS[0], Deaf(), []), "u", "", lambda allowed: None)
    with suppress(LinkError):
        devices.received(KEY, batch)


def wards(batch: list[Message]) -> None:
    """Let a buddy take in what a gateway tells, and tell the close of its clients when that is lost."""
    core = a_core()
    known = Wards(lambda name, key, kept: core.adopt(key, kept))
    known.joined("G", "gateway-1")
    with suppress(LinkError):
        known.received("G", batch, lambda message: None)
    known.lost("G", goodbye=True)


def members(batch: list[Message]) -> None:
    """Read members, lease to them, and look at them as another member does."""
    leases, view = Leases("epoch", 5.0, 0.0), View(5.0)
    for message in batch:
        with suppress(LinkError):
            member = Member.read(message[1:])
            leases.heartbeat(member, {}, 0.0)
            view.snapshot("register", [member], 0.0)
    view.expire(100.0)
    leases.expire(100.0)
    wire.pack([leases.members(), leases.report(0.0)])


#: Those that take bytes.
OF_BYTES: Final[dict[str, Callable[[bytes], None]]] = {
    "frame": frame,
    "lane": lane,
    "keys": keys,
    "client_id": client_id,
    "inbox": inbox,
    "opening": opening,
    "streams": streams,
    "proxies": proxies,
}
#: Those that take a batch as :func:`gatecrew.common.wire.decode` returns it.
OF_BATCHES: Final[dict[str, Callable[[list[Message]], None]]] = {
    "gateway": gateway,
    "claims": claims,
    "wards": wards,
    "members": members,
}


def run(name: str, data: Any) -> None:
    """Run a target by its name; one of batches also with bytes, if they are a batch."""
    if name in OF_BYTES:
        OF_BYTES[name](data)
    elif isinstance(data, bytes):
        with suppress(LinkError):
            OF_BATCHES[name](wire.decode(bytes(24) + data))
    else:
        OF_BATCHES[name](data)
