"""Events on their way to workers: who gets them, how many at once, and what happens when a worker goes.

Rules:

* The events of one client are with one worker at a time, in order.
* An event is kept until its worker acknowledges it. When the worker is lost, its events go to others, marked redelivered.
* A worker has credit; past it, events wait here. With no worker at all, they wait too.
* When the set of workers changes, a client moves only if its choice falls out differently, and only when nothing of it is
  with its old worker; what comes meanwhile is held.
* A client with too many events here, or any client while all events together are too many, is not read from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from ..common.errors import LinkError
from ..common.messages import FORGET, Message
from .client import KNOWN, STALE, STRANGER, Client
from .placement import Router

OVERHEAD: Final = 200  #: bytes that an event is taken to cost beside its data


class Port:
    """One worker, as a gateway sees it: where its events go, and which of them are outstanding."""

    __slots__ = ("counter", "draining", "key", "name", "outstanding", "room", "send", "waiting")

    def __init__(self, name: str, key: str, credit: int, send: Callable[[Message], None]) -> None:
        self.name = name
        self.key = key
        self.room = credit
        self.send = send
        self.counter = 0  # the number of the last event sent
        self.outstanding: dict[int, Client] = {}
        self.waiting: deque[Client] = deque()  # a client for each event that waits for credit
        self.draining = False

    def __repr__(self) -> str:
        return f"worker {self.name}"


class Dispatch:
    """The events of all clients of one gateway.

    Args:
        router: chooses the worker of a client.
        client_pending: events of one client from which on it is not read.
        event_buffer: bytes of all events together from which on nobody is read.
    """

    def __init__(self, router: Router, client_pending: int, event_buffer: int) -> None:
        self._router = router
        self._client_pending = client_pending
        self._event_buffer = event_buffer
        self._ports: list[Port] = []  # those that take new clients
        self._generation = 0
        self._homeless: dict[Client, None] = {}  # in order of arrival; their events wait for a worker
        self._held: dict[Client, None] = {}  # not read because all events together are too many
        self.bytes = 0
        self.redelivered = 0
        self.finished: Callable[[Client], None] = lambda client: None  # told when a closed client has nothing left

    @property
    def workers(self) -> list[Port]:
        """The workers that take events."""
        return self._ports

    @property
    def full(self) -> bool:
        """Whether all events together are too many."""
        return self.bytes > self._event_buffer

    @property
    def queued(self) -> int:
        """How many events wait for credit or for a worker."""
        waiting = sum(len(port.waiting) for port in self._ports)
        return waiting + sum(len(client.events) for client in self._homeless)

    def event(self, client: Client, message: Message) -> None:
        """Take the next event of a client: ``[opcode, 0, client, number, None, data]``."""
        client.events.append(message)
        self.bytes += len(message[5]) + OVERHEAD
        port = client.port
        if client.generation == self._generation and port is not None:
            client.assigned += 1
            if port.room > 0 and not port.waiting:
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
        client = port.outstanding.pop(number, None)
        if client is None or client.events[0][1] != number:
            raise LinkError(f"acknowledges event {number}, which it does not have or which is not the client's first")
        self.bytes -= len(client.events.pop(0)[5]) + OVERHEAD
        client.sent -= 1
        client.assigned -= 1
        port.room += 1
        if port.waiting:
            self._send(port, port.waiting.popleft())
        if client.events:
            if not client.assigned:  # the rest was held until now
                self._settle(client)
        elif not client.open:
            self.finished(client)
        if client.paused or self._held:
            self._go_on_reading(client)

    def joined(self, port: Port) -> None:
        """A worker takes events from now on."""
        self._ports.append(port)
        self._generation += 1
        homeless, self._homeless = self._homeless, {}
        for client in homeless:
            self._settle(client)

    def draining(self, port: Port) -> None:
        """A worker takes no new events; it will acknowledge those that it has."""
        if port.draining:
            return
        port.draining = True
        self._leave(port)
        waiting, port.waiting = port.waiting, deque()
        for client in dict.fromkeys(waiting):
            client.assigned = client.sent
            if not client.sent:
                self._settle(client)

    def lost(self, port: Port) -> None:
        """A worker is gone, and with it what it knew: others get its events, marked redelivered."""
        self._leave(port)
        clients = dict.fromkeys([*port.outstanding.values(), *port.waiting])
        port.outstanding.clear()
        port.waiting.clear()
        for client in clients:
            self.redelivered += client.sent
            client.redeliver = max(client.redeliver, client.sent)
            client.assigned = client.sent = 0
            self._settle(client)

    def _leave(self, port: Port) -> None:
        if port in self._ports:
            self._ports.remove(port)
            self._generation += 1

    def _settle(self, client: Client) -> None:
        """Find the worker for the events of a client that have none, or hold them until the client may move."""
        if not self._ports:
            if not client.assigned:
                self._homeless[client] = None
            return
        old = client.port
        port = self._router.route(client, self._ports)
        if port is not old:
            if client.assigned:
                return
            if old is not None and client.told != STRANGER:
                old.send([FORGET, client.id])  # to a worker that is lost this goes nowhere
            client.port = port
            client.told = STRANGER
            client.applied = 0
        elif client.assigned and not self._router.sticky:
            pass  # the same one again: no reason to wait
        client.generation = self._generation if self._router.sticky else -1
        while client.assigned < len(client.events):
            client.assigned += 1
            if port.room > 0 and not port.waiting:
                self._send(port, client)
            else:
                port.waiting.append(client)

    def _send(self, port: Port, client: Client) -> None:
        message = client.events[client.sent]
        client.sent += 1
        port.room -= 1
        port.counter = message[1] = number = port.counter + 1
        port.outstanding[number] = client
        if client.told or client.redeliver:
            message[4] = self._state(client)
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
        if not client.paused and client.open:
            client.paused = True
            client.connection.pause()

    def _go_on_reading(self, client: Client) -> None:
        if self._held:
            if self.bytes > self._event_buffer * 3 // 4:
                return
            held, self._held = self._held, {}
            for other in held:
                self._resume(other)
        self._resume(client)

    def _resume(self, client: Client) -> None:
        if client.paused and len(client.events) <= self._client_pending // 2:
            client.paused = False
            if client.open:
                client.connection.resume()
