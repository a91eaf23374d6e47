"""Buddies: each gateway's clients are known to one other gateway, which tells their close when the first one is lost.

A gateway is the *ward* of its buddy. Rules:

* A gateway's buddy is the other gateway that its key wants most (rendezvous hashing), so that few change when one comes or goes.
* A buddy is told of a client before any worker is, and to forget it when its close event is done.
* What a ward tells at the beginning of a link is all that it has. Until that is complete, what was known before counts too.
* A new buddy knows all before the old one is released: with both, a close may be told twice, with neither never.
* A ward is lost when its link is down *and* the registers say that it left, or when it says goodbye with clients left over. Then its
  buddy tells their close, for the reason ``gateway_lost``, and tells the workers to heed that gateway no more: so nothing of
  a client can follow its close, should the gateway only have been stopped and wake up.

Pure: links are behind :class:`Link`, and what is to be done later goes to ``soon``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from ..common import messages as op
from ..common.errors import LinkError
from .placement import weight

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from ..common.messages import Message
    from .client import Client

RETRY: Final = 0.05  #: seconds after which a buddy that does not keep up is looked at again
MAX_TAKEN: Final = 1000  #: keys of lost gateways that are remembered


class Link(Protocol):
    """A link to another gateway."""

    @property
    def full(self) -> bool:
        """Whether it is so far behind with reading that no more should be made for it."""

    def send(self, message: Message, /) -> None:
        """Send it a message, at the end of this turn of the loop."""

    def flush(self) -> None:
        """Let what was sent go now."""


class Buddy:
    """What a gateway tells of its own clients.

    Args:
        key: of this gateway.
        clients: returns those whose close event is not done yet.
        connect: begins a link to the gateway with this key.
        let_go: ends it.
        soon: calls a function after so many seconds.
    """

    def __init__(
        self,
        key: str,
        clients: Callable[[], Iterable[Client]],
        connect: Callable[[str], None],
        let_go: Callable[[str], None],
        soon: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._key = key
        self._clients = clients
        self._connect = connect
        self._let_go = let_go
        self._soon = soon
        self._chosen: str | None = None
        self._members: Collection[str] = ()
        self._connected: set[str] = set()  # the keys of all gateways to which there is a connector
        self._told: dict[str, Link] = {}  # by key: those that are told everything
        self._known: set[str] = set()  # the keys of those that say that they know everything
        self._changed: dict[
            str, Client | None
        ] = {}  # of the clients that changed, or are done with, since they were told
        self._due = False

    @property
    def chosen(self) -> str | None:
        """The key of the gateway that is to be the buddy; None if there is no other."""
        return self._chosen

    # What happens to the clients

    def opened(self, client: Client) -> None:
        """Tell of a client, before its first event leaves."""
        for link in self._told.values():
            if link.full:
                self.changed(client)
            else:
                link.send(_keep(client))
                link.flush()

    def changed(self, client: Client) -> None:
        """Tell of a client's new uid or session."""
        if self._told:
            self._mark(client.id, client)

    def finished(self, client: Client) -> None:
        """Tell that a client's close event is done."""
        if self._told:
            self._mark(client.id, None)

    def _mark(self, client_id: str, client: Client | None) -> None:
        self._changed[client_id] = client
        if not self._due:
            self._due = True
            self._soon(0, self._tell_changes)

    def _tell_changes(self) -> None:
        if any(link.full for link in self._told.values()):
            self._soon(RETRY, self._tell_changes)
            return
        self._due = False
        changed, self._changed = self._changed, {}
        for link in self._told.values():
            for client_id, client in changed.items():
                link.send([op.RELEASE, client_id] if client is None else _keep(client))

    # What happens to the gateways

    def members_changed(self, others: Collection[str]) -> None:
        """Choose among the keys of the other gateways."""
        self._members = others
        self._chosen = max(others, key=lambda other: weight(self._key, other), default=None)
        if self._chosen is not None and self._chosen not in self._connected:
            self._connected.add(self._chosen)
            self._connect(self._chosen)
        for key in self._connected - self._told.keys():
            self._see_whether_needed(key)
        self._release_others()

    def joined(self, key: str, link: Link) -> None:
        """There is a link: tell all."""
        for client in self._clients():
            link.send(_keep(client))
        link.send([op.WHOLE])
        self._told[key] = link

    def known(self, key: str) -> None:
        """A gateway says that it knows all."""
        self._known.add(key)
        self._release_others()

    def lost(self, key: str) -> None:
        """A link is down; it may come again."""
        self._told.pop(key, None)
        self._known.discard(key)
        self._see_whether_needed(key)

    def stop(self) -> None:
        """Say that nobody's close is to be told for this gateway, whatever it still has."""
        for key in list(self._connected):
            self._release(key)

    def _see_whether_needed(self, key: str) -> None:
        if key not in self._members and key != self._chosen:
            self._release(key)

    def _release_others(self) -> None:
        """One is enough, if it is the one that was chosen."""
        if self._chosen in self._known:
            for key in self._connected - {self._chosen}:
                self._release(key)

    def _release(self, key: str) -> None:
        self._known.discard(key)
        link = self._told.pop(key, None)
        if link is not None:
            link.send([op.RELEASE_ALL])
        if key in self._connected:
            self._connected.remove(key)
            self._let_go(key)


class _Ward:
    def __init__(self, name: str) -> None:
        self.name = name
        self.up = False
        self.left = False  # the registers say so
        self.clients: dict[str, Message] = {}  # by id, as they came
        self.before: dict[str, Message] = {}  # told over an earlier link, until this one has brought all


class Wards:
    """What a gateway knows of others' clients.

    Args:
        adopt: is called with the name and key of a gateway that is lost, and a KEEP message for each client whose close is to be told.
    """

    def __init__(self, adopt: Callable[[str, str, Collection[Message]], None]) -> None:
        self._adopt = adopt
        self._wards: dict[str, _Ward] = {}
        self._taken: dict[str, None] = {}  # keys of gateways that were lost

    @property
    def clients(self) -> int:
        """How many clients of others are known here."""
        return sum(len(ward.clients.keys() | ward.before.keys()) for ward in self._wards.values())

    def joined(self, key: str, name: str) -> None:
        """A gateway begins to tell of its clients."""
        if key in self._taken:  # it will hear from the workers that it is too late
            return
        ward = self._wards.setdefault(key, _Ward(name))
        ward.up = True
        ward.before |= ward.clients
        ward.clients = {}

    def received(self, key: str, batch: list[Message], answer: Callable[[Message], object]) -> None:
        """Take in what a gateway tells.

        Raises:
            LinkError: if it is not made as :mod:`..common.messages` says.
        """
        ward = self._wards.get(key)
        if ward is None:
            return
        for message in batch:
            match message:
                case [op.KEEP, str(client_id), None | str(), bytes(), list(introduction)] if len(introduction) == 5:
                    ward.clients[client_id] = message
                case [op.RELEASE, str(client_id)]:
                    ward.clients.pop(client_id, None)
                    ward.before.pop(client_id, None)
                case [op.WHOLE]:
                    ward.before = {}
                    answer([op.KNOWN])
                case [op.RELEASE_ALL]:
                    ward.clients, ward.before = {}, {}
                case _:
                    raise LinkError(f"message {message[0]} with {len(message) - 1} fields is not for a buddy")

    def lost(self, key: str, *, goodbye: bool) -> None:
        """The link to a gateway ended."""
        ward = self._wards.get(key)
        if ward is not None:
            ward.up = False
            if goodbye or ward.left:
                self._take_over(key)

    def member_joined(self, key: str) -> None:
        """The registers say that a gateway is there."""
        if key in self._wards:
            self._wards[key].left = False

    def member_left(self, key: str) -> None:
        """The registers say that a gateway is not there any more. A link that works is believed more."""
        ward = self._wards.get(key)
        if ward is not None:
            ward.left = True
            if not ward.up:
                self._take_over(key)

    def _take_over(self, key: str) -> None:
        ward = self._wards.pop(key)
        clients = ward.before | ward.clients
        if clients:
            self._taken[key] = None
            if len(self._taken) > MAX_TAKEN:
                del self._taken[next(iter(self._taken))]
            self._adopt(ward.name, key, clients.values())


def _keep(client: Client) -> list[Any]:
    return [op.KEEP, client.id, client.uid, client.session, client.introduction]
