"""The gateway: a process that holds the sockets of clients, and the links of workers and callers."""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
import sys
from collections import Counter
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from ..common import messages as op
from ..common import process, reasons
from ..common.addresses import parse_listen
from ..common.errors import ConfigError, Fenced, LinkError
from ..common.ids import new_key
from ..common.link import LEFT, Acceptor, Connector, Node, Peer
from ..common.observation import Observation
from ..register.agent import Agent, link_settings
from . import credentials, drain
from .buddies import Buddy, Wards
from .core import Core
from .devices import Claims, Devices
from .dispatch import GIVEN_UP, Dispatch, Port
from .frames import encode
from .limits import Kept
from .listener import Listener
from .pages import Pages
from .placement import router

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..common.config import Config
    from ..common.messages import Message
    from ..register.view import Member
    from .client import Client
    from .handshake import Handshake
    from .stream import Stream

_log = logging.getLogger(__name__)


class Gateway:
    """One gateway: it owns the clients, and the links to those who command them.

    Args:
        config: the configuration.
        name: of this gateway.
        fail: is called if it cannot go on.
    """

    def __init__(self, config: Config, name: str, fail: process.Fail) -> None:
        gateway = config.gateway
        self._config = config
        self._fail = fail
        self._is_fenced = False
        self._loop = asyncio.get_running_loop()
        self._node = Node("gateway", name, new_key())
        self.counters: Counter[str] = Counter()
        sys.path.insert(0, str(config.folder))  # where the application's own router and hooks are
        choose = router(gateway.router, random.Random())  # noqa: S311  # it spreads load, it keeps no secret
        dispatch = Dispatch(choose, gateway.client_pending, gateway.event_buffer)
        dispatch.gave_up = self._gave_up
        self._dispatch = dispatch
        self._claims = Claims(gateway.devices_per_uid, keep_oldest=gateway.devices_over == "refuse", wall=time)
        self._devices = Devices(self._node.key, self._claims) if gateway.devices_per_uid else None
        self._claimant = Node("claimant", name, new_key())  # as which it claims places at other gateways
        self._owners: dict[str, Connector] = {}  # by key: the other gateways, which own uids
        self._core = Core(
            self._node.key,
            dispatch,
            encode,
            self.counters,
            monotonic,
            name=name,
            wall=time,
            auth_timeout=gateway.auth_timeout,
            kept=Kept(gateway.max_groups, gateway.max_session, gateway.max_name),
            devices=self._devices,
        )
        self._core.fenced = self._fenced
        self._buddy = Buddy(
            self._node.key, self._core.known_clients, self._connect_buddy, self._let_buddy_go, self._loop.call_later
        )
        self._core.mirror = self._buddy
        self._wards = Wards(self._adopt)
        self._buddies: dict[str, Connector] = {}  # by key: the gateways that know the clients of this one
        self._closing: set[asyncio.Task[None]] = set()
        self._hooks = import_hooks(gateway.hooks)
        pages = Pages.read(config.folder / gateway.pages) if gateway.pages else None
        self._listener = Listener(gateway, self, self.counters, pages=pages, folder=config.folder)
        self._meter = process.Meter()
        self._acceptor: Acceptor | None = None
        self._agent: Agent | None = None
        self._stopping = False
        self._watch: asyncio.Handle | None = None
        #: Takes one message of a client: the rules themselves, as this is where the most happens.
        self.received = self._core.received
        self.closed = self._core.closed

    # The service

    async def start(self) -> str:
        """Listen for clients and for workers, and say so at the registers. Return where clients connect, and where pages are.

        Raises:
            ListenError: if something cannot be listened on.
        """
        config = self._config
        link = config.link_address(self._node.name, self._node.key)
        self._settings = link_settings(config)
        self._acceptor = Acceptor(self._node, self._settings, _Links(self), link)
        await self._listener.start()
        self._look_after()
        self._agent = Agent(
            self._node,
            self._settings,
            config.cluster.register_addresses(),
            address=self._acceptor.address,
            meta={"listen": list(self._listener.urls)},
            stats=self._stats,
            changed=self._members_changed,
        )
        pages = [page for page in map(page_url, self._listener.urls) if page] if config.gateway.pages else []
        return " ".join([*self._listener.urls, *pages])

    async def stop(self) -> None:
        """Take no more clients, let go those that there are, let their last events be handled, leave."""
        config = self._config.gateway
        self._listener.stop_accepting()
        await self._let_clients_go(config.reconnect_rate, config.drain_timeout)
        await self._listener.wait_closed(config.close_timeout)
        await self._listener.abort_clients()
        if self._watch is not None:
            self._watch.cancel()
        if not await self._dispatch_empty(config.drain_timeout):
            _log.warning("the gateway stops with events that were not handled: %d", self._core.unhandled)
        if self._agent is not None:
            await self._agent.close()
        if self._acceptor is not None:
            await self._acceptor.close()
        for key in list(self._owners):
            self._let_go(self._owners, key)
        for key in list(self._buddies):  # last, as they take over what was not handled
            self._let_buddy_go(key)
        while self._closing:
            await asyncio.wait(self._closing)

    async def _let_clients_go(self, rate: float, timeout: float) -> None:  # noqa: ASYNC109  # a bound, no cancellation
        """Send the clients to the other gateways, as fast as those can take them, within so many seconds."""
        now = asyncio.get_running_loop().time
        self._stopping = True
        if self._agent is not None:
            self._agent.join()  # again, so that others that stop know it now and not with the next heartbeat
        deadline = now() + timeout
        booked = 0.0  # the time up to which clients come back already
        while self._listener.staying:
            others = await self._others()
            clients, start = self._listener.staying, now()
            slots = drain.batch(clients, others, rate, deadline - start, booked - start)
            await self._listener.send_away(reasons.GATEWAY_STOPPING, slots)
            if len(slots) == clients:
                break
            booked = start + slots[-1]
            await asyncio.sleep(drain.EVERY)

    async def _others(self) -> int:
        """Return how many other gateways there are that do not stop, too, as far as the registers know."""
        if self._agent is None:
            return 0
        reports = await self._agent.ask_members(drain.EVERY)
        stopping = {report["key"] for report in reports if report["stats"].get("stopping")} | {self._node.key}
        return sum(member.role == "gateway" and member.key not in stopping for member in self._agent.members.values())

    async def _dispatch_empty(self, timeout: float) -> bool:  # noqa: ASYNC109  # a bound for an answer, no cancellation
        deadline = self._loop.time() + timeout
        while self._dispatch.bytes and self._has_workers() and self._loop.time() < deadline:  # noqa: ASYNC110  # acks set no event
            await asyncio.sleep(0.01)
        return not self._dispatch.bytes

    def _has_workers(self) -> bool:
        """Whether there are workers, or will be as soon as they found out about this gateway."""
        if self._dispatch.workers:
            return True
        known = self._agent.members.values() if self._agent is not None and not self._is_fenced else ()
        return any(member.role == "worker" for member in known)

    def _stats(self) -> dict[str, Any]:
        return {
            **process.vitals(),
            "connections": len(self._core.index.clients),
            "events": self._core.events,
            "events_per_second": self._meter.read(self._core.events),
            "commands": self._core.commands,
            "queue": self._dispatch.queued,
            "workers": len(self._dispatch.workers),
            "redelivered": self._dispatch.redelivered,
            "misrouted": self._dispatch.misrouted,
            "handshakes": len(self._core.admission),
            "mirrored": self._wards.clients,
            "stopping": self._stopping,
            **self._counts(),
        }

    def _counts(self) -> Counter[str]:
        """Return what was counted here and on all links."""
        counters = sum((link.counters for link in self._links()), self.counters)
        return counters + self._agent.counters if self._agent is not None else counters

    def _links(self) -> list[Acceptor | Connector]:
        acceptor = [self._acceptor] if self._acceptor is not None else []
        return [*acceptor, *self._buddies.values(), *self._owners.values()]

    def observe(self) -> Observation:
        """Look at it, for Prometheus. Without workers, it cannot serve."""
        loads = [link.load for link in self._links()]
        stats = {
            **self._stats(),
            "links": sum(links for links, _ in loads),
            "unacked": sum(unacked for _, unacked in loads),
            "event_bytes": self._dispatch.bytes,
            "outstanding": sum(len(port.outstanding) for port in self._dispatch.workers),
            "credit": sum(max(port.room, 0) for port in self._dispatch.workers),
        }
        unready = "" if self._dispatch.workers else "no worker takes events"
        return Observation("fenced" if self._is_fenced else unready, stats)

    def _look_after(self) -> None:
        """Look after the clients whose time is over."""
        self._core.look_after()
        self._watch = self._loop.call_later(credentials.TICK, self._look_after)

    # What the listener tells

    def arrived(self, connection: Stream, handshake: Handshake) -> Client | None:
        """A client is in the handshake. Return it if a worker has to decide on it."""
        return self._core.arrived(connection, *_said(handshake)) if self._core.admission.needed else None

    def gave_up(self, client: Client) -> None:
        """A client did not wait for the decision, or waited for too long."""
        self._core.gave_up(client)

    def opened(self, connection: Stream, handshake: Handshake, client: Client | None) -> Client:
        """A client passed the handshake: one that had arrived, or one that no worker was asked about."""
        return self._core.opened(connection, *_said(handshake), client)

    # What the links tell

    def peer_joined(self, peer: Peer) -> None:
        """A worker or a caller is there."""
        if peer.role == "gateway":
            self._wards.joined(peer.key, peer.name)
        elif peer.role != "claimant":
            peer.send([op.GATEWAYS, [list(member) for member in self._gateways()]])
        if peer.role == "worker":
            peer.owner_data = Port(peer.name, peer.key, 0, peer.send)
            self._hook("worker_connected", peer.name)
        _log.log(_level(peer), "%r (%s) joined", peer, peer.key)

    def peer_lost(self, peer: Peer, reason: str) -> None:
        """A worker or a caller is gone."""
        how = LEFT if reason == LEFT else f"is gone: {reason}"
        _log.log(_level(peer), "%r (%s) %s", peer, peer.key, how)
        if peer.role == "gateway":
            self._wards.lost(peer.key, goodbye=reason == LEFT)
        elif peer.role == "claimant":
            self._claims.lost(peer)
        port: Port | None = peer.owner_data
        if port is not None:
            self._core.lost(port)
            self._hook("worker_gone", peer.name, reason)

    def peer_received(self, peer: Peer, batch: list[Message]) -> None:
        """Commands and questions came."""
        if peer.role == "gateway":
            self._wards.received(peer.key, batch, peer.send)
        elif peer.role == "claimant":
            self._claims.received(peer, batch)
        else:
            self._core.apply(batch, peer, peer.owner_data)

    # The other gateways

    def _members_changed(self, joined: list[Member], left: list[Member]) -> None:
        assert self._agent is not None, "it is the one that tells"
        for member in joined:
            self._wards.member_joined(member.key)
        for member in left:
            self._wards.member_left(member.key)
        self._owners_changed(
            [member for member in joined if member.role == "gateway" and member.key != self._node.key],
            [member.key for member in left if member.role == "gateway"],
        )
        if any(member.role == "gateway" for member in (*joined, *left)):
            self._buddy.members_changed([member.key for member in self._gateways() if member.key != self._node.key])

    def _gateways(self) -> list[Member]:
        """Return all gateways, as far as the registers told of them."""
        members = self._agent.members.values() if self._agent is not None else ()
        return [member for member in members if member.role == "gateway"]

    def _owners_changed(self, joined: list[Member], left: list[str]) -> None:
        if self._devices is None:
            return
        for member in joined:
            if member.key not in self._owners:
                links = _OwnerLinks(self._devices)
                self._owners[member.key] = Connector(
                    self._claimant, link_settings(self._config), links, member.address, expect=member.key
                )
        for key in left:
            if key in self._owners:
                self._let_go(self._owners, key)
        self._devices.members_changed([member.key for member in joined], left)

    def _connect_buddy(self, key: str) -> None:
        assert self._agent is not None, "it told of that gateway"
        address = self._agent.members[key].address
        links = _BuddyLinks(self._buddy)
        self._buddies[key] = Connector(self._node, self._settings, links, address, expect=key)

    def _let_buddy_go(self, key: str) -> None:
        self._let_go(self._buddies, key)

    def _let_go(self, links: dict[str, Connector], key: str) -> None:
        task = self._loop.create_task(links.pop(key).close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _adopt(self, name: str, key: str, kept: Collection[Message]) -> None:
        """A gateway is lost, and this one was its buddy."""
        _log.warning("gateway %s (%s) is lost: the close of its clients is told from here: %d", name, key, len(kept))
        self._core.adopt(key, kept)

    def _fenced(self) -> None:
        """This gateway itself was taken for lost."""
        self._is_fenced = True
        self._buddy.stop()
        self._fail(
            Fenced("it was taken for lost (stopped, or cut off, for too long) and ends: its clients' close was told")
        )

    def _gave_up(self, client: Client, message: Message) -> None:
        """An event was with too many workers that were lost."""
        self._core.gave_up_event(client, message[3])
        event_id = f"{client.id}:{message[3]}"
        ids = {"client": client.id, "event": event_id}
        _log.error("event %s is given up: %d workers that had it were lost", event_id, GIVEN_UP, extra=ids)
        self._hook("event_given_up", event_id, message[5])

    def _hook(self, name: str, *args: object) -> None:
        function = getattr(self._hooks, name, None)
        if function is not None:
            try:
                function(*args)
            except Exception:  # noqa: BLE001  # whatever an application's own hook does wrong
                _log.exception("[gateway] hooks: %s failed", name)


class _Links:
    """The owner of the links, which hears of peers what the gateway hears of clients."""

    def __init__(self, gateway: Gateway) -> None:
        self.joined = gateway.peer_joined
        self.lost = gateway.peer_lost
        self.received = gateway.peer_received


class _BuddyLinks:
    """The owner of a link to a buddy."""

    def __init__(self, buddy: Buddy) -> None:
        self._buddy = buddy

    def joined(self, peer: Peer) -> None:
        """There is a link."""
        self._buddy.joined(peer.key, peer)

    def received(self, peer: Peer, batch: list[Message]) -> None:
        """The buddy says something."""
        for message in batch:
            if message != [op.KNOWN]:
                raise LinkError(f"message {message[0]} is nothing that a buddy says")
            self._buddy.known(peer.key)

    def lost(self, peer: Peer, reason: str) -> None:
        """The link is gone."""
        self._buddy.lost(peer.key)


def _said(handshake: Handshake) -> tuple[list[Any], list[list[str]]]:
    """Return introduction and headers, as they travel."""
    path, query, headers, remote, listener, subprotocol = handshake
    return [path, query, remote, listener, subprotocol], [[name, value] for name, value in headers]


class _OwnerLinks:
    """The owner of a link to a gateway that owns uids."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    def joined(self, peer: Peer) -> None:
        """There is a link."""
        self._devices.joined(peer.key, peer)

    def received(self, peer: Peer, batch: list[Message]) -> None:
        """The other gateway says something."""
        self._devices.received(peer.key, batch)

    def lost(self, peer: Peer, reason: str) -> None:
        """The link is gone."""
        self._devices.lost(peer.key)


def page_url(listen: str) -> str | None:
    """Return the address for a browser, on this machine if clients come in at all its addresses; None if there are no pages."""
    _, scheme, address, _, _ = parse_listen(listen)
    if address is None or scheme not in ("ws", "wss"):
        return None
    host = "localhost" if address.wildcard else address.host
    return f"{address._replace(scheme=scheme.replace('ws', 'http'), host=host).with_port(address.first)}/"


def _level(peer: Peer) -> int:
    """Return how loudly to tell of a peer: a caller may come and go with each request of a web server."""
    return logging.INFO if peer.role == "worker" else logging.DEBUG


def import_hooks(name: str) -> object:
    """Return the module that ``[gateway] hooks`` names, or None.

    Raises:
        ConfigError: if it cannot be imported.
    """
    if not name:
        return None
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigError(f"[gateway] hooks: cannot import {name}: {type(error).__name__}: {error}") from error


def run(config: Config, name: str) -> int:
    """Be a gateway until told to stop; return the exit code."""
    return process.run(config, "gateway", name, lambda fail: Gateway(config, name, fail), observe=Gateway.observe)
