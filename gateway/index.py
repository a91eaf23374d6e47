"""Which clients there are, by id, uid and group: one structure, kept in step in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .client import Client

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


class Index:
    """The open clients of one gateway.

    A client has at most one uid, a uid any number of clients; a client is in any number of groups. A uid or a group exists
    as long as it has a client. What the look-ups return may be the index's own: to be read before anything changes.
    """

    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}
        self.uids: dict[str, set[Client]] = {}
        self.groups: dict[str, set[Client]] = {}

    def add(self, client: Client) -> None:
        """Take in a client that just opened. It may have a uid and groups already."""
        self.clients[client.id] = client
        if client.uid is not None:
            self.uids.setdefault(client.uid, set()).add(client)
        for group in client.groups:
            self.groups.setdefault(group, set()).add(client)

    def remove(self, client: Client) -> None:
        """Take a client out of everything. Its ``uid`` stays readable for its close event."""
        del self.clients[client.id]
        if client.uid is not None:
            _discard(self.uids, client.uid, client)
        for group in client.groups:
            _discard(self.groups, group, client)
        client.groups.clear()

    def bind(self, client: Client, uid: str) -> None:
        """Give the client this uid, in place of one that it had."""
        self.unbind(client)
        client.uid = uid
        self.uids.setdefault(uid, set()).add(client)

    def unbind(self, client: Client) -> None:
        """Take the client's uid away, if it has one."""
        if client.uid is not None:
            _discard(self.uids, client.uid, client)
            client.uid = None

    def join(self, client: Client, group: str) -> None:
        """Put the client into the group; twice is once."""
        client.groups.add(group)
        self.groups.setdefault(group, set()).add(client)

    def leave(self, client: Client, group: str) -> None:
        """Take the client out of the group, if it is in it."""
        if group in client.groups:
            client.groups.remove(group)
            _discard(self.groups, group, client)

    def dissolve(self, group: str) -> None:
        """Take every client out of the group."""
        for client in self.groups.pop(group, ()):
            client.groups.remove(group)

    def of_groups(self, groups: list[str] | None) -> Collection[Client]:
        """Return the clients of all these groups, each once; with None all clients."""
        if groups is None:
            return self.clients.values()
        if len(groups) == 1:
            return self.groups.get(groups[0], ())
        return set[Client]().union(*(self.groups.get(group, ()) for group in groups))

    def of_uids(self, uids: Iterable[str]) -> list[Client]:
        """Return the clients of all these uids, each once."""
        return [client for uid in dict.fromkeys(uids) for client in self.uids.get(uid, ())]


def _discard(sets: dict[str, set[Client]], key: str, client: Client) -> None:
    members = sets[key]
    members.remove(client)
    if not members:
        del sets[key]
