"""Events on their way to workers: who gets them, how many at once, and what happens when a worker goes.

Rules:

* The events of one client are with one worker at a time, in order.
* An event is kept until its worker acknowledges it. When the worker is lost, its events go to others, marked redelivered.
* A worker has credit; past it, events wait here. With no worker at all, they wait too.
* When the set of workers changes, a client moves only if its choice falls out differently, and only when nothing of it is
  with its old worker; what comes meanwhile is held.
* An event may be what kills workers. The first event of a client that was with two that were lost is a *suspect*: a worker has one
  of these at a time, so that it shows which it is. One that was with four is given up, and the client's later events go on. A
  worker that was only cut off does not count.
* A client with too many events here, or any client while all events together are too many, is not read from.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from ..common.errors import LinkError
from ..common.messages import FORGET, MESSAGE, PING, Message
from .client import KNOWN, STALE, STRANGER, Client
from .placement import rendezvous

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .placement import Router

_log = logging.getLogger(__name__)

SUSPECT: Final = 2  #: workers that were lost with an event from which on it is tried apart from other suspects
GIVEN_UP: Final = 4  #: workers that were lost with an event from which on no other gets it
OVERHEAD: Final = 200  #: bytes that an event is taken to cost beside its data
_HEADER_OVERHEAD: Final = 100  # bytes that a header is taken to cost beside its text


class Port:
    """One worker, as a gateway sees it: where its events go, and which of them are outstanding."""

    __slots__ = ("counter", "key", "name", "outstanding", "pings", "room", "send", "suspects", "waiting")

    def __init__(self, name: str, key: str, credit: int, send: Callable[[Message], None]) -> None:
        self.name = name
        self.key = key
        self.room = credit  # so many more events may be sent
        self.send = send
        self.counter = 0  # the number of the last event sent
        self.outstanding: dict[int, Client] = {}
        self.pings: dict[int, Callable[[bool], object]] = {}  # who waits for each, told whether it was acknowledged
        self.suspects: dict[Client, None] = {}  # in order of arrival; the first of them is being tried
        self.waiting: deque[Client] = deque()  # a client for each event that waits; empty while there is room

    def __repr__(self) -> str:
        return f"worker {self.name}"


class Dispatch:
    """The events of all clients of one gateway.

    Args:
        router: chooses the worker of a client.
        client_pending: events of one client from which on it is not read.
        event_buffer: bytes of all events together past which nobody is read. A character of text counts as one.
    """

    def __init__(self, router: Router, client_pending: int, event_buffer: int) -> None:
        self._route, self._sticky = router
        self._client_pending = client_pending
        self._event_buffer = event_buffer
        self._generation = 0  # of the set of workers
        self._homeless: dict[Client, None] = {}  # in order of arrival; their events wait for a worker
        self._tried: dict[Client, list[str]] = {}  # those whose first event was with workers that were lost: their keys
        self._held: dict[Client, None] = {}  # not read because all events together are too many
        self.workers: tuple[Port, ...] = ()  #: those that take events
        self.bytes = 0
        self.redelivered = 0
        self.misrouted = 0  #: how often the router failed
        self.gave_up: Callable[[Client, Message], object] = lambda client, message: None  #: told of each event given up
        self.finished: Callable[[Client], object] = lambda client: None  #: told when a closed client has nothing left

    @property
    def full(self) -> bool:
        """Whether all events together are too many."""
        return self.bytes > self._event_buffer

    @property
    def queued(self) -> int:
        """How many events wait for credit or for a worker."""
        waiting = sum(len(port.waiting) for port in self.workers)
        suspects = sum(len(client.events) - client.assigned for port in self.workers for client in port.suspects)
        return waiting + suspects + sum(len(client.events) for client in self._homeless)

    def event(self, client: Client, message: Message) -> None:
        """Take the next event of a client: ``[opcode, 0, client, number, None, data]``."""
        client.events.append(message)
        self.bytes += OVERHEAD + (len(message[5]) if message[0] == MESSAGE else _size(message[5]))
        port = client.port
        if port is not None and client.generation == self._generation and (self._sticky or client.assigned):
            client.assigned += 1
            if port.room > 0:
                self._send(port, client)
            else:
                port.waiting.append(client)
        else:
            self._settle(client)
        if len(client.events) >= self._client_pending or self.bytes > self._event_buffer:
            self._stop_reading(client)

    def acknowledged(self, port: Port, number: int) -> None:
        """Take a worker's word that an event is done.

        Raises:
            LinkError: if it is not the next one of a client that this worker has.
        """
        client = port.outstanding.get(number)
        if client is None or client.events[0][1] != number:  # what is outstanding is among the client's events
            returned = port.pings.pop(number, None)
            if returned is not None:
                returned(True)
                return
            raise LinkError(f"acknowledges event {number!r}, which it does not have or which is not the client's first")
        del port.outstanding[number]
        self._remove_first(client)
        client.sent -= 1
        client.assigned -= 1
        port.room += 1
        if port.waiting:
            self._send(port, port.waiting.popleft())
        if client.lost_with is not None:
            self._clear(client)
            if client in port.suspects:
                del port.suspects[client]
                self._try_next(port)
        if client.events:
            if not client.assigned:  # the rest was held until now
                self._settle(client)
        elif not client.open:
            self.finished(client)
        if client.paused or self._held:
            self._go_on_reading(client)

    @staticmethod
    def ping(port: Port, returned: Callable[[bool], object]) -> None:
        """Send a worker what it acknowledges like an event, past its credit; tell whether it did, or was lost."""
        port.counter = number = port.counter + 1
        port.pings[number] = returned
        port.send([PING, number])

    def joined(self, port: Port) -> None:
        """A worker takes events from now on, also such as wait for others."""
        others = self.workers
        self.workers = (*others, port)
        self._generation += 1
        homeless, self._homeless = self._homeless, {}
        for client in homeless:
            self._settle(client)
        for other in others:
            self._recall(other)

    def cut(self, key: str) -> None:
        """The worker with this key was lost because it was cut off: it did not die of what it had."""
        for keys in self._tried.values():
            if key in keys:
                keys.remove(key)

    def draining(self, port: Port) -> None:
        """A worker takes no new events; it will acknowledge those that it has."""
        self._leave(port)
        self._recall(port)

    def lost(self, port: Port) -> None:
        """A worker is gone, and with it what it knew: others get its events, marked redelivered."""
        port.send = _nowhere  # clients without events find out when they have one
        self._leave(port)
        clients = dict.fromkeys((*port.outstanding.values(), *port.waiting, *port.suspects))
        port.outstanding.clear()
        port.waiting.clear()
        port.suspects.clear()
        for client in clients:
            if client.sent:
                if client.lost_with is None:
                    client.lost_with = self._tried[client] = []
                client.lost_with.append(port.key)
                if len(client.lost_with) >= GIVEN_UP:
                    self._give_up(client)
            self.redelivered += client.sent
            client.redeliver += client.sent
            client.assigned = client.sent = 0
            if client.events:
                self._settle(client)
            elif not client.open:
                self.finished(client)
        pings, port.pings = port.pings, {}
        for returned in pings.values():
            returned(False)

    def _give_up(self, client: Client) -> None:
        """Take away the first event of a client, which was with too many workers that were lost."""
        self._clear(client)
        client.sent -= 1
        self.gave_up(client, self._remove_first(client))
        if client.paused or self._held:
            self._go_on_reading(client)

    def _clear(self, client: Client) -> None:
        """Hold nothing against the first event of a client."""
        client.lost_with = None
        del self._tried[client]

    def _remove_first(self, client: Client) -> Message:
        message = client.events.pop(0)
        self.bytes -= OVERHEAD + (len(message[5]) if message[0] == MESSAGE else _size(message[5]))
        return message

    def _leave(self, port: Port) -> None:
        if port in self.workers:
            self.workers = tuple(other for other in self.workers if other is not port)
            self._generation += 1

    def _recall(self, port: Port) -> None:
        """Place anew what waits for a worker's credit, or for its turn as a suspect."""
        waiting, port.waiting = port.waiting, deque()
        clients = dict.fromkeys((*waiting, *(client for client in port.suspects if not client.sent)))
        for client in clients:
            client.assigned = client.sent
            port.suspects.pop(client, None)
        for client in clients:
            self._settle(client)

    def _settle(self, client: Client) -> None:
        """Find the worker for the events of a client that have none, or hold them until the client may move."""
        if not self.workers:
            if not client.assigned:
                self._homeless[client] = None
            return
        old = client.port
        if old is not None and client in old.suspects:
            return
        port = self.choose(client, self.workers)
        if port is not old:
            if client.assigned:
                return
            if old is not None and client.told != STRANGER:
                old.send([FORGET, client.id])
            client.port = port
            client.told = STRANGER
            client.applied = 0
        if client.lost_with is not None and len(client.lost_with) >= SUSPECT:
            client.generation = -1  # its next events have to come by here
            port.suspects[client] = None
            self._try_next(port)
            return
        client.generation = self._generation
        while client.assigned < len(client.events):
            self._assign(port, client)

    def _try_next(self, port: Port) -> None:
        """Let a worker have its first suspect, unless it has it already."""
        client = next(iter(port.suspects), None)
        if client is not None and not client.assigned:
            self._assign(port, client)

    def _assign(self, port: Port, client: Client) -> None:
        """Send the client's next event, or let it wait for credit. :meth:`event` has these lines itself, as it is called most."""
        client.assigned += 1
        if port.room > 0:
            self._send(port, client)
        else:
            port.waiting.append(client)

    def choose(self, client: Client, workers: Sequence[Port]) -> Port:
        """Ask the router. A user's own one may fail; then the client gets a worker all the same."""
        try:
            port = self._route(client, workers)
            if port in workers:
                return port
            raise LookupError(f"it chose {port!r}, which is not one of the workers")
        except Exception as error:  # noqa: BLE001  (whatever a user's own router does wrong)
            self.misrouted += 1
            if self.misrouted == 1:  # it may fail with every event
                _log.error("[gateway] router fails, its clients are placed as by sticky", exc_info=error)
        return rendezvous(client, workers)

    def _send(self, port: Port, client: Client) -> None:
        message = client.events[client.sent]
        client.sent += 1
        port.room -= 1
        port.counter = message[1] = number = port.counter + 1
        port.outstanding[number] = client
        message[4] = self._state(client) if client.told or client.redeliver else None
        port.send(message)

    @staticmethod
    def _state(client: Client) -> list[object]:
        """Return what the worker has to be told of the client with its next event."""
        introduction = client.introduction if client.told == STRANGER else None
        redelivered = client.redeliver > 0
        client.redeliver -= redelivered
        client.told = KNOWN
        return [client.applied, client.uid, client.session, introduction, redelivered]

    @staticmethod
    def changed(client: Client) -> None:
        """The client's uid or session changed: its worker has to be told with the next event."""
        if client.told == KNOWN:
            client.told = STALE

    def _stop_reading(self, client: Client) -> None:
        if self.bytes > self._event_buffer:
            self._held[client] = None
        if not client.paused:
            client.paused = True
            client.connection.pause()

    def _go_on_reading(self, client: Client) -> None:
        if not self._held:
            self._resume(client)
            return
        if client.paused:  # it may have been for its own events, and this the last of them
            self._held[client] = None
        if self.bytes <= self._event_buffer * 3 // 4:
            held, self._held = self._held, {}
            for other in held:
                self._resume(other)

    def _resume(self, client: Client) -> None:
        if client.paused and len(client.events) <= self._client_pending // 2:
            client.paused = False
            client.connection.resume()


def _size(data: list[object]) -> int:
    """Return what the headers of a connect event, or code and reason of a close event, are taken to cost."""
    return sum(_HEADER_OVERHEAD + sum(map(len, item)) for item in data if isinstance(item, list))


def _nowhere(message: Message) -> None:
    """Take a message for a worker that is gone."""
