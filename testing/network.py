"""The simulated network: sockets for links that behave as ZeroMQ's do, over wires that are slow, break and heal.

What goes from one socket to another arrives in order, each pair in its own time, so that pairs overtake each other. When a
wire is cut, what is on its way is lost, and nobody is told.
"""

from __future__ import annotations

import errno
from collections import deque
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Final

import zmq

from .clock import Loop, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from .clock import World

SPIKE: Final = 0.05  #: of what is sent, so much takes ten times as long
LOST: Final = inf  # in the place of that number: it does not arrive
REDIAL: Final = (0.05, 0.1)  #: seconds between attempts to connect


class Pipe:
    """One direction between two ends: it keeps the order, and takes its time.

    Args:
        world: whose time passes.
        chance: says how much.
        deliver: is called with each item that arrives.
    """

    def __init__(self, world: World, chance: Random, deliver: Callable[[Any], object]) -> None:
        self._world = world
        self._chance = chance
        self._deliver = deliver
        self._under_way: deque[tuple[float, Any]] = (
            deque()
        )  # the how manieth it was of all that was sent, or LOST, and what
        self._last = 0.0
        self.arrived = 0.0  #: the number of what arrived last
        self.deaf = False  #: whether it loses all that is sent

    @property
    def under_way(self) -> list[float]:
        """Of the items that are under way, the how manieth each was of all that was ever sent."""
        return [sent for sent, _ in self._under_way if sent != LOST]

    def send(self, item: Any) -> None:
        """Let something go on its way."""
        delay = self._chance.uniform(*self._world.delay)
        if self._chance.random() < SPIKE:
            delay *= 10
        self._last = max(self._last, self._world.now + delay)
        self._world.sent += 1
        self._under_way.append((LOST if self.deaf else self._world.sent, item))
        self._world.at(self._last, self._arrive)

    def lose(self, since: float = -inf) -> None:
        """Lose what is under way, or only what was sent from then on."""
        self._under_way = deque((LOST if sent >= since else sent, item) for sent, item in self._under_way)

    def _arrive(self) -> None:
        sent, item = self._under_way.popleft()
        if sent != LOST:
            self.arrived = sent
            self._deliver(item)


def lose_some(pipes: Sequence[Pipe], chance: Random) -> None:
    """Lose what one process sent last, over all its pipes: it dies, and what it had not handed to the system dies with it."""
    arrived = max((pipe.arrived for pipe in pipes), default=0)  # what was sent before that had left, too
    moments = sorted({sent for pipe in pipes for sent in pipe.under_way if sent > arrived})
    if moments:
        since = chance.choice([*moments, inf])
        for pipe in pipes:
            pipe.lose(since)


class Connection:
    """What is between a socket that connected and the one that it reached."""

    def __init__(self, network: Network, dealer: Socket, router: Socket) -> None:
        name = f"{dealer.loop.name}/{router.loop.name}"
        self.dealer = dealer
        self.router = router
        self.identity = dealer.identity
        chance = network.chance_of(name)
        self.up = Pipe(network.world, chance, self._at_router)
        self.down = Pipe(network.world, chance, dealer.put)
        self.patience = dealer.patience

    def _at_router(self, frame: bytes) -> None:
        self.router.put(self.identity, frame)

    def ends_at(self, one: str, other: str) -> bool:
        """Return whether it is between processes of these names."""
        return {self.dealer.loop.name, self.router.loop.name} == {one, other}


class Network:
    """All sockets, and the wires between processes, which are named as the processes are.

    Args:
        world: whose time passes.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.bound: dict[str, Socket] = {}
        self.connections: list[Connection] = []
        self._cut: dict[frozenset[str], bool] = {}
        self._chances: dict[str, Random] = {}
        self._sockets: list[Socket] = []
        self._numbers = count(1)  # of sockets; the simulated processes, too, would mix up two of one number

    def chance_of(self, name: str) -> Random:
        """Return the chance of what has this name, which goes on where it was."""
        if name not in self._chances:
            self._chances[name] = self.world.chance(name)
        return self._chances[name]

    def socket(self, loop: Loop, kind: int) -> Socket:
        """Return a new socket of a process."""
        made = Socket(self, loop, kind, number=next(self._numbers))
        self._sockets.append(made)
        return made

    def cut(self, one: str, other: str, *, silent: bool = True) -> None:
        """Cut the wire between two processes: what is under way is lost.

        Args:
            one: a process.
            other: another one.
            silent: whether the sockets do not notice, until the wire heals or their own patience ends; otherwise the
                connection breaks at once.
        """
        self._cut[frozenset((one, other))] = True
        for connection in [found for found in self.connections if found.ends_at(one, other)]:
            connection.up.lose()
            connection.down.lose()
            connection.up.deaf = connection.down.deaf = True
            if silent:
                patience = connection.patience * self.chance_of(f"{one}/{other}").uniform(1, 2)
                self.world.at(self.world.now + patience, partial(self._lose_patience, connection))
            else:
                self.break_(connection)

    def heal(self, one: str, other: str) -> None:
        """Mend the wire between two processes."""
        self._cut.pop(frozenset((one, other)), None)
        for connection in self.connections:
            if connection.ends_at(one, other):
                connection.up.deaf = connection.down.deaf = False

    def is_cut(self, one: str, other: str) -> bool:
        """Return whether nothing gets from one to the other."""
        return frozenset((one, other)) in self._cut

    def vanish(self, loop: Loop) -> None:
        """Let all sockets of a process disappear, and with them what it sent last, from some moment on."""
        sockets = [socket for socket in self._sockets if socket.loop is loop]
        pipes = [
            connection.up if connection.dealer is socket else connection.down
            for socket in sockets
            for connection in socket.connections()
        ]
        lose_some(pipes, self.chance_of(f"{loop.name}/end"))
        for socket in sockets:
            socket.close()

    def forget(self, socket: Socket) -> None:
        """Take note that a socket is closed."""
        self._sockets.remove(socket)
        if self.bound.get(socket.address) is socket:
            del self.bound[socket.address]

    def dial(self, dealer: Socket) -> None:
        """Connect a socket, now or when it is possible."""
        chance = self.chance_of(f"{dealer.loop.name}/dial")
        self.world.at(self.world.now + chance.uniform(*self.world.delay), partial(self._dialled, dealer, dealer.dials))

    def break_(self, connection: Connection) -> None:
        """End a connection. What is under way still arrives, unless it was lost before."""
        self.connections.remove(connection)
        dealer, router = connection.dealer, connection.router
        if router.routes.get(connection.identity) is connection:
            del router.routes[connection.identity]
        if dealer.connection is connection:
            dealer.connection = None
            if not dealer.closed and dealer.address:
                self.dial(dealer)

    def _dialled(self, dealer: Socket, dials: int) -> None:
        if dealer.closed or dealer.dials != dials or dealer.connection is not None:
            return
        router = self.bound.get(dealer.address)
        there = router is not None and not self.is_cut(dealer.loop.name, router.loop.name)
        if router is None or not there or State.FROZEN in (router.loop.state, dealer.loop.state):
            wait = self.chance_of(f"{dealer.loop.name}/dial").uniform(*REDIAL)
            self.world.at(self.world.now + wait, partial(self._dialled, dealer, dials))
            return
        former = router.routes.get(dealer.identity)
        if former is not None:  # handed over
            self.break_(former)
        connection = dealer.connection = Connection(self, dealer, router)
        router.routes[dealer.identity] = connection
        self.connections.append(connection)
        for frame in dealer.take_waiting():
            connection.up.send(frame)

    def _lose_patience(self, connection: Connection) -> None:
        if connection in self.connections and connection.up.deaf:
            self.break_(connection)


@dataclass(frozen=True, slots=True)
class Frame:
    """One part of a message that was received."""

    bytes: bytes
    more: bool

    def get(self, name: str) -> str:
        """Tell where it comes from, which nobody knows here."""
        raise zmq.ZMQError(zmq.EINVAL)


class Socket:
    """What a link uses of a ROUTER or a DEALER of ZeroMQ."""

    def __init__(self, network: Network, loop: Loop, kind: int, number: int) -> None:
        self.loop = loop
        self.FD = number
        self.address = ""
        self.identity = b""
        self.closed = False
        self.patience = 2.0  #: seconds without a heartbeat after which a connection is given up
        self.routes: dict[bytes, Connection] = {}  #: of a ROUTER, by identity
        self.connection: Connection | None = None  #: of a DEALER
        self.dials = 0  #: how often a DEALER was told to connect
        self._network = network
        self._router = kind == zmq.ROUTER
        self._parts: deque[Frame] = deque()  # received
        self._target: Connection | None = None  # of a message of which the identity was sent
        self._waiting: list[bytes] = []  # sent by a DEALER without a connection

    # What the network does

    def connections(self) -> list[Connection]:
        """Return those that there are."""
        return [*self.routes.values(), *([self.connection] if self.connection is not None else [])]

    def put(self, *parts: bytes) -> None:
        """Receive a message."""
        if self.closed:
            return
        last = len(parts) - 1
        self._parts.extend(Frame(part, at < last) for at, part in enumerate(parts))
        reader = self.loop.readers.get(self.FD)
        if reader is not None:
            self.loop.poke(reader)

    def take_waiting(self) -> list[bytes]:
        """Return and forget what was sent before there was a connection."""
        waiting, self._waiting = self._waiting, []
        return waiting

    # What a link does

    def setsockopt(self, option: int, value: Any) -> None:
        """Heed the few options that matter here."""
        if option == zmq.IDENTITY:
            self.identity = value
        elif option == zmq.HEARTBEAT_TIMEOUT:
            self.patience = value / 1000

    def getsockopt(self, option: int) -> int:
        """Return the events: whether something can be received."""
        return int(zmq.POLLIN) if self._parts else 0

    def getsockopt_string(self, option: int) -> str:
        """Return the address that is bound."""
        return self.address

    def bind(self, address: str) -> None:
        """Listen; at port 0 at one that is free."""
        host, _, port = address.rpartition(":")
        if port == "0":
            address = f"{host}:{40000 + self.FD}"
        if address in self._network.bound:
            raise zmq.ZMQError(zmq.EADDRINUSE)
        self.address = address
        self._network.bound[address] = self

    def connect(self, address: str) -> None:
        """Connect, and go on trying."""
        self.address = address
        self.dials += 1
        self._network.dial(self)

    def disconnect(self, address: str) -> None:
        """Connect no more, and drop what waits."""
        if not self.address:
            raise zmq.ZMQError(errno.ENOENT)
        self.address = ""
        self._waiting.clear()
        if self.connection is not None:
            self._network.break_(self.connection)

    def send(self, data: bytes, flags: int = 0) -> None:
        """Send one part: what was sent to nobody is lost, as with ROUTER_MANDATORY."""
        if not self._router:
            if not self.address:
                raise zmq.Again
            if self.connection is None:
                self._waiting.append(data)
            else:
                self.connection.up.send(data)
        elif flags & zmq.SNDMORE:
            self._target = self.routes.get(data)
            if self._target is None:
                raise zmq.ZMQError(zmq.EHOSTUNREACH)
        else:
            assert self._target is not None, "an identity comes first"
            self._target.down.send(data)

    def recv(self, flags: int = 0, *, copy: bool = True) -> Frame:
        """Return the next part that was received."""
        if not self._parts:
            raise zmq.Again
        return self._parts.popleft()

    def close(self, linger: int | None = None) -> None:
        """Close. What was sent is still under way."""
        if self.closed:
            return
        self.closed = True
        for connection in self.connections():
            self._network.break_(connection)
        self._network.forget(self)
