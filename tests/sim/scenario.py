"""A scenario: a small cluster, clients that number their messages, faults, and what must be true in the end.

All of it follows from a seed, so what fails once fails again: see ``soak.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gatecrew import App, QueryError
from gatecrew.business.worker import Worker
from gatecrew.common import wire
from gatecrew.gateway.server import Gateway
from gatecrew.testing import Closed, Guest, Simulation
from gatecrew.testing.clock import current_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from gatecrew import Client, Request
    from gatecrew.common.link import Peer

FAULTY: Final = 1.2  #: seconds in which faults begin and clients talk
LONGEST: Final = 2.5  #: of a fault
PATIENCE: Final = 30.0  #: seconds after the last fault in which everything has to be in order again


class Broken(Exception):
    """What must be true is not."""


@dataclass(frozen=True)
class Run:
    """One run of a handler."""

    kind: str
    client: str
    number: int
    redelivered: bool
    worker: str


@dataclass(eq=False)
class Player:
    """A client, and what it did."""

    name: str
    gateway: str
    guest: Guest | None = None
    sent: list[str] = field(default_factory=list)
    named: set[str] = field(default_factory=set)  # what others sent to it by its uid when it was there

    @property
    def echoes(self) -> list[str]:
        assert self.guest is not None, "it has connected"
        return [data for data in self.guest.received if isinstance(data, str) and data.isdecimal()]

    @property
    def letters(self) -> list[str]:
        assert self.guest is not None, "it has connected"
        return [data for data in self.guest.received if isinstance(data, str) and data.startswith("from ")]


class Scenario:
    """One run of a cluster under faults.

    Args:
        seed: of everything.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.runs: list[Run] = []
        self.story: list[str] = []  #: what was done to the cluster
        self.players: list[Player] = []
        self.killed: set[str] = set()  # names of processes that were killed at least once
        self.harmed: set[str] = set()  # names of all to which something was done
        self.lost: list[Guest] = []  # those of gateways that were killed
        self.mourned: list[Guest] = []  # of these, those whose close has to be told
        self.cuts: set[frozenset[str]] = set()  # pairs that were cut from each other at least once
        self._errors = _Errors()
        self._app = App()
        self._app.on_connect(self._on_connect)
        self._app.on_message(self._on_message)
        self._app.on_close(self._on_close)
        self._chance = chance = random.Random(seed)
        self.cluster = Simulation(
            self._app, gateways=2, workers=chance.choice((2, 2, 3)), registers=chance.choice((1, 2)), seed=seed
        )
        self.cluster.world.delay = (0.0001, chance.choice((0.005, 0.05)))

    def run(self) -> None:
        """Play it.

        Raises:
            Broken: if something is not as it must be.
        """
        logger = logging.getLogger("gatecrew")
        logger.addHandler(self._errors)
        try:
            self.cluster.run(self._play)
        finally:
            logger.removeHandler(self._errors)

    async def _play(self, cluster: Simulation) -> None:
        chance = self._chance
        async with asyncio.TaskGroup() as group:
            for number in range(chance.randint(2, 5)):
                player = Player(f"u{number}", f"gateway-{chance.randint(1, 2)}")
                self.players.append(player)
                group.create_task(self._talk(player))
            for _ in range(chance.randint(1, 3)):
                group.create_task(self._harm())
        self._tell("all is healed")
        await self._settle()
        await cluster.sleep(0.2)  # whoever says something twice may do so when all is well
        await self._settle()
        problems = list(self._problems())
        if problems:
            raise Broken("\n".join(problems))

    async def _settle(self) -> None:
        until = self.cluster.time + PATIENCE
        while self.cluster.time < until and any(self._problems()):
            await self.cluster.sleep(0.1)

    # What clients do

    async def _talk(self, player: Player) -> None:
        cluster, chance = self.cluster, self._chance
        await cluster.sleep(chance.uniform(0, 0.3))
        try:
            guest = player.guest = await cluster.connect(player.gateway, f"/{player.name}")
            messages = chance.randint(3, 7)
            for number in range(1, 1 + messages):
                await cluster.sleep(chance.uniform(0, 2 * FAULTY / messages) if chance.random() < 0.7 else 0)
                addressee = chance.choice(self.players)
                text = f"{number}"
                if chance.random() < 0.3:
                    text = f"{number} {addressee.name}"
                    if addressee.guest is not None and addressee.guest.open and addressee.guest.received:
                        addressee.named.add(f"from {player.name} {number}")
                guest.send(text)
                player.sent.append(f"{number}")
            if chance.random() < 0.5:
                guest.close() if chance.random() < 0.5 else guest.vanish()
        except (Closed, KeyError):
            if player.gateway not in self.killed:
                raise

    async def _on_connect(self, client: Client, request: Request) -> None:
        self._record("connect", client)
        client.bind(request.path[1:])
        client.join("all")
        client.send("welcome")

    async def _on_message(self, client: Client, data: str) -> None:
        self._record("message", client)
        number, _, addressee = data.partition(" ")
        way = self.cluster.random.random()
        if way < 0.2:
            await asyncio.sleep(way)
        elif way < 0.3:
            with contextlib.suppress(QueryError):
                await self._app.group("all").count()
        client.session["count"] = client.session.get("count", 0) + 1
        client.send(number)
        if addressee:
            self._app.uid(addressee).send(f"from {client.uid} {number}")

    async def _on_close(self, client: Client, code: int, reason: str) -> None:
        self._record("close", client)

    def _record(self, kind: str, client: Client) -> None:
        self.runs.append(Run(kind, client.id, client.number, client.redelivered, current_loop.get().name))

    # What is done to the cluster

    async def _harm(self) -> None:
        chance = self._chance
        await self.cluster.sleep(chance.uniform(0.1, FAULTY))
        harms: list[Callable[[], Coroutine[None, None, None]]] = [
            self._kill_worker,
            self._kill_worker,
            self._freeze_worker,
            self._cut,
            self._cut,
            self._cut,
            self._kill_register,
            self._kill_gateway,
            self._reload,
        ]
        await chance.choice(harms)()

    def _tell(self, what: str) -> None:
        self.story.append(f"{self.cluster.time:7.3f} {what}")

    def _some(self, role: str) -> str | None:
        names = [name for name, process in self.cluster.processes.items() if name.startswith(role) and process.ready]
        return self._chance.choice(names) if names else None

    async def _kill_worker(self) -> None:
        name = self._some("worker")
        if name is not None:
            self._tell(f"kill {name}")
            self.killed.add(name)
            self.harmed.add(name)
            self.cluster.kill(name)
            await self.cluster.sleep(self._chance.uniform(0, 1))
            await self.cluster.start(name)
            self._tell(f"{name} is back")

    async def _freeze_worker(self) -> None:
        name = self._some("worker")
        if name is not None:
            process = self.cluster.process(name)
            self.harmed.add(name)
            self._tell(f"freeze {name}")
            process.loop.freeze()
            await self.cluster.sleep(self._chance.uniform(0.1, LONGEST))
            if not process.ended:
                process.loop.go_on()
                self._tell(f"{name} goes on")

    async def _cut(self) -> None:
        chance = self._chance
        roles = chance.choice((("worker", "gateway"), ("worker", "gateway"), ("worker", "register"), ("gateway",) * 2))
        pair = {self._some(role) for role in roles}
        if len(pair) == 2 and None not in pair:
            one, other = sorted(name for name in pair if name is not None)
            silent = chance.random() < 0.7
            self._tell(f"cut {one} from {other}{' silently' if silent else ''}")
            self.cuts.add(frozenset((one, other)))
            self.harmed |= {one, other}
            self.cluster.cut(one, other, silent=silent)
            await self.cluster.sleep(chance.uniform(0.1, LONGEST))
            self.cluster.heal(one, other)
            self._tell(f"heal {one} and {other}")

    async def _kill_register(self) -> None:
        name = self._some("register")
        if name is not None:
            self._tell(f"kill {name}")
            self.killed.add(name)
            self.cluster.kill(name)
            await self.cluster.sleep(self._chance.uniform(0, LONGEST))
            await self.cluster.start(name)
            self._tell(f"{name} is back")

    async def _kill_gateway(self) -> None:
        name = self._some("gateway")
        if name is not None and len(self.gateways) == 2 and not any(one.startswith("gateway") for one in self.killed):
            self._tell(f"kill {name}")
            self.killed.add(name)
            process = self.cluster.process(name)
            self.lost += process.guests
            if isinstance(process.service, Gateway) and self._is_known(process.service):
                self.mourned += process.guests
            self.cluster.kill(name)
            await self.cluster.sleep(self._chance.uniform(0, LONGEST))
            await self.cluster.start(name)
            self._tell(f"{name} is back")

    @staticmethod
    def _is_known(gateway: Gateway) -> bool:
        """Return whether its buddy says that it knows its clients."""
        return gateway._buddy.chosen in gateway._buddy._known

    async def _reload(self) -> None:
        name = self._some("worker")
        if name is not None:
            former = self.cluster.process(name)
            self._tell(f"replace {name}")
            self.harmed.add(name)
            await self.cluster.start(name)
            await self.cluster.end(former)
            self._tell(f"{name} is replaced")

    # What must be true

    @property
    def gateways(self) -> list[Gateway]:
        services = (process.service for process in self.cluster.processes.values())
        return [service for service in services if isinstance(service, Gateway)]

    @property
    def workers(self) -> list[Worker]:
        services = (process.service for process in self.cluster.processes.values())
        return [service for service in services if isinstance(service, Worker)]

    @property
    def _living(self) -> list[Player]:
        return [player for player in self.players if player.guest is not None and player.guest not in self.lost]

    def _problems(self) -> Iterator[str]:
        if not self.cluster.linked():
            yield "not every worker takes events from every gateway"
        for gateway in self.gateways:
            if not self._is_known(gateway):
                yield f"{gateway._node.name}: its buddy does not know its clients"
        yield from self._leftovers()
        yield from self._promises()

    def _promises(self) -> Iterator[str]:
        yield from (f"logged: {error}" for error in self._errors.messages)
        by_event = Counter((run.client, run.number) for run in self.runs if not run.redelivered)
        yield from (
            f"event {event} was delivered twice, and not marked" for event, times in by_event.items() if times > 1
        )
        for player in self._living:
            yield from self._promises_to(player)
        if not any(len(pair) == 2 and all(name.startswith("gateway") for name in pair) for pair in self.cuts):
            for guest in self.mourned:
                yield from self._closed_by_a_buddy(guest)

    def _closed_by_a_buddy(self, guest: Guest) -> Iterator[str]:
        """Say if the close of a client whose gateway was lost was not told once; twice it may be if its worker failed, too."""
        runs = [run for run in self.runs if guest.accepted and run.client == guest.id]
        closes = [run for run in runs if run.kind == "close"]
        first = [run for run in closes if not run.redelivered and run.worker not in self.harmed]
        if runs and (not closes or len(first) > 1):
            yield f"{guest}: its gateway was lost, and told were {[run.kind for run in runs]}"

    def _promises_to(self, player: Player) -> Iterator[str]:
        guest = player.guest
        assert guest is not None, "it lives"
        runs = [run for run in self.runs if run.client == guest.id]
        numbers = list(dict.fromkeys(run.number for run in runs))
        events = 1 + len(player.sent) + (guest.closed is not None)
        kinds = list(dict.fromkeys(run.kind for run in runs))
        who = f"{player.name} at {player.gateway}"
        if numbers != list(range(1, events + 1)):
            yield f"{who}: its {events} events were handled in the order {numbers}"
        if kinds != ["connect", *["message"] * bool(player.sent), *["close"] * (guest.closed is not None)]:
            yield f"{who}: the order was {kinds}"
        echoes = player.echoes
        if echoes != player.sent[: len(echoes)] or (guest.open and len(echoes) < len(player.sent)):
            yield f"{who}: it sent {player.sent} and got {echoes}"
        letters = Counter(player.letters)
        if max(letters.values(), default=0) > 1:
            yield f"{who}: it got twice what others sent: {letters}"
        missed = {letter for letter in player.named - letters.keys() if not self._may_be_lost(letter, player.gateway)}
        if guest.open and missed:
            yield f"{who}: it did not get what others sent: {missed}"

    def _may_be_lost(self, letter: str, gateway: str) -> bool:
        """Return whether two faults at once may have lost it.

        These are: the gateway of the sender died, or the worker that sent it died while its link to the gateway was down.
        """
        _, sender, number = letter.split()
        ids = {player.guest.id for player in self.players if player.name == sender and player.guest is not None}
        workers = {run.worker for run in self.runs if run.client in ids and run.number == 1 + int(number)}
        if any(player.guest in self.lost for player in self.players if player.name == sender):
            return True
        return any({worker, gateway} in self.cuts and worker in self.killed for worker in workers)

    def _leftovers(self) -> Iterator[str]:
        """Say what grows, and where what is known is not the truth."""
        for gateway in self.gateways:
            yield from self._leftovers_of_gateway(gateway)
        for worker in self.workers:
            yield from self._leftovers_of_worker(worker)
        yield from (f"batches are not acknowledged: {peer!r}" for peer in self._unacknowledged())

    def _unacknowledged(self) -> Iterator[Peer]:
        for gateway in self.gateways:
            assert gateway._acceptor is not None, "it has started"
            yield from (peer for peer in gateway._acceptor._peers() if peer.lane is not None and peer.lane.unacked)
        for worker in self.workers:
            peers = (gateway.peer for gateway in worker._hub.gateways.values())
            yield from (peer for peer in peers if peer.lane is not None and peer.lane.unacked)

    def _leftovers_of_gateway(self, gateway: Gateway) -> Iterator[str]:
        name = gateway._node.name
        index = gateway._core.index
        here = [player for player in self._living if player.gateway == name and player.guest is not None]
        opened = {player.guest.id: player for player in here if player.guest is not None and player.guest.open}
        groups = {group: {client.id for client in members} for group, members in index.groups.items()}
        sessions = {client.id: client.session for client in index.clients.values()}
        yield from _differ(f"{name}: clients", index.clients.keys(), opened.keys())
        yield from _differ(f"{name}: groups", groups, {"all": set(opened)} if opened else {})
        yield from _differ(f"{name}: uids", index.uids.keys(), {player.name for player in opened.values()})
        dispatch = gateway._dispatch
        for what, rest in {
            "bytes of events": dispatch.bytes,
            "queued": dispatch.queued,
            "homeless": dispatch._homeless,
            "held": dispatch._held,
            "closing": gateway._core._closing,
            "outstanding": [port for port in dispatch.workers if port.outstanding or port.waiting or port.suspects],
        }.items():
            if rest:
                yield f"{name}: {what} are left: {rest}"
        for client_id, player in opened.items():
            counted = wire.unpack(sessions[client_id]).get("count", 0)
            if counted != len(player.sent):
                yield f"{name}: {player.name} sent {len(player.sent)}, and its session says {counted}"

    def _leftovers_of_worker(self, worker: Worker) -> Iterator[str]:
        name = worker._name
        hub, runner = worker._hub, worker._runner
        yield from _differ(f"{name}: gateways", hub.gateways.keys(), {gateway._node.key for gateway in self.gateways})
        for what, rest in {
            "questions": hub._gathers,
            "closing": hub._closing,
            "ready": runner._ready,
            "held": runner._held,
            "running": runner._running,
            "late": [gateway for gateway in hub.gateways.values() if gateway.late or gateway.acks or gateway.peer.out],
        }.items():
            if rest:
                yield f"{name}: {what} are left: {rest}"
        clients = {client for gateway in self.gateways for client in gateway._core.index.clients}
        known = {client for gateway in hub.gateways.values() for client in gateway.clients}
        if known - clients:
            yield f"{name}: it knows clients that are gone: {known - clients}"


def _differ(what: str, found: object, expected: object) -> Iterator[str]:
    if found != expected:
        yield f"{what}: {found}, expected {expected}"


def verdict(seed: int) -> str:
    """Run a scenario; return what is wrong, what happened and how to see it again, or "" if all is right."""
    scenario = Scenario(seed)
    try:
        scenario.run()
    except Exception as error:  # noqa: BLE001  # whatever it is, the seed has to be told
        wrong = str(error) if isinstance(error, Broken) else "".join(traceback.format_exception(error))
        return "\n".join(
            [f"seed {seed}: {wrong}", *scenario.story, f'see it again: make soak ARGS="--seed {seed} --log"']
        )
    return ""


class _Errors(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))
