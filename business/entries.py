"""What a history consists of: entries and positions, the two tables that hold them, the statements that read and write.

Pure: it makes statements and runs none, but for :func:`store`, which runs some in a transaction that the caller holds.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

MAX_NAME: Final = 255  #: characters of a channel's name and of an idempotency key
MAX_OFFSET: Final = 2**63 - 1
_FINGERPRINT: Final = 16  # bytes

METADATA: Final = MetaData()
CHANNELS: Final = Table(
    "gatecrew_channels",
    METADATA,
    Column("channel", String(MAX_NAME), primary_key=True),
    Column("epoch", String(16), nullable=False),
    Column("last", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
ENTRIES: Final = Table(
    "gatecrew_entries",
    METADATA,
    Column("channel", String(MAX_NAME), primary_key=True),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("time", Float(53), nullable=False),
    Column("key", LargeBinary(_FINGERPRINT), unique=True),  # see fingerprint()
    Column("data", Text, nullable=False),
    sqlite_with_rowid=False,
)


class Position(NamedTuple):
    """A place in a channel: behind the entry with this offset. ``("", 0)`` is before the first, whatever the epoch."""

    epoch: str
    offset: int


START: Final = Position("", 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """What was appended."""

    channel: str
    offset: int  #: 1 for the first of the channel
    time: float  #: unix time in seconds, by the clock of the process that appended
    data: Any  #: as JSON gives it back


@dataclass(frozen=True, slots=True)
class Page:
    """Neighbouring entries of a channel, oldest first, and what is to be known about the others."""

    entries: tuple[Entry, ...]
    position: Position  #: behind the page, or at the end of the channel if it is empty: go on with ``since`` from here
    more: bool  #: whether there are further entries in the direction that was asked for
    reset: bool = False  #: the position asked for is not of this channel's life: the page starts at its first entry
    lost: int = 0  #: entries between the position asked for and this page that were pruned

    @property
    def gap(self) -> bool:
        """Whether entries may be missing between the position asked for and this page."""
        return self.reset or self.lost > 0


@dataclass(frozen=True, slots=True, eq=False)
class Append:
    """An append that waits for its transaction."""

    channel: str
    data: str
    key: bytes | None  #: the fingerprint of the idempotency key
    time: float
    done: asyncio.Future[Position]


def checked(what: str, name: object) -> str:
    """Return the name of a channel, or a key.

    Raises:
        TypeError: if it is not a string.
        ValueError: if it is empty, too long, or cannot be stored in every database.
    """
    if not isinstance(name, str):
        raise TypeError(f"{what}: {name!r} (expected a string)")
    # PostgreSQL has no NUL in strings, and no UTF-8 has half a surrogate pair
    if not 0 < len(name) <= MAX_NAME or "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ValueError(f"{what}: {name!r} (expected 1 to {MAX_NAME} characters that UTF-8 can hold, no NUL)")
    return name


def encoded(data: object) -> str:
    """Return data as JSON, in letters that any database takes.

    Raises:
        TypeError, ValueError: if JSON cannot hold it.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text


def fingerprint(channel: str, key: str) -> bytes:
    """Return what stands for an idempotency key in the database: short, and another one in each channel.

    So one condition finds any keys of any channels by one index; pairs of channel and key make databases scan the table.
    """
    return hashlib.blake2b(f"{channel}\0{key}".encode(), digest_size=_FINGERPRINT).digest()


def _reserve(dialect: str) -> Any:
    """Return the statement that locks the row of a channel, makes it if need be, and moves its end on."""
    new = postgresql.insert(CHANNELS) if dialect == "postgresql" else sqlite.insert(CHANNELS)
    return new.on_conflict_do_update(
        index_elements=[CHANNELS.c.channel], set_={"last": CHANNELS.c.last + new.excluded.last}
    ).returning(CHANNELS.c.channel, CHANNELS.c.epoch, CHANNELS.c.last)


_RESERVE: Final = {dialect: _reserve(dialect) for dialect in ("sqlite", "postgresql")}


async def store(connection: AsyncConnection, appends: Sequence[Append]) -> list[Position]:
    """Store what is to be appended, in this order, and return the position of each.

    The transaction must be able to see what others commit before it gets the lock of a channel (``READ COMMITTED``).
    """
    counts = Counter(append.channel for append in appends)
    # in the order of names, so that two processes never wait for each other
    rows = [{"channel": name, "epoch": secrets.token_urlsafe(9), "last": counts[name]} for name in sorted(counts)]
    reserved = (await connection.execute(_RESERVE[connection.dialect.name], rows)).all()
    epochs = {row.channel: row.epoch for row in reserved}
    ends = {row.channel: row.last for row in reserved}
    unused = {name: ends[name] - count + 1 for name, count in counts.items()}

    # after the locks: now no other process can store one of these keys
    known = await _stored_before(connection, [append.key for append in appends if append.key is not None])
    new: list[dict[str, Any]] = []
    positions = []
    for append in appends:
        name, key = append.channel, append.key
        offset = None if key is None else known.get(key)
        if offset is None:
            offset = unused[name]
            unused[name] += 1
            new.append({"channel": name, "offset": offset, "time": append.time, "key": key, "data": append.data})
            if key is not None:
                known[key] = offset
        positions.append(Position(epochs[name], offset))
    if new:
        await connection.execute(insert(ENTRIES), new)
    for name, offset in unused.items():
        if offset <= ends[name]:  # repeated appends took no offset
            await connection.execute(update(CHANNELS).where(CHANNELS.c.channel == name).values(last=offset - 1))
    return positions


async def _stored_before(connection: AsyncConnection, keys: list[bytes]) -> dict[bytes, int]:
    if not keys:
        return {}
    # as many as the next power of two: databases keep prepared what has the same number of parameters
    padded = keys + [keys[0]] * ((1 << (len(keys) - 1).bit_length()) - len(keys))
    found = await connection.execute(select(ENTRIES.c.key, ENTRIES.c.offset).where(ENTRIES.c.key.in_(padded)))
    return {row.key: row.offset for row in found}


def page_query(channel: str, where: ColumnElement[bool], limit: int, *, back: bool) -> Select[Any]:
    """Return the query for the end of a channel and the first entries for which a condition holds.

    It is one statement, so that end and entries belong together. Its rows have the epoch and the last offset of the
    channel, then offset, time and data of an entry, or None if there is none; no row if there is no such channel.
    """
    rows = (
        select(ENTRIES.c.offset, ENTRIES.c.time, ENTRIES.c.data)
        .where(ENTRIES.c.channel == channel, where)
        .order_by(ENTRIES.c.offset.desc() if back else ENTRIES.c.offset)
        .limit(limit)
        .subquery()
    )
    return (
        select(CHANNELS.c.epoch, CHANNELS.c.last, rows)
        .select_from(CHANNELS.outerjoin(rows, true()))
        .where(CHANNELS.c.channel == channel)
        .order_by(rows.c.offset)
    )
