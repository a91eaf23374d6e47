"""What ``gatecrew connections``, ``kick`` and ``why`` find out: they ask all gateways, and put the answers together."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from heapq import nlargest
from time import localtime, strftime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from ..common.discards import Discard, read, sentence
from ..common.errors import GatecrewError, PartialAnswer, Unreachable
from ..common.ids import gateway_of, new_key
from ..common.link import Node
from ..common.messages import Ask
from ..register.agent import link_settings
from ..register.status import aligned, span
from .cluster import Cluster
from .hub import Hub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ..common.config import Config
    from .queries import Answers

#: What there is to sort by, the greatest first. The gateways sort so, too, and send the first of theirs.
SORTS: Final[dict[str, Callable[[dict[str, Any]], float]]] = {
    "age": lambda row: row["age"],
    "traffic": lambda row: row["events"],
    "queue": lambda row: row["unsent"] + row["queue"],
}
_FIELDS: Final = ("client", "uid", "remote", "age", "events", "queue", "unsent", "groups", "group_count", "worker")
_KICKED: Final = 1008  #: who is closed with this code has no reason to come back


class Found(NamedTuple):
    """What all gateways that answered said, and which did not."""

    total: int  #: clients that there are
    rows: list[dict[str, Any]]  #: the first of them
    missing: tuple[str, ...]  #: names of gateways


def connections(config: Config, *, gateway: str, uid: str, group: str, address: str, sort: str, limit: int) -> Found:
    """Return the clients that are asked for; empty is any.

    Raises:
        GatecrewError: if there is no such gateway, or the cluster cannot be reached.
    """

    async def ask() -> Found:
        async with _linked(config) as hub:
            names = {one.key: one.name for one in hub.gateways.values() if gateway in ("", one.name)}
            if gateway and not names:
                raise GatecrewError(f"there is no gateway {gateway}")
            key = next(iter(names)) if gateway else None
            answers, missing = await _gathered(hub, key, Ask.CONNECTIONS, [uid, group, address, sort, limit])
            rows = [
                {"gateway": names.get(gateway_of(row[0]), ""), **dict(zip(_FIELDS, row, strict=True))}
                for _, some in answers
                for row in some
            ]
            return Found(sum(total for total, _ in answers), nlargest(limit, rows, key=SORTS[sort]), missing)

    return asyncio.run(ask())


def table(found: Found) -> list[str]:
    """Return the lines of a table for people."""
    rows = [["CLIENT", "GATEWAY", "WORKER", "UID", "REMOTE", "AGE", "EVENTS", "QUEUE", "UNSENT", "GROUPS"]]
    for row in found.rows:
        words = [row["client"], row["gateway"], row["worker"] or "-", row["uid"] or "-", row["remote"]]
        figures = [str(row[name]) for name in ("events", "queue", "unsent")]
        rows.append([*words, span(row["age"]), *figures, _groups(row)])
    return aligned(rows, words=5)


def _groups(row: dict[str, Any]) -> str:
    groups, count = row["groups"], row["group_count"]
    return ", ".join(groups[:3]) + (f" and {count - 3} more" if count > 3 else "") if groups else "-"


def kick(config: Config, *, client: str, uid: str, reason: str) -> int:
    """Close a client, or all clients of a uid; return how many that were."""

    async def close() -> int:
        async with Cluster(config) as cluster:
            if uid:
                clients = await cluster.uid(uid).clients()
            else:
                clients = [client] if await cluster.is_online(client) else []
            for one in clients:
                cluster.close_client(one, None, _KICKED, reason)
            return len(clients)

    return asyncio.run(close())


class Why(NamedTuple):
    """What all gateways that answered remember, and which did not."""

    discards: list[Discard]  #: in order
    absent: str  #: who is not there now, in words; empty if that is not so, or nobody was asked about
    missing: tuple[str, ...]  #: names of gateways


def why(config: Config, *, seconds: float, client: str, uid: str, group: str) -> Why:
    """Return what was discarded in the last seconds for this client, uid and group; empty is any."""

    async def ask() -> Why:
        async with _linked(config) as hub:
            answers, missing = await _gathered(hub, None, Ask.DISCARDS, [seconds, client, uid, group])
            found = sorted(read(record) for answer in answers for record in answer)
            absent = ""
            for given, one, what in (
                (client, Ask.ONLINE, f"client {client} is not there now"),
                (uid, Ask.UID_ONLINE, f"no client has the uid {uid} now"),
                ([group] if group else None, Ask.CLIENT_COUNT, f"no client is in the group {group} now"),
            ):
                if given and not any((await _gathered(hub, None, one, given))[0]):
                    absent = what
                    break
            return Why(found, absent, missing)

    return asyncio.run(ask())


def line(discard: Discard) -> str:
    """Return one of them in a line for people, in local time."""
    return f"{strftime('%Y-%m-%d %H:%M:%S', localtime(discard.time))} {sentence(discard)}"


@asynccontextmanager
async def _linked(config: Config) -> AsyncIterator[Hub]:
    """Be a caller that knows the gateways.

    Raises:
        Unreachable: if no register answers in time.
    """
    registers = config.cluster.register_addresses()
    timeout = config.worker.query_timeout
    hub = Hub(Node("caller", "lookup", new_key()), link_settings(config), registers, timeout=timeout)
    try:
        if not await hub.agent.ready(timeout):
            raise Unreachable(f"no register answers at {', '.join(registers)}: is the cluster running?")
        yield hub
    finally:
        await hub.close()


async def _gathered(hub: Hub, gateway: str | None, ask: Ask, argument: object) -> tuple[Answers, tuple[str, ...]]:
    """Return the answers of those gateways that gave one, and the names of the others."""
    try:
        return await hub.ask(gateway, ask, argument, list), ()
    except PartialAnswer as partial:
        return cast("Answers", partial.answer), tuple(partial.missing)
