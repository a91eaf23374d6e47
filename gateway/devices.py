"""At most so many clients of a uid, in the whole cluster.

Rules:

* One gateway counts the clients of a uid, its *owner*: the one that the uid wants most (rendezvous hashing). The gateway that holds a
  client claims a place for it there, and gives it back when the client closes or is bound to another uid.
* Claims for a uid are decided in the order in which they reach the owner. Who is one too many is told to go: the oldest, or the newest.
* When gateways come and go, the claims move to the new owners, as old as they are. Until all are there, one may count too few; when they
  are, who is too many goes.
* A claim waits as long as there is no link to its owner.

Pure: links are behind :class:`Link`, and the clock is an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from ..common import messages as op
from ..common.errors import LinkError
from .placement import weight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..common.messages import Message
    from .client import Client

MOMENT: Final = 0.001  #: seconds by which one claim is at least younger than the one before


class Link(Protocol):
    """Where a message for another gateway goes."""

    def send(self, message: Message, /) -> None:
        """Send it."""


class Claims:
    """The claims for the uids that one gateway owns.

    Args:
        limit: clients of one uid and one kind of device.
        keep_oldest: whether the newest one goes if there are too many, and not the oldest.
        wall: returns seconds since 1970.
    """

    def __init__(self, limit: int, *, keep_oldest: bool, wall: Callable[[], float]) -> None:
        self._limit = limit
        self._keep_oldest = keep_oldest
        self._wall = wall
        self._claims: dict[tuple[str, str], dict[str, tuple[float, Link]]] = {}

    def received(self, link: Link, batch: Iterable[Message]) -> None:
        """Take what the gateway at the other end of a link says.

        Raises:
            LinkError: if it is not made as :mod:`..common.messages` says.
        """
        for message in batch:
            match message:
                case [op.CLAIM, str(uid), str(device), str(client_id), None | int() | float() as since]:
                    self._claim(link, (uid, device), client_id, since)
                case [op.UNCLAIM, str(uid), str(device), str(client_id)]:
                    self._unclaim((uid, device), client_id)
                case _:
                    raise LinkError(f"message {message[0]} with {len(message) - 1} fields claims nothing")

    def lost(self, link: Link) -> None:
        """A link is gone. If its gateway is not, it claims again what it has."""
        for place, claims in list(self._claims.items()):
            for client_id, (_, other) in list(claims.items()):
                if other is link:
                    self._unclaim(place, client_id)

    def _claim(self, link: Link, place: tuple[str, str], client_id: str, since: float | None) -> None:
        claims = self._claims.setdefault(place, {})
        if since is None:
            since = max(self._wall(), max((age for age, _ in claims.values()), default=0.0) + MOMENT)
        claims[client_id] = (since, link)
        by_age = sorted(claims, key=lambda one: (claims[one][0], one))
        gone = by_age[self._limit :] if self._keep_oldest else by_age[: -self._limit]
        out = [(one, claims.pop(one)[1]) for one in gone]
        if client_id in claims:
            link.send([op.GRANTED, *place, client_id, since])
        for one, its_link in out:
            its_link.send([op.TOO_MANY, *place, one])

    def _unclaim(self, place: tuple[str, str], client_id: str) -> None:
        claims = self._claims.get(place, {})
        claims.pop(client_id, None)
        if not claims:
            self._claims.pop(place, None)


class _Place:
    __slots__ = ("client", "decided", "device", "owner", "since", "uid", "weight")

    def __init__(self, client: Client, uid: str, device: str, decided: Callable[[bool], object]) -> None:
        self.client = client
        self.uid = uid
        self.device = device
        self.decided = decided
        self.since: float | None = None  # when it was granted
        self.owner = ""  # the key of a gateway
        self.weight = b""  # how much the uid wants that one


class Devices:
    """The places of the clients that one gateway holds.

    Args:
        key: of this gateway.
        own: the claims for the uids that it owns itself.
    """

    def __init__(self, key: str, own: Claims) -> None:
        self._key = key
        self._own = own
        self._owners = [key]
        self._links: dict[str, Link] = {key: _Loop(self._to_claims)}
        self._back = _Loop(lambda message: self.received(key, [message]))
        self._places: dict[str, _Place] = {}  # by client id

    def claim(self, client: Client, uid: str, device: str, decided: Callable[[bool], object]) -> None:
        """Claim a place for a client, instead of one that it has for another uid or device.

        Args:
            client: the client.
            uid: that it is bound to.
            device: the kind of device that it is, or empty.
            decided: is called with True when it may stay, and with False when it must go, which may be later.
        """
        place = self._places.get(client.id)
        if place is not None and (place.uid, place.device) == (uid, device):
            place.decided = decided
            return
        self.release(client)
        self._places[client.id] = place = _Place(client, uid, device, decided)
        self._choose(place)
        self._say(place, op.CLAIM)

    def release(self, client: Client) -> None:
        """Give back the place of a client, if it has one."""
        place = self._places.pop(client.id, None)
        if place is not None:
            self._say(place, op.UNCLAIM)

    def members_changed(self, joined: Iterable[str], left: Iterable[str]) -> None:
        """There are other gateways than before, by their keys."""
        new = [key for key in joined if key not in self._owners]
        gone = {key for key in left if key != self._key}
        self._owners = [key for key in self._owners if key not in gone] + new
        for place in list(self._places.values()):
            old = place.owner
            if old in gone:
                self._choose(place)
            else:
                for key in new:
                    self._prefer(place, key)
            if place.owner != old:
                link = self._links.get(old)
                if link is not None:
                    link.send([op.UNCLAIM, place.uid, place.device, place.client.id])
                self._say(place, op.CLAIM)

    def joined(self, key: str, link: Link) -> None:
        """There is a link to a gateway: claim what it owns."""
        self._links[key] = link
        for place in list(self._places.values()):
            if place.owner == key:
                self._say(place, op.CLAIM)

    def lost(self, key: str) -> None:
        """A link is down; it may come again."""
        self._links.pop(key, None)

    def received(self, key: str, batch: Iterable[Message]) -> None:
        """Take what a gateway that owns uids says.

        Raises:
            LinkError: if it is not made as :mod:`..common.messages` says.
        """
        for message in batch:
            match message:
                case [op.GRANTED, str(uid), str(device), str(client_id), int() | float() as since]:
                    place = self._known(key, uid, device, client_id)
                    if place is not None:
                        place.since = since
                        place.decided(True)
                case [op.TOO_MANY, str(uid), str(device), str(client_id)]:
                    place = self._known(key, uid, device, client_id)
                    if place is not None:
                        del self._places[client_id]
                        place.decided(False)
                case _:
                    raise LinkError(f"message {message[0]} with {len(message) - 1} fields grants nothing")

    def _known(self, key: str, uid: str, device: str, client_id: str) -> _Place | None:
        """Return the place that is meant, unless it is another gateway's business by now."""
        place = self._places.get(client_id)
        if place is None or (place.owner, place.uid, place.device) != (key, uid, device):
            return None
        return place

    def _choose(self, place: _Place) -> None:
        place.weight = b""
        for key in self._owners:
            self._prefer(place, key)

    @staticmethod
    def _prefer(place: _Place, key: str) -> None:
        wanted = weight(place.uid, key)
        if wanted > place.weight:
            place.owner, place.weight = key, wanted

    def _say(self, place: _Place, opcode: int) -> None:
        link = self._links.get(place.owner)
        if link is not None:
            since = [place.since] if opcode == op.CLAIM else []
            link.send([opcode, place.uid, place.device, place.client.id, *since])

    def _to_claims(self, message: Any) -> None:
        self._own.received(self._back, [message])


class _Loop:
    """The link of a gateway to itself."""

    def __init__(self, receive: Callable[[Message], object]) -> None:
        self._receive = receive

    def send(self, message: Message, /) -> None:
        self._receive(message)
