"""Handshakes that a worker has to decide on, if the application has handlers for them.

Rules:

* Whether it has, workers say. Before the first one did, nobody knows; so clients that come before that wait, too.
* One worker decides: of those that can, and have room, the one that the router chooses for the client.
* The handshakes of a worker that is lost go to another one; but after :data:`TRIES` they may be what kills workers.
* Who is not decided on waits: for room, for a worker, or for its word. The shell knows for how long, and tells who gave up.

Pure.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from ..common import messages as op
from .client import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .client import Client
    from .dispatch import Port

AT_ONCE: Final = 200  #: handshakes of one gateway that are with one worker
MAX_WAITING: Final = 10_000  #: that wait for room or a worker
TRIES: Final = 2  #: workers that were lost with a handshake from which on no other gets it
UNDECIDED: Final = "undecided"  #: the cause that is counted for these
RETRY_AFTER: Final = 1  #: seconds, for who is turned away because nobody could decide


class Door(Connection, Protocol):
    """A connection whose handshake is not answered yet. If it is gone meanwhile, nothing happens."""

    def admit(self, subprotocol: str | None, /) -> None:
        """Open it; with this subprotocol, or with None as it would be without being asked about."""

    def refuse(self, status: int, why: str, retry_after: int | None = None, cause: str = "denied", /) -> None:
        """Answer with an HTTP status, a reason, and perhaps the seconds after which to come again; count the cause."""


class _Arrival:
    __slots__ = ("client", "door", "headers", "number", "port", "tries")

    def __init__(self, client: Client, door: Door, headers: list[list[str]]) -> None:
        self.client = client
        self.door = door
        self.headers = headers
        self.tries = 0  # workers that were lost with it
        self.port: Port | None = None  # the worker that decides
        self.number = 0  # by which it answers


class Admission:
    """Those at the doors of one gateway.

    Args:
        choose: returns which of these workers a client is to be put to.
    """

    def __init__(self, choose: Callable[[Client, Sequence[Port]], Port]) -> None:
        self._choose = choose
        self._needed: bool | None = None  # None as long as no worker said
        self._workers: dict[Port, bool] = {}  # those that take events, and whether they decide on handshakes
        self._arrivals: dict[Client, _Arrival] = {}
        self._waiting: dict[_Arrival, None] = {}  # in order
        self._asked: dict[Port, dict[int, _Arrival]] = {}  # also at workers that take nothing new
        self._number = 0

    @property
    def needed(self) -> bool:
        """Whether clients have to wait at the door."""
        return self._needed is not False

    def __len__(self) -> int:
        return len(self._arrivals)

    # Those at the door

    def arrived(self, client: Client, door: Door, headers: list[list[str]]) -> None:
        """Take note of a client that waits to be let in."""
        if len(self._waiting) >= MAX_WAITING:
            door.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many wait already", RETRY_AFTER, UNDECIDED)
            return
        self._arrivals[client] = arrival = _Arrival(client, door, headers)
        self._waiting[arrival] = None
        self._go_on()

    def gave_up(self, client: Client) -> None:
        """Forget a client that hung up, or waited too long."""
        arrival = self._arrivals.pop(client, None)
        if arrival is not None:
            self._waiting.pop(arrival, None)
            if arrival.port is not None:
                del self._asked[arrival.port][arrival.number]
                self._go_on()

    # Workers

    def joined(self, port: Port, *, decides: bool) -> None:
        """A worker takes events from now on; if it decides on handshakes, these too."""
        self._workers[port] = decides
        self._see()

    def left(self, port: Port) -> None:
        """A worker takes nothing new; it will decide on what it has."""
        if self._workers.pop(port, None) is not None:
            self._see()

    def lost(self, port: Port) -> None:
        """A worker is gone: others get what it had."""
        again: dict[_Arrival, None] = {}
        for arrival in self._asked.pop(port, {}).values():
            arrival.port = None
            arrival.tries += 1
            if arrival.tries < TRIES:
                again[arrival] = None
            else:
                del self._arrivals[arrival.client]
                arrival.door.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "nobody could decide", RETRY_AFTER, UNDECIDED)
        self._waiting = again | self._waiting
        self.left(port)
        self._go_on()

    def decided(self, port: Port, number: int) -> tuple[Client, Door] | None:
        """Return whom a worker decided on; None if that one gave up meanwhile."""
        arrival = self._asked.get(port, {}).pop(number, None)
        if arrival is None:
            return None
        del self._arrivals[arrival.client]
        self._go_on()
        return arrival.client, arrival.door

    def _see(self) -> None:
        """See whether clients have to wait. When the last worker goes, that stays as it is: the next may be like it."""
        if self._workers:
            self._needed = any(self._workers.values())
        self._go_on()

    def _go_on(self) -> None:
        """Ask about those that wait, as far as there is room; let them in if nobody has to be asked."""
        while self._waiting:
            free = [
                port for port, decides in self._workers.items() if decides and len(self._asked.get(port, ())) < AT_ONCE
            ]
            if self.needed and not free:
                return
            arrival = next(iter(self._waiting))
            del self._waiting[arrival]
            if free:
                self._ask(self._choose(arrival.client, free), arrival)
            else:
                del self._arrivals[arrival.client]
                arrival.door.admit(None)

    def _ask(self, port: Port, arrival: _Arrival) -> None:
        self._number += 1
        arrival.port, arrival.number = port, self._number
        self._asked.setdefault(port, {})[arrival.number] = arrival
        client = arrival.client
        port.send([op.HANDSHAKE, arrival.number, client.id, client.introduction, arrival.headers])
