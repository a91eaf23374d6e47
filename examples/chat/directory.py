"""Whom and what there is in the chat: people and who owns their names, rooms, who talks with whom. Three tables."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table, UniqueConstraint, insert, select
from sqlalchemy.exc import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncEngine

MAX_NAME = 24  # characters of a name, and of a room's
MAX_LISTED = 100  # rooms; and of somebody's acquaintances, the newest

TABLES = MetaData()
USERS = Table(
    "users",
    TABLES,
    Column("key", String(3 * MAX_NAME), primary_key=True),  # the name in small letters: there is no ann beside Ann
    Column("name", String(MAX_NAME), nullable=False, unique=True),
    Column("token", LargeBinary(32), nullable=False),  # its hash: what is stolen from here opens nothing
)
ROOMS = Table("rooms", TABLES, Column("name", String(MAX_NAME + 1), primary_key=True))
TALKS = Table(
    "talks",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("name", String(MAX_NAME), nullable=False),
    Column("other", String(MAX_NAME), nullable=False),
    UniqueConstraint("name", "other"),
)


class Directory:
    """People, rooms and talks in the database of the history. All names have been checked before they come here."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def claim(self, name: str, token: str) -> str | None:
        """Return the name as its owner first wrote it, or None if it belongs to somebody with another token."""
        key, owner = name.casefold(), hashlib.sha256(token.encode()).digest()
        query = select(USERS.c.name, USERS.c.token).where(USERS.c.key == key)
        found = await self._read(query)
        if not found:
            await self._add(USERS, {"key": key, "name": name, "token": owner})
            found = await self._read(query)  # somebody else may have been faster
        return found[0].name if found and found[0].token == owner else None

    async def rooms(self) -> list[str]:
        """Return the names of the rooms."""
        return [name for (name,) in await self._read(select(ROOMS.c.name).order_by(ROOMS.c.name).limit(MAX_LISTED))]

    async def add_room(self, name: str) -> bool:
        """Make a room; return False if there is one of this name."""
        return await self._add(ROOMS, {"name": name})

    async def acquaintances(self, name: str) -> list[str]:
        """Return with whom somebody talks privately."""
        query = select(TALKS.c.other).where(TALKS.c.name == name).order_by(TALKS.c.id.desc()).limit(MAX_LISTED)
        return [other for (other,) in await self._read(query)]

    async def acquaint(self, name: str, other: str) -> bool:
        """Take note that two talk with each other; return False if there is nobody called ``other``."""
        if not await self._read(select(USERS.c.name).where(USERS.c.name == other)):
            return False
        if not await self._read(select(TALKS.c.id).where(TALKS.c.name == name, TALKS.c.other == other)):
            both = {(name, other), (other, name)}  # one, of those who talk with themselves
            await self._add(TALKS, *({"name": one, "other": two} for one, two in both))
        return True

    async def _read(self, query: Select[Any]) -> Sequence[Any]:
        async with self._reader.connect() as connection:
            rows: Sequence[Any] = (await connection.execute(query)).all()
            return rows

    async def _add(self, table: Table, *rows: dict[str, Any]) -> bool:
        """Add rows, all or none; return False if one is there already."""
        try:
            async with self._engine.begin() as connection:
                await connection.execute(insert(table), list(rows))
        except IntegrityError:
            return False
        return True
