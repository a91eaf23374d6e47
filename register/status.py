"""What ``gatecrew status`` shows: all processes of the cluster, as the registers know them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ..common.errors import GatecrewError
from ..common.ids import new_key
from ..common.link import Node
from .agent import Agent, link_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..common.config import Config

ANSWER_LIMIT: Final = 2.0  #: seconds that a register may take to answer
MISSING: Final = "-"


def ask(config: Config) -> list[dict[str, Any]]:
    """Return every process with its ``role``, ``name``, ``key``, ``address``, ``age`` of the figures in seconds, and figures.

    Raises:
        GatecrewError: if no register answers.
    """
    return asyncio.run(_ask(config))


async def _ask(config: Config) -> list[dict[str, Any]]:
    addresses = config.cluster.register_addresses()
    agent = Agent(Node("caller", "status", new_key()), link_settings(config), addresses, announce=False)
    try:
        return await gather(agent, addresses)
    finally:
        await agent.close()


async def gather(agent: Agent, addresses: Iterable[str]) -> list[dict[str, Any]]:
    """Do the same as :func:`ask` with an agent that is there already.

    Raises:
        GatecrewError: if no register answers.
    """
    reports = await agent.ask_members(ANSWER_LIMIT)
    if not reports:
        raise GatecrewError(f"not running: no register answers at {' or '.join(addresses)}")
    return [
        {name: report[name] for name in ("role", "name", "key", "address", "age")} | report["stats"]
        for report in reports
    ]


def table(members: Iterable[Mapping[str, Any]], now: float) -> list[str]:
    """Return the lines of a table for people.

    Args:
        members: as :func:`ask` returns them.
        now: Unix time in seconds.
    """
    rows = [[column for column, _ in COLUMNS]]
    rows += [[show(member, now) for _, show in COLUMNS] for member in members]
    return aligned(rows, words=2)


def aligned(rows: Sequence[Sequence[str]], *, words: int) -> list[str]:
    """Return the lines of a table: so many columns of words, set to the left, and then figures, set to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [
            cell.ljust(width) if number < words else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return ["  ".join(line).rstrip() for line in lines]


def figure(member: Mapping[str, Any], key: str) -> str:
    """Return a figure of a process, without decimals, or a dash."""
    return f"{member[key]:.0f}" if key in member else MISSING


def _figure(key: str) -> Callable[[Mapping[str, Any], float], str]:
    return lambda member, _: figure(member, key)


def _uptime(member: Mapping[str, Any], now: float) -> str:
    if "started" not in member:
        return MISSING
    return span(now - member["started"])


def span(duration: float) -> str:
    """Return a time in seconds as people say it, in its two largest units."""
    seconds = max(0, int(duration))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d {hours % 24}h"
    if hours:
        return f"{hours}h {minutes % 60}m"
    return f"{minutes}m {seconds % 60}s" if minutes else f"{seconds}s"


def _memory(member: Mapping[str, Any], now: float) -> str:
    return f"{member['memory'] / 2**20:.1f} MiB" if "memory" in member else MISSING


COLUMNS: Final[tuple[tuple[str, Callable[[Mapping[str, Any], float], str]], ...]] = (
    ("ROLE", lambda member, _: str(member["role"])),
    ("NAME", lambda member, _: str(member["name"])),
    ("PID", _figure("pid")),
    ("UPTIME", _uptime),
    ("MEMORY", _memory),
    ("CONNECTIONS", _figure("connections")),
    ("EVENTS/S", _figure("events_per_second")),
    ("QUEUE", _figure("queue")),
    ("RESTARTS", _figure("restarts")),
)
