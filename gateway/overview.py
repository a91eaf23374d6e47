"""What an operator sees of the clients of one gateway: a page of them, sorted."""

from __future__ import annotations

from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..common.errors import LinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .client import Client
    from .index import Index

MAX_ROWS: Final = 1000  #: clients in one answer
MAX_GROUPS: Final = 10  #: groups of a client in it


class Row(NamedTuple):
    """One client."""

    client: str
    uid: str | None
    remote: str
    age: float  #: seconds since it came
    events: int  #: that it caused: its messages, and that it came
    queue: int  #: of these, not handled yet
    unsent: int  #: bytes that wait for it to read
    groups: list[str]  #: some of them
    group_count: int
    worker: str  #: that handles it, or empty


#: What there is to sort by, the greatest first.
SORTS: Final[dict[str, Callable[[Row], float]]] = {
    "age": lambda row: row.age,
    "traffic": lambda row: row.events,
    "queue": lambda row: row.unsent + row.queue,
}


def connections(index: Index, now: float, argument: Any) -> list[Any]:
    """Return how many clients there are of a kind, and the first of them.

    Raises:
        LinkError: if it is asked about something else.
    """
    match argument:
        case [str(uid), str(group), str(address), str(sort), int(limit)] if sort in SORTS and 0 <= limit <= MAX_ROWS:
            pass
        case _:
            raise LinkError("asks for connections, but not for which and how many")
    clients: Collection[Client] = index.of_uids([uid]) if uid else index.clients.values()
    if group:
        clients = [client for client in clients if group in client.groups]
    if address:
        clients = [client for client in clients if _is_from(client, address)]
    rows = (_row(client, now) for client in clients)
    key = SORTS[sort]
    return [len(clients), [list(row) for row in nsmallest(limit, rows, key=lambda row: -key(row))]]


def _is_from(client: Client, address: str) -> bool:
    """Whether it comes from this address, or this address and port."""
    remote: str = client.introduction[2]
    return address in (remote, remote.rpartition(":")[0].strip("[]"))


def _row(client: Client, now: float) -> Row:
    return Row(
        client.id,
        client.uid,
        client.introduction[2],
        round(now - client.since, 3),
        client.number,
        len(client.events),
        client.connection.unsent,
        list(islice(client.groups, MAX_GROUPS)),
        len(client.groups),
        client.port.name if client.port is not None else "",
    )
