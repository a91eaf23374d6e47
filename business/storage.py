"""Chat history in a database: channels of entries, numbered without gaps.

A shell around SQLAlchemy: SQLite by default, PostgreSQL by another URL. Any number of processes may append to one
database. An entry's number, its *offset*, is taken from the row of its channel, which stays locked until the
transaction ends: so offsets rise from 1 without gaps, and whoever sees an offset can read all before it. The *epoch*
stands in the same row: a store that was wiped numbers anew under another epoch, and nobody takes its entry 7 for the
one that was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from sqlalchemy import delete, func, select
from sqlalchemy.exc import DBAPIError

from ..common.errors import GatecrewError
from .database import blames_a_statement, create_tables, make_engine
from .entries import (
    CHANNELS,
    ENTRIES,
    MAX_OFFSET,
    METADATA,
    START,
    Append,
    Entry,
    Page,
    Position,
    checked,
    encoded,
    fingerprint,
    page_query,
    store,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from types import TracebackType

    from sqlalchemy import ColumnElement, MetaData, Select
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["CHANNELS", "ENTRIES", "START", "Entry", "History", "HistoryError", "Page", "Position"]

_MAX_GROUP: Final = 256  # appends in one transaction
MAX_WAITING: Final = 64 * 1024 * 1024  #: bytes of appends that are not on disk yet; a character counts as one
MAX_AT_ONCE: Final = 10_000  #: reads and prunings that have begun, also those whose callers gave up
MAX_PAGE: Final = 10_000  #: entries; who asks for more gets these, and is told that there are more
_OVERHEAD: Final = 200  # bytes that an append is taken to cost beside its data
_PRUNE_AT_ONCE: Final = 5000  # entries in one transaction: appends get their turn in between
_T = TypeVar("_T")


class HistoryError(GatecrewError):
    """The database could not do what it was asked for, or the history is not open."""


class History:
    """Channels of numbered entries in a database.

    Open it in the event loop that uses it: ``async with History("sqlite:///chat.db") as history``, or with ``open`` and
    ``close`` in an application's ``on_start`` and ``on_stop``.

    Args:
        url: ``sqlite:///file.db`` (the path from the current directory; a fourth slash makes it absolute), ``sqlite://``
            for one in memory, or ``postgresql://user:password@host/name``.
        tables: tables of the application in the same database, which ``open`` creates where they are missing.
        timeout: seconds that one statement may take, waiting for the locks of other processes included.
        clock: tells the unix time, for ``Entry.time`` and for pruning by age.

    Raises:
        ConfigError: if the URL is no good, or the driver it needs is not installed.
    """

    engine: AsyncEngine
    """SQLAlchemy's engine, for the application's own tables. In SQLite, its transactions lock out other writers from
    their beginning, so that they cannot fail in the middle; what only reads asks for ``AUTOCOMMIT``."""

    def __init__(
        self,
        url: str,
        *,
        tables: MetaData | None = None,
        timeout: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.engine = make_engine(url, timeout)
        self._reader = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._tables = [METADATA] if tables is None else [METADATA, tables]
        self._timeout = timeout
        self._clock = clock
        self._is_open = False
        self._waiting: deque[Append] = deque()
        self._bytes = 0  # of these, and of those that are being committed
        self._writing = False
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect, and create the tables that are missing. Any number of processes may do so at once.

        Raises:
            HistoryError: if the database cannot be reached or written.
        """
        try:
            with self._clear_errors():
                await create_tables(self.engine, self._tables, self._timeout)
        except BaseException:
            await self.engine.dispose()
            raise
        self._is_open = True

    async def close(self) -> None:
        """Let what has begun come to its end, then disconnect. Does nothing if it is not open."""
        self._is_open = False
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self.engine.dispose()

    async def append(self, channel: str, data: object, *, key: str | None = None) -> Position:
        """Store an entry at the end of a channel and return its position once it is on disk.

        Appends of one process to one channel get their offsets in the order of the calls. Those that wait at the same
        time share a transaction.

        Args:
            channel: 1 to 255 characters.
            data: anything that JSON can hold.
            key: makes the append repeatable: of all appends to this channel with the same key, such as
                ``client.event_id``, the first one is stored and all return its position, until it is pruned.

        Raises:
            HistoryError: if it was not stored; after a timeout or a broken connection it may have been. Past 64 MiB of
                appends that wait for the database, it is not even tried.
            TypeError, ValueError: if the data is not JSON, or a name is no good.

        If the caller is cancelled, the entry may be stored or not.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        append = Append(
            checked("channel", channel),
            encoded(data),
            None if key is None else fingerprint(channel, checked("key", key)),
            self._clock(),
            loop.create_future(),
        )
        if self._bytes + _OVERHEAD + len(append.data) > MAX_WAITING:
            raise HistoryError(f"{self.engine.url!r}: {MAX_WAITING} bytes wait to be appended already")
        self._bytes += _OVERHEAD + len(append.data)
        self._waiting.append(append)
        if not self._writing:
            self._writing = True
            self._spawn(self._write())
        return await append.done

    async def since(self, channel: str, position: tuple[str, int] = START, limit: int = 100) -> Page:
        """Return the entries after a position, oldest first, and whether any are missing in between.

        Raises:
            HistoryError: if the database does not answer.
            ValueError: if the position, the limit or the name is no good.
        """
        epoch, offset = position
        if type(epoch) is not str or type(offset) is not int or offset < 0:  # it may come from a client
            raise ValueError(f"not a position: {position!r} (expected an epoch and an offset of 0 or more)")
        offset = min(offset, MAX_OFFSET)
        page, end = await self._page(channel, ENTRIES.c.offset > offset, limit)
        # ahead of the end: the database was restored from a backup
        reset = (epoch, offset) != START and (epoch != end.epoch or offset > end.offset)
        if reset:
            page, end = await self._page(channel, ENTRIES.c.offset > 0, limit)
            offset = 0
        first = page.entries[0].offset if page.entries else end.offset + 1
        return Page(page.entries, page.position, page.more, reset, lost=first - offset - 1)

    async def last(self, channel: str, limit: int = 100) -> Page:
        """Return the newest entries of a channel, oldest first.

        Raises:
            HistoryError: if the database does not answer.
            ValueError: if the limit or the name is no good.
        """
        return await self.before(channel, MAX_OFFSET, limit)

    async def before(self, channel: str, offset: int, limit: int = 100) -> Page:
        """Return the entries right before an offset, oldest first: the page above one that begins there.

        Raises:
            HistoryError: if the database does not answer.
            ValueError: if the limit or the name is no good.
        """
        page, _ = await self._page(channel, ENTRIES.c.offset < max(0, min(offset, MAX_OFFSET)), limit, back=True)
        return page

    async def prune(
        self, channel: str | None = None, *, keep: int | None = None, older_than: float | timedelta | None = None
    ) -> int:
        """Delete old entries of one channel or of all, and return how many. Offsets go on where they were.

        Args:
            channel: the channel; None for all.
            keep: how many of the newest entries of a channel stay, at most.
            older_than: seconds, or a timedelta: entries of that age go, up to the first one that is younger.

        Raises:
            HistoryError: if the database does not do it; what was deleted before stays deleted.
            ValueError: if neither is given, or one is negative.
        """
        age = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        if (keep is None and age is None) or (keep or 0) < 0 or (age or 0) < 0:
            raise ValueError(f"keep={keep!r}, older_than={older_than!r}: expected one of them or both, 0 or more")
        horizon = -math.inf if age is None else self._clock() - age
        if channel is None:
            channels = [str(name) for (name,) in await self._finish(self._read(select(CHANNELS.c.channel)))]
        else:
            channels = [checked("channel", channel)]
        total = 0
        for name in channels:
            deleted = _PRUNE_AT_ONCE
            while deleted == _PRUNE_AT_ONCE:
                deleted = await self._finish(self._delete(name, keep, horizon))
                total += deleted
        return total

    def _check_open(self) -> None:
        if not self._is_open:
            raise HistoryError(f"{self.engine.url!r}: the history is not open (call open() first, or use async with)")

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise HistoryError(f"{self.engine.url!r}: {str(reason) or type(reason).__name__}") from error

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _finish(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Await work that ends by itself if the caller is cancelled: no connection is abandoned half-way."""
        try:
            self._check_open()
            if len(self._tasks) >= MAX_AT_ONCE:
                raise HistoryError(f"{self.engine.url!r}: {MAX_AT_ONCE} calls wait for the database already")
        except HistoryError:
            work.close()
            raise
        return await asyncio.shield(self._spawn(work))

    async def _write(self) -> None:
        """Commit what waits, a group at a time, until nothing does."""
        try:
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_GROUP))]
                if wanted := [append for append in group if not append.done.done()]:
                    await self._commit(wanted)
                self._bytes -= sum(_OVERHEAD + len(append.data) for append in group)
        finally:
            self._writing = False

    async def _commit(self, group: Sequence[Append]) -> None:
        try:
            with self._clear_errors():
                async with self.engine.begin() as connection:
                    positions = await store(connection, group)
        except HistoryError as error:
            if len(group) > 1 and blames_a_statement(error.__cause__):
                for append in group:
                    await self._commit([append])
                return
            for append in group:
                if not append.done.done():
                    failure = HistoryError(*error.args)
                    failure.__cause__ = error.__cause__
                    append.done.set_exception(failure)
        else:
            for append, position in zip(group, positions, strict=True):
                if not append.done.done():
                    append.done.set_result(position)
        finally:
            for append in group:
                append.done.cancel()  # only where the loop is being torn down: all others are done

    async def _read(self, query: Select[Any]) -> Sequence[Any]:
        with self._clear_errors():
            async with self._reader.connect() as connection:
                rows: Sequence[Any] = (await connection.execute(query)).all()
                return rows

    async def _page(
        self, channel: str, where: ColumnElement[bool], limit: int, *, back: bool = False
    ) -> tuple[Page, Position]:
        """Return the page and the end of the channel, read in one statement, so that they belong together."""
        if limit < 1:
            raise ValueError(f"limit: {limit!r} (expected 1 or more)")
        limit = min(limit, MAX_PAGE)
        # one more tells whether there is more
        query = page_query(checked("channel", channel), where, limit + 1, back=back)
        found = await self._finish(self._read(query))
        end = Position(found[0].epoch, found[0].last) if found else START
        entries = [
            Entry(channel, row.offset, row.time, json.loads(row.data)) for row in found if row.offset is not None
        ]
        more = len(entries) > limit
        if more:
            entries.pop(0 if back else -1)
        position = Position(end.epoch, entries[-1].offset) if entries else end
        return Page(tuple(entries), position, more), end

    async def _delete(self, channel: str, keep: int | None, horizon: float) -> int:
        """Delete the oldest entries that may go, not too many, and return how many."""
        of_channel = ENTRIES.c.channel == channel
        first = select(func.min(ENTRIES.c.offset)).where(of_channel)
        bounds = select(
            CHANNELS.c.last, first.scalar_subquery(), first.where(ENTRIES.c.time >= horizon).scalar_subquery()
        )
        with self._clear_errors():
            async with self.engine.begin() as connection:
                row = (await connection.execute(bounds.where(CHANNELS.c.channel == channel))).one_or_none()
                if row is None or row[1] is None:
                    return 0
                end, oldest, young = row
                until = max(0 if keep is None else end - keep, end if young is None else young - 1)
                until = min(until, oldest + _PRUNE_AT_ONCE - 1)
                if until < oldest:
                    return 0
                return (await connection.execute(delete(ENTRIES).where(of_channel, ENTRIES.c.offset <= until))).rowcount
