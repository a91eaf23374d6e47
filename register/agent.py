"""A member's side of the registers: it announces itself at each of them and watches who else is there."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common import messages, wire
from ..common.curve import Keys
from ..common.errors import LinkError
from ..common.link import Connector, LinkSettings, Node, Peer
from .leases import ANNOUNCE_EVERY, MAX_STATS, time_to_live
from .view import Changes, Member, View

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..common.config import Config
    from ..common.messages import Message

__all__ = ["Agent", "Member", "link_settings"]

_log = logging.getLogger("gatecrew.register")

_Report = dict[str, Any]  # of one member: see Agent.ask_members


def link_settings(config: Config) -> LinkSettings:
    """Return what ``[cluster]`` says of links, with the keys if there are any.

    Raises:
        ConfigError: if the keys cannot be used.
    """
    cluster = config.cluster
    keys = Keys(Path(cluster.key), Path(cluster.keys)) if cluster.key else None
    return LinkSettings(cluster.probe_interval, cluster.dead_after, cluster.lane_buffer, keys)


def _ignore(joined: list[Member], left: list[Member]) -> None:
    """Do nothing about changes."""


class Agent:
    """Announces this process and watches the others, at all registers at once. Needs a running loop.

    The registers may come later, go, and come back; nobody has to be told.

    Args:
        node: who this process is.
        settings: of the links.
        registers: the addresses of all registers.
        announce: whether this process is a member, or only watches.
        address: where other processes connect to it; "" if they do not.
        meta: what else others should know of it; msgpack must be able to say it.
        stats: called before each announcement: numbers about this process, of at most 16 KiB when packed.
        changed: called with who joined and who left, whenever somebody did; with this process itself too.
    """

    def __init__(
        self,
        node: Node,
        settings: LinkSettings,
        registers: Sequence[str],
        *,
        announce: bool = True,
        address: str = "",
        meta: dict[str, Any] | None = None,
        stats: Callable[[], dict[str, Any]] = dict,
        changed: Callable[[list[Member], list[Member]], None] = _ignore,
    ) -> None:
        self._member = Member(node.role, node.name, node.key, address, meta or {})
        self._announcing = announce
        self._stats = stats
        self._stats_fail = False
        self._changed = changed
        self._view = View(hold=2 * time_to_live(settings.dead_after))
        self._heard = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._registers = [
            _Register(node, settings, register, self._announcement, self._apply)
            for register in dict.fromkeys(registers)
        ]
        self._timer = self._loop.call_later(ANNOUNCE_EVERY, self._beat)

    @property
    def members(self) -> dict[str, Member]:
        """All members by key, as far as any register knows. To be read only."""
        return self._view.members

    @property
    def reachable(self) -> dict[str, bool]:
        """Whether there is a link to each register, by address."""
        return {register.address: register.connector.peer.up for register in self._registers}

    @property
    def counters(self) -> Counter[str]:
        """What was counted on the links to the registers."""
        return sum((register.connector.counters for register in self._registers), Counter())

    async def ready(self, timeout: float) -> bool:  # noqa: ASYNC109  # a bound for an answer, no cancellation
        """Wait until a register told who is there; return whether one did within ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._heard.wait()
        except TimeoutError:
            return False
        return True

    async def ask_members(self, timeout: float) -> list[_Report]:  # noqa: ASYNC109
        """Ask every register for all members and itself, with their stats.

        Registers that do not answer within ``timeout`` seconds are left out; only if there are such does it take so long.

        Returns:
            For each a map with ``role``, ``name``, ``key``, ``address``, ``meta``, ``stats`` and ``age``, the seconds since the stats
            were sent. Of several registers' words about one member the newest is taken.
        """
        asked = [register.ask() for register in self._registers]
        answered = (await asyncio.wait(asked, timeout=timeout))[0] if asked else set()
        found: dict[str, _Report] = {}
        for answer in answered:
            for report in answer.result():
                if report["key"] not in found or report["age"] < found[report["key"]]["age"]:
                    found[report["key"]] = report
        return sorted(found.values(), key=lambda report: (report["role"], report["name"], report["key"]))

    def join(self) -> None:
        """Announce this process from now on."""
        self._announcing = True
        announcement = self._announcement()
        assert announcement is not None, "it is announced from now on"
        for register in self._registers:
            register.tell(announcement)

    def leave(self) -> None:
        """Tell all registers that this process leaves, and announce it no more."""
        if self._announcing:
            self._announcing = False
            for register in self._registers:
                register.tell([messages.LEAVING])

    async def close(self) -> None:
        """Leave, and hear no more."""
        self.leave()
        self._timer.cancel()
        for register in self._registers:
            await register.connector.close()

    def _announcement(self) -> Message | None:
        """Return what to tell a register, or None if this process is no member."""
        return [messages.ANNOUNCE, *self._member, self._safe_stats()] if self._announcing else None

    def _apply(self, change: Callable[[View, float], Changes]) -> None:
        """Let the view change, and say how it did."""
        joined, left = change(self._view, self._loop.time())
        if self._view.heard:
            self._heard.set()
        if joined or left:
            self._changed(joined, left)

    def _beat(self) -> None:
        # up to a fifth early, so that members that started together do not stay together
        self._timer = self._loop.call_later(ANNOUNCE_EVERY * random.uniform(0.8, 1.0), self._beat)  # noqa: S311
        announcement = self._announcement()
        if announcement is not None:
            for register in self._registers:
                register.tell(announcement)
        self._apply(View.expire)

    def _safe_stats(self) -> dict[str, Any]:
        """Return the stats, or none if they cannot be had: that must not make a live process look dead."""
        try:
            stats = self._stats()
            size = len(wire.pack(stats))
            if type(stats) is not dict or size > MAX_STATS:
                raise ValueError(f"a {type(stats).__name__} of {size} bytes, not a dict of at most {MAX_STATS}")
        except Exception:  # noqa: BLE001  # whoever counts things may have any error
            if not self._stats_fail:
                _log.exception("no stats of %r are announced while they fail", self._member)
            self._stats_fail = True
            return {}
        self._stats_fail = False
        return stats


class _Register:
    """The link to one register, and how far its changes are known."""

    def __init__(
        self,
        node: Node,
        settings: LinkSettings,
        address: str,
        announcement: Callable[[], Message | None],
        apply: Callable[[Callable[[View, float], Changes]], None],
    ) -> None:
        self.address = address
        self._announcement = announcement
        self._apply = apply
        self._position: tuple[str, int] | None = None  # epoch and number of what this lane brought last
        self._answer: asyncio.Future[list[_Report]] | None = None  # what all who ask wait for
        self.connector = Connector(node, settings, self, address)

    def tell(self, message: Message) -> None:
        """Send a message, if the register can be reached: when it can again, it is told all that it needs to know."""
        if self.connector.peer.up:
            self.connector.peer.send(message)

    def ask(self) -> asyncio.Future[list[_Report]]:
        """Ask for all members, now or when the register can be reached."""
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            self.tell([messages.ASK_MEMBERS])
        return self._answer

    def joined(self, peer: Peer) -> None:
        """Announce this process, and ask what waits to be asked."""
        announcement = self._announcement()
        if announcement is not None:
            peer.send(announcement)
        if self._answer is not None:
            peer.send([messages.ASK_MEMBERS])

    def lost(self, peer: Peer, reason: str) -> None:
        """Stop counting on the register; the connector goes on trying."""
        _log.info("lost the register at %s: %s", self.address, reason)
        self._position = None
        self._apply(lambda view, now: view.lost(self.address, now))

    def received(self, peer: Peer, batch: list[Message]) -> None:
        """Take in what the register says.

        Raises:
            LinkError: if it is not what a register says.
        """
        for message in batch:
            self._receive(message)

    def _receive(self, message: Message) -> None:
        match message:
            case [messages.SNAPSHOT, str(epoch), int(number), list(members)]:
                self._position = (epoch, number)
                everybody = [Member.read(member) for member in members]
                self._apply(lambda view, now: view.snapshot(self.address, everybody, now))
            case [messages.CHANGE, str(epoch), int(number), list(joined), list(left)] if _are_keys(left):
                # A lane loses nothing and begins with a snapshot, so none can be missing. If one ever is, the link is
                # dropped, and begins anew like that.
                if self._position != (epoch, number - 1):
                    raise LinkError(f"changes {number} of {epoch} do not follow {self._position}")
                self._position = (epoch, number)
                new = [Member.read(member) for member in joined]
                self._apply(lambda view, _: view.change(self.address, new, left))
            case [messages.MEMBERS, list(reports)] if all(map(_is_report, reports)):
                if self._answer is not None:
                    self._answer.set_result(reports)
                    self._answer = None
            case _:
                raise LinkError(f"message {message[0]} with {len(message) - 1} fields is nothing that a register says")


def _are_keys(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_report(value: object) -> bool:
    match value:
        case {"role": str(), "name": str(), "key": str(), "stats": dict(), "age": float()}:
            return True
    return False
